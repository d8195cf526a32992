"""Time single calls of a runner."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_UNTIMED = 4  # calls that precede those of a round: the host is ahead of the GPU from then on


def time_calls(runner: Callable[[Tensor], object], inputs: Sequence[Tensor], count: int) -> list[float]:
    """Return the milliseconds of each of `count` calls, the inputs used in turn: between CUDA events, or the host's.

    On a GPU the calls are issued one after the other, behind a few that are not timed, without a wait: the launch of a
    call falls into the time of those before, unless the host is the slower of the two.
    """
    if inputs[0].device.type != "cuda":
        return [host_time(runner, inputs[i % len(inputs)])[1] for i in range(count)]
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for i in range(_UNTIMED):
        runner(placed(runner, inputs[i % len(inputs)]))
    for i, (start, end) in enumerate(events):
        images = placed(runner, inputs[i % len(inputs)])
        start.record()
        runner(images)
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def placed(runner: object, images: Tensor) -> Tensor:
    """Return the images where the runner reads them without a copy: a CUDA graph does so in memory of its own."""
    place: Callable[[Tensor], Tensor] | None = getattr(runner, "place", None)
    return images if place is None else place(images)


def host_time(runner: Callable[..., object], *inputs: Tensor) -> tuple[float, float]:
    """Return the host's milliseconds of one call: until it returned, and until the current GPU had finished, if any."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    started = time.perf_counter()
    runner(*inputs)
    returned = time.perf_counter()
    wait()
    return (returned - started) * 1e3, (time.perf_counter() - started) * 1e3
