"""How far a long step is, in a line: the callback that is given it, and the bar with its rate and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with a short line that says how far a long step is."""

_WINDOW = 5.0  # seconds over which the rate is taken
_INTERVAL = 0.1  # seconds between two lines, at least
_CELLS = 20


def silent(_: str) -> None:
    """Show nothing: the progress callback of who asks for none."""


class ProgressBar:
    """Tells a progress callback how many units of a step are done, how fast it goes, and how long it will still take.

    Args:
        progress: The callback.
        doing: What is done, in a few words without a comma.
        total: How many units there are; None where that is not known.
        unit: What is counted.
        scale: How many of what `update` is given make one unit (1e6 for bytes that are shown as MB).
        clock: Seconds that only grow; another one in tests.
    """

    def __init__(
        self,
        progress: Progress,
        doing: str,
        total: int | None = None,
        unit: str = "images",
        scale: float = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._progress, self._doing, self._total, self._unit, self._scale = progress, doing, total, unit, scale
        self._clock = clock
        now = clock()
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])
        self._shown_at = now

    def update(self, done: int) -> None:
        """Take note that `done` units are done in all, and say so where a line is due: the last one always is."""
        now = self._clock()
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
        speed = (
            f"{rate / self._scale:,.0f} {self._unit}/s"
            if rate >= 10 * self._scale
            else f"{rate / self._scale:.1f} {self._unit}/s"
        )
        count = f"{done / self._scale:,.0f}"
        if not self._total:
            return f"{self._doing}, {count} {self._unit}, {speed}"
        filled = min(_CELLS, _CELLS * done // self._total)
        bar = "#" * filled + "." * (_CELLS - filled)
        line = f"{self._doing} [{bar}] {count} of {self._total / self._scale:,.0f} {self._unit}, {speed}"
        return line + (f", {_duration((self._total - done) / rate)} left" if rate and done < self._total else "")


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
