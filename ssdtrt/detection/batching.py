"""BatchRunner through a device: one is prepared while another runs, and one that its memory cannot hold is halved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from ssdtrt.errors import GpuError
from ssdtrt.system.gpu_errors import gpu_errors, out_of_memory
from ssdtrt.system.progress import Progress, silent

Item = TypeVar("Item")
Finish = Callable[[], Tensor]


class BatchRunner:
    """Runs batches of at most `size` items, and of half as many from where the GPU's memory does not hold them.

    `stage(batch)` brings a batch to the device; `start` takes what it returns, begins, and returns what waits for the
    result, a tensor with a row for each item. A batch is not made smaller than `smallest`. `note` is told of each
    halving; `release` is called before, to let go of what only a batch of the old size needs.
    """

    def __init__(
        self,
        stage: Callable[[list], Tensor],
        start: Callable[[Tensor], Finish],
        size: int,
        smallest: int = 1,
        *,
        note: Progress = silent,
        release: Callable[[], None] = lambda: None,
    ):
        self.stage, self.start, self.size, self.smallest = stage, start, size, smallest
        self.note, self.release = note, release

    def cut(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """The items in lists of the size of now."""
        batch: list[Item] = []
        for item in items:
            batch.append(item)
            if len(batch) >= self.size:
                yield batch
                batch = []
        if batch:
            yield batch

    def run(self, batches: Iterable[list[Item]]) -> Iterator[tuple[list[Item], Tensor]]:
        """Each batch and its result, in order. Raises GpuError where the GPU fails or cannot hold the smallest batch."""
        running, finish = [], None
        for batch in batches:
            images = self._if_it_fits(self.stage, batch)
            if running:
                yield running, self._result(running, finish)
            running, finish = batch, None
            if images is not None and len(batch) <= self.size:
                finish = self._if_it_fits(self.start, images)
        if running:
            yield running, self._result(running, finish)

    def _result(self, batch: list, finish: Finish | None) -> Tensor:
        """The result of a batch that was begun, or that did not fit."""
        result = None if finish is None else self._if_it_fits(finish)
        return self._in_halves(batch) if result is None else result

    def _in_halves(self, batch: list) -> Tensor:
        """The result of a batch that did not fit, in smaller ones, none of which runs while another does."""
        if len(batch) <= self.size:  # It may have been cut when more seemed to fit.
            self._halve(len(batch))
        results, done = [], 0
        while done < len(batch):
            part = batch[done : done + self.size]
            result = self._if_it_fits(lambda: self.start(self.stage(part))())
            results.append(self._in_halves(part) if result is None else result)
            done += len(part)
        return torch.cat(results)

    def _halve(self, count: int) -> None:
        if count <= self.smallest:
            raise GpuError(
                f"The GPU has not enough memory for a batch of {self.smallest}, the smallest that this file takes. "
                "Free some (nvidia-smi shows who has it), or compile with a smaller --batch-size."
            )
        self.size = max(self.smallest, count // 2)
        self.note(f"The GPU has not enough memory for {count} pictures at once; going on with {self.size}.")
        self.release()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    @staticmethod
    def _if_it_fits(function, *arguments):
        """What the function returns; None where the GPU's memory is too small, and then the error's frames are gone."""
        with gpu_errors():
            try:
                return function(*arguments)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
        return None
