"""How long each stage of a pipeline is busy, and which of them holds the others. No torch here."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from ssdtrt.system.report import Report

STAGES = ("read", "decode", "upload", "network", "results", "write")
"""Files read and, on the CPU, decoded; JPEGs decoded and resized on a GPU; pixels copied to the device, and resized there
where they are not yet; network, boxes and NMS; detections from numbers to objects; and what is written."""


class StageTime(Report, frozen=True):
    """How long a stage was busy.

    Attributes:
        stage: Its name, of STAGES.
        seconds: How long it worked; of several workers, their time divided by their number.
        share: Of the whole time, 0..1: near 1 it holds the others, that wait for it.
    """

    stage: str
    seconds: float
    share: float


class StageTimes:
    """Adds up how long each stage is busy; stages may run in different threads.

    Attributes:
        began: When the first of them began, by `time.perf_counter`; None before one has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.began: float | None = None
        self.clear()

    def add(self, stage: str, seconds: float, began: float | None = None) -> None:
        """Add to the time of a stage.

        Args:
            stage: Its name.
            seconds: How long it worked, divided by the number of those who do such work at a time.
            began: When it began, by `time.perf_counter`; by default so many seconds ago.
        """
        with self._lock:
            if self.began is None:
                self.began = time.perf_counter() - seconds if began is None else began
            self._seconds[stage] += seconds

    @contextlib.contextmanager
    def busy(self, stage: str, workers: int = 1) -> Iterator[None]:
        """Add the time of the block, divided by the number of those who do such work at a time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - started) / workers, started)

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            self._seconds, self.began = dict.fromkeys(STAGES, 0.0), None

    def of(self, wall: float) -> tuple[StageTime, ...]:
        """Return the times of all stages.

        Args:
            wall: How many seconds the whole took.
        """
        with self._lock:
            return tuple(StageTime(stage, busy, busy / wall if wall else 0.0) for stage, busy in self._seconds.items())
