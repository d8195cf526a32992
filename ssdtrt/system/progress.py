"""Report the progress of a long step: the callback, and a progress bar with the rate and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from ssdtrt.system.report import counted

T = TypeVar("T")

Progress = Callable[[str], None]
"""A callback that takes one short line about the progress of a step."""

_WINDOW = 5.0  # seconds over which the rate is averaged
_INTERVAL = 0.1  # seconds between two lines, at least
_BAR_WIDTH = 20  # characters


def silent(_: str) -> None:
    """Report nothing; the default progress callback."""


class ProgressBar:
    """Report how many units of a step are done, the current rate, and the time left where the total is known.

    Args:
        progress: The callback that takes the lines.
        step: The name of the step, in a few words without a comma.
        total: The number of units; None if it is not known.
        unit: The unit that the lines show, in the singular.
        scale: How many of what `update` counts make one unit: 1e6 for bytes shown as MB.
        rate: Whether the lines show the rate too.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        progress: Progress,
        step: str,
        total: int | None = None,
        unit: str = "image",
        scale: float = 1,
        rate: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._progress, self._step, self._total, self._unit, self._scale = progress, step, total, unit, scale
        self._shows_rate, self._clock = rate, clock
        now = clock()
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])
        self._shown_at, self._done = now, 0

    def add(self, count: int) -> None:
        """Report that `count` more units are done."""
        self.update(self._done + count)

    def update(self, done: int) -> None:
        """Report that `done` units are done in total; lines in quick succession are skipped, except the last."""
        now, self._done = self._clock(), done
        if now - self._shown_at < _INTERVAL and done != self._total:
            return
        self._shown_at = now
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW:
            self._marks.popleft()
        self._progress(self._line(done))

    def _line(self, done: int) -> str:
        (since, before), (now, _) = self._marks[0], self._marks[-1]
        rate = (done - before) / (now - since) if now > since else 0.0
        decimals = 0 if rate >= 10 * self._scale else 1
        plural = self._unit if self._scale != 1 else f"{self._unit}s"
        speed = [f"{rate / self._scale:,.{decimals}f} {plural}/s"] if self._shows_rate else []
        if not self._total:
            return ", ".join([self._step, self._count(done), *speed])
        filled = min(_BAR_WIDTH, _BAR_WIDTH * done // self._total)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        left = [f"{_duration((self._total - done) / rate)} left"] if rate and done < self._total else []
        count = f"{done / self._scale:,.0f} of {self._count(self._total)}"
        return ", ".join([f"{self._step} [{bar}] {count}", *speed, *left])

    def _count(self, number: int) -> str:
        return counted(number, self._unit) if self._scale == 1 else f"{number / self._scale:,.0f} {self._unit}"


def tracked(items: Collection[T], progress: Progress, step: str, unit: str) -> Iterator[T]:
    """Yield the items, and report how many of them the caller is done with, and the time left.

    Args:
        items: What the step is done with.
        progress: The callback that takes the lines; the first one is the step alone.
        step: The name of the step, in a few words without a comma.
        unit: What the items are, in the singular.
    """
    progress(step)
    bar = ProgressBar(progress, step, len(items), unit, rate=False)
    for item in items:
        yield item
        bar.add(1)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
