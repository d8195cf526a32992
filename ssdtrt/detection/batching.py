"""Bring batches to a device and run them: one is prepared while another runs, one that does not fit is halved."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import GpuError, ImageError
from ssdtrt.images.gpu_resize import constants, resize
from ssdtrt.images.upload import on_host, to_device
from ssdtrt.reading.read_ahead import in_thread
from ssdtrt.reading.reader import PictureNotes, Prepared, PreparedPicture, readable
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.system.devices import current_device
from ssdtrt.system.gpu_errors import gpu_errors, out_of_memory
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.report import counted

Item = TypeVar("Item")
Finish = Callable[[], Tensor]


class Stage:
    """Copies pictures to the device and resizes them there.

    Pictures that come one by one with the same size, as the frames of a video do, are resized as a CUDA graph after
    config.RESIZE_GRAPH_AFTER of them: the host takes several times as long to launch the steps as a GPU takes to run
    them. A larger batch hides that. A capture takes as long as hundreds of pictures save.

    Args:
        device: Where to.

    Attributes:
        graph: The graph for pictures of the last size; None before enough of them came.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.graph: CudaGraphRunner | None = None
        self._shape: tuple[int, ...] = ()
        self._same = 0  # pictures of that shape, one after the other
        self._kept: tuple[Tensor, ...] = ()
        self._lock = threading.RLock()  # A batch that does not fit is staged anew while the next one is.

    def __call__(self, pictures: Sequence[np.ndarray | Tensor]) -> Tensor:
        """Return the pictures, uint8 [h, w, 3] each, as uint8 [N, 3, 300, 300]."""
        with self._lock, current_device(self.device):
            alone = self.device.type == "cuda" and len(pictures) == 1 and isinstance(pictures[0], np.ndarray)
            if alone and self._comes_often(pictures[0].shape):
                return self._replay(cast(Sequence[np.ndarray], pictures)).permute(0, 3, 1, 2)
            return to_device(pictures, self.device)

    def release(self) -> None:
        """Free the graph and the memory that it holds."""
        with self._lock:
            self.graph, self._shape, self._same, self._kept = None, (), 0, ()

    def _comes_often(self, shape: tuple[int, ...]) -> bool:
        """Whether enough pictures of this shape came one after the other, and they have to be resized."""
        if shape != self._shape:
            self.release()
            self._shape = shape
        self._same += 1
        return self._same > config.RESIZE_GRAPH_AFTER and shape[:2] != (config.IMAGE_SIZE, config.IMAGE_SIZE)

    def _replay(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Return a picture as [1, 300, 300, 3], copied straight to where the graph reads it."""
        if self.graph is None:
            height, width = pictures[0].shape[:2]
            self._kept = constants(height, width, self.device)  # The graph reads them where they are now.
            self.graph = CudaGraphRunner(resize, self.device, limit=1)
        images: Tensor = self.graph(on_host(pictures, pinned=self.device.type == "cuda"))
        return images.clone()  # Where batches are staged ahead, the next replay comes before this is used.


class BatchRunner:
    """Runs batches of at most `size` items, and of half as many from where the GPU's memory is too small for them.

    Args:
        stage: Brings a batch to the device.
        start: Starts the work on what `stage` returned, and returns a function that waits for the result, a tensor with
            a row for each item. That function is called before the next `start`.
        size: The most items of a batch; smaller after a batch did not fit.
        smallest: The fewest items that a batch is halved to.
        note: Called with a line on each halving.
        release: Called before a smaller batch is tried, to free what only the larger size needed.
        ahead: A device for which a thread takes and stages the next batch while one runs, on a CUDA stream of its own;
            None to do that in turn.
        pad: Whether a shorter batch behind a full one is filled up with its last item: on a GPU another size is another
            CUDA graph, whose capture takes longer than the items.
        times: Takes how long staging takes.

    Attributes:
        sizes: Sizes in ascending order that batches of any order of sizes are filled up to, as `pad` says; none at first.
    """

    sizes: Sequence[int] = ()

    def __init__(
        self,
        stage: Callable[[list[Any]], Tensor],
        start: Callable[[Tensor], Finish],
        size: int,
        smallest: int = 1,
        *,
        note: Progress = silent,
        release: Callable[[], None] = lambda: None,
        ahead: torch.device | None = None,
        pad: bool = False,
        times: StageTimes | None = None,
    ):
        self.ahead, self.pad, self.times = ahead, pad, times or StageTimes()
        self.stage, self.start, self.size, self.smallest = stage, start, size, smallest
        self.note, self.release = note, release
        self._stream: torch.cuda.Stream | None = None  # Kept: torch keeps memory for each stream that there was.

    def cut(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Yield the items in lists of the current `size`."""
        batch: list[Item] = []
        for item in items:
            batch.append(item)
            if len(batch) >= self.size:
                yield batch
                batch = []
        if batch:
            yield batch

    def run(self, batches: Iterable[list[Item]]) -> Generator[tuple[list[Item], Tensor], None, None]:
        """Yield each batch and its result, in order.

        The next batch already runs while the caller uses a result; at most two batches are on the device, and where
        they are staged ahead those that config.BATCHES_AHEAD lets wait, and one more.

        Args:
            batches: The batches; a generator is closed at the end, in the thread that it runs in.

        Raises:
            GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
        """
        running: tuple[list[Item], Finish | None] | None = None
        full = 0  # items of the batch before, if it was a full one
        staged = self._staged(batches, self.ahead)
        if self.ahead is not None:
            staged = in_thread(staged, config.BATCHES_AHEAD)
        with contextlib.closing(staged):
            for batch, images in staged:
                done = self._finish(*running) if running else None
                try:
                    fits = images is not None and len(batch) <= self.size
                    running = batch, self._if_it_fits(self._start, images, full) if fits else None
                    full = len(batch) if len(batch) == self.size else 0
                finally:
                    if done:  # Also where the next batch fails to start: what is finished is not lost.
                        yield done
        if running:
            yield self._finish(*running)

    def _staged(
        self, batches: Iterable[list[Item]], ahead: torch.device | None
    ) -> Generator[tuple[list[Item], Tensor | None], None, None]:
        """Each batch and what `stage` returns for it; None where the memory is too small.

        For a GPU that is done ahead on a stream of its own, and it has finished what it is given.
        """
        if ahead is not None and ahead.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(ahead)
        stream = self._stream if ahead is not None else None
        with contextlib.ExitStack() as stack:
            if isinstance(batches, Generator):
                stack.enter_context(contextlib.closing(batches))
            stack.enter_context(torch.cuda.stream(stream))  # Of this thread.
            for batch in batches:
                with self.times.busy("upload"):
                    images = self._if_it_fits(self.stage, batch)
                    if stream is not None:
                        with gpu_errors():
                            stream.synchronize()
                yield batch, images

    def _start(self, images: Tensor, full: int) -> Finish:
        """Start the images [N, ...] of a batch, filled up to those of a full one before it."""
        if images.is_cuda:
            images.record_stream(torch.cuda.current_stream(images.device))
        full = next((size for size in self.sizes if size >= len(images)), full)
        if self.pad and len(images) < full <= self.size:
            images = torch.cat([images, images[-1:].expand(full - len(images), *images.shape[1:])])
        return self.start(images)

    def _finish(self, batch: list[Item], finish: Finish | None) -> tuple[list[Item], Tensor]:
        """A batch and its result: of one that was started, or of one that did not fit, in halves."""
        result = None if finish is None else self._if_it_fits(finish)
        return batch, self._in_halves(batch) if result is None else result[: len(batch)]

    def _in_halves(self, batch: list[Item]) -> Tensor:
        """The result of a batch that did not fit, in smaller ones, none of which runs while another does."""
        if len(batch) <= self.size:  # A longer one was cut while the size was larger.
            self._halve(len(batch))
        results: list[Tensor] = []
        done = 0
        while done < len(batch):
            part = batch[done : done + self.size]
            result = self._if_it_fits(self._run_alone, part)
            results.append(self._in_halves(part) if result is None else result)
            done += len(part)
        return torch.cat(results)

    def _run_alone(self, batch: list[Item]) -> Tensor:
        return self.start(self.stage(batch))()

    def _halve(self, count: int) -> None:
        if count <= self.smallest:
            raise GpuError(
                f"The GPU has not enough memory for a batch of {self.smallest}, the smallest that this file takes. "
                "Free some (nvidia-smi shows who has it), or compile with a smaller --batch-size."
            )
        self.size = max(self.smallest, count // 2)
        self.note(f"There is not enough memory for {counted(count, 'picture')} at once; going on with {self.size}.")
        self.release()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    @staticmethod
    def _if_it_fits(function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; None where memory is too small, and then the error's frames are gone."""
        with gpu_errors():
            try:
                return function(*arguments)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
        return None


def gather(
    prepared: Prepared, batches: BatchRunner, failures: list[ImageError] | None, notes: PictureNotes
) -> Generator[list[PreparedPicture], None, None]:
    """Yield the pictures that can be read in batches, and end the reading in the thread that this runs in.

    Args:
        prepared: What is read.
        batches: What runs them.
        failures: As for `readable`.
        notes: Takes the notes.
    """
    with contextlib.closing(prepared):
        yield from batches.cut(readable(prepared, failures, notes))
