"""Detect in videos one after the other, with the detections of each frame handed to sinks as they come."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ssdtrt.errors import VideoError
from ssdtrt.system.progress import Progress, ProgressBar, silent
from ssdtrt.video.decoder import VideoInfo
from ssdtrt.video.detection import FrameResult, VideoDetector, detect_frames
from ssdtrt.video.reader import VideoReader
from ssdtrt.video.records import VideoRun
from ssdtrt.video.sinks import FrameLinesSink, VideoSink
from ssdtrt.video.sources import shown_name


class VideoOutputs(NamedTuple):
    """Where the detections of one video go.

    Attributes:
        annotated: The annotated video; None for none.
        lines: JSON lines, which the caller closes where they are of several videos; None for none.
        jsonl: What the file of these is called.
    """

    annotated: VideoSink | None
    lines: FrameLinesSink | None
    jsonl: str | None

    def write(self, video: str, result: FrameResult) -> None:
        """Hand over what was found in a frame."""
        if self.lines is not None:
            self.lines.write(video, result)
        if self.annotated is not None:
            self.annotated.write(result)


def detect_videos(
    detector: VideoDetector,
    videos: Sequence[str],
    outputs: Callable[[str, VideoInfo], VideoOutputs],
    failures: list[VideoError],
    every: int,
    timeout: float,
    progress: Progress = silent,
) -> list[VideoRun]:
    """Detect in videos and return what was done with each that could be opened.

    However that ends, every annotated video is closed, and has what was done.

    Args:
        detector: The detector.
        videos: Files and addresses.
        outputs: Called for each video when it is open; where its detections go.
        failures: Takes why videos could not be read, or not to their end; the others go on.
        every: Which frames: 0, `every`, 2 * `every` and so on.
        timeout: Seconds without data after which an address fails.
        progress: Called with a line about how far it is.

    Raises:
        ArtifactError: Where a sink cannot write.
        GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
    """
    runs: list[VideoRun] = []
    for video in videos:
        with VideoReader(video, every, timeout) as reader:
            try:
                info = reader.info
            except VideoError as error:
                failures.append(error)
                continue
            runs.append(_detect_one(detector, reader, outputs(video, info), every, progress))
            if reader.failure is not None:
                failures.append(reader.failure)
    return runs


def _detect_one(
    detector: VideoDetector, reader: VideoReader, outputs: VideoOutputs, every: int, progress: Progress
) -> VideoRun:
    name, total = shown_name(reader.source), reader.info.frames
    bar = ProgressBar(progress, "detecting", math.ceil(total / every) if total else None, unit="frame")
    frames = detections = 0
    last: float | None = None
    sink: AbstractContextManager[Any] = outputs.annotated or contextlib.nullcontext()
    with sink, contextlib.closing(detect_frames(detector, reader)) as results:
        for result in results:
            outputs.write(name, result)
            frames, detections = frames + 1, detections + len(result.detections)
            last = round(result.time, 3)
            bar.update(frames)
    annotated = str(outputs.annotated.path) if outputs.annotated is not None and frames else None
    return VideoRun(name, frames, detections, last, annotated, outputs.jsonl)
