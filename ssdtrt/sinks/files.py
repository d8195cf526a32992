"""Detect in picture files, with the detections handed to sinks as they come."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ssdtrt import config
from ssdtrt.detection.results import UNTRAINED, Detections, ImageDetections, Summary
from ssdtrt.detection.unpacking import DetectionBatch
from ssdtrt.errors import ImageError
from ssdtrt.reading.fetch import Fetched
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.runner import FileRunner
from ssdtrt.sinks.folder_sink import Comparison, FolderSink
from ssdtrt.sinks.json_sinks import CocoSink, JsonLinesSink
from ssdtrt.system.progress import Progress, ProgressBar, silent

_FIRST = 20  # pictures whose detections a summary holds


class FileDetector(Protocol):
    """What these functions need of a Detector."""

    runner: FileRunner | EagerRunner
    times: StageTimes

    def __call__(self, pictures: Any) -> Any:
        """Detect in pictures."""

    def stream_batches(
        self, pictures: Any, failures: list[ImageError] | None = None, keep: bool = False, many: bool = False
    ) -> Generator[DetectionBatch, None, None]:
        """Yield the detections of a batch of pictures at a time."""


def folder_sink(
    detector: FileDetector,
    folder: str | Path,
    *,
    baseline: FileDetector | None = None,
    show_labels: bool = True,
    save_crops: bool = False,
) -> FolderSink:
    """Return a sink that writes annotated pictures and `detections.json` into a folder.

    Args:
        detector: The detector.
        folder: The folder, which is made.
        baseline: Another detector, whose detections are drawn beside each picture.
        show_labels: As for FolderSink.
        save_crops: As for FolderSink.
    """
    runner, comparison = detector.runner, None
    if baseline is not None:
        captions = f"{runner.name} {runner.precision.upper()}", baseline.runner.name
        comparison = Comparison(baseline, captions)
    note = "" if runner.trained else UNTRAINED
    return FolderSink(folder, runner.labels, note, comparison, show_labels=show_labels, save_crops=save_crops)


def detect_files(
    detector: FileDetector,
    pictures: Iterable[str | Path | Fetched],
    sinks: Sequence[FolderSink | JsonLinesSink | CocoSink],
    failures: list[ImageError] | None = None,
    total: int | None = None,
    progress: Progress = silent,
    each: Callable[[Detections], None] | None = None,
) -> Summary:
    """Detect in picture files and hand the detections of each batch to every sink, as they come.

    However that ends, every sink is closed and what it wrote is valid.

    Args:
        detector: The detector.
        pictures: The files, addresses, or what was fetched; taken as they are needed.
        sinks: Where the detections go.
        failures: Takes the errors of pictures that cannot be read; the others go on.
        total: How many pictures there are, where that is known.
        progress: Called with a line about how far it is.
        each: Called with each picture's detections, after the sinks had those of its batch.

    Raises:
        ArtifactError: Where a sink cannot write.
        GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
    """
    failures = [] if failures is None else failures
    first: list[ImageDetections] = []
    detector.times.clear()
    started = time.perf_counter()
    count = detections = 0
    bar = ProgressBar(progress, "detecting", total)
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        keep = any(isinstance(sink, FolderSink) for sink in sinks)
        many = total is None or total >= config.MANY_PICTURES
        batches = stack.enter_context(contextlib.closing(detector.stream_batches(pictures, failures, keep, many)))
        for batch in batches:
            with detector.times.busy("write"):
                for sink in sinks:
                    sink.write_batch(batch)
            if each is not None:
                for _, found in batch:
                    each(found)
            count, detections = count + len(batch), detections + len(batch.confidence)
            for _, found in itertools.islice(batch, _FIRST - len(first)):
                first.append(found.named(detector.runner.labels))
            bar.update(batch.indices[-1] + 1)
        if total:  # The last pictures may be unreadable.
            bar.update(total)
    seconds = time.perf_counter() - (detector.times.began or started)
    return Summary(count, detections, seconds, tuple(first), tuple(failures), detector.times.of(seconds))
