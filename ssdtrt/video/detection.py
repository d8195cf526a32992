"""Detect in the frames of a video: batches that a file fills, and what is there of a stream."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ssdtrt import config
from ssdtrt.detection.results import Detections
from ssdtrt.video.decoder import Frame
from ssdtrt.video.reader import VideoReader


class FrameResult(NamedTuple):
    """What was found in a frame.

    Attributes:
        frame: Its number among all frames of the source, from 0.
        time: When it is shown, in seconds from the beginning of the source: its presentation time stamp.
        detections: What was found. They hold the frame's pixels.
    """

    frame: int
    time: float
    detections: Detections


class VideoDetector(Protocol):
    """What these functions need of a Detector."""

    @property
    def batch_size(self) -> int:
        """The most frames that run at once."""

    def stream(self, pictures: Any) -> Generator[tuple[int, Detections], None, None]:
        """Yield the detections of each frame."""


def detect_video(
    detector: VideoDetector, source: str | Path, every: int = 1, *, timeout: float = config.FETCH_SECONDS
) -> Generator[FrameResult, None, None]:
    """Yield what is found in the frames of a video, in their order, as they are done.

    A thread decodes ahead. A file's frames fill the detector's batches; of an address those frames run together that
    are there. Each result holds its frame: keep only what you need of it, or a long video fills the memory.

    Args:
        detector: A Detector.
        source: A video file, or an address such as `rtsp://camera/1` or `https://host/clip.mp4`.
        every: Which frames: 0, `every`, 2 * `every` and so on.
        timeout: Seconds without data after which an address fails.

    Raises:
        VideoError: Where it cannot be opened, PyAV is missing (the extra `video`) or, after the results of
            all frames that came, where it broke off or is damaged.
        GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
        SsdtrtError: For settings out of their range.

    Example:
        >>> from ssdtrt import Detector, detect_video
        >>> for frame, time, found in detect_video(Detector("ssd300.ts"), "clip.mp4", every=30):
        ...     print(frame, time, found.class_name.tolist())
        0 0.0 ['cat', 'dog', 'person']
        30 1.0 ['cat', 'dog', 'person']
    """
    with VideoReader(source, every, timeout) as reader:
        yield from detect_frames(detector, reader)
        if reader.failure is not None:
            raise reader.failure


def detect_frames(detector: VideoDetector, reader: VideoReader) -> Generator[FrameResult, None, None]:
    """Yield what is found in the frames of a reader.

    Args:
        detector: A Detector.
        reader: The reader, whose `failure` says afterwards how the video ended.

    Raises:
        VideoError: Where the video cannot be opened.
        GpuError: As `detect_video`.
    """
    while (first := reader.take()) is not None:
        if reader.live:
            some: Iterable[Frame] = [first, *reader.waiting(min(detector.batch_size, reader.info.frames_in_memory) - 1)]
        else:  # In parts, because the frames that a detector reads ahead would take any amount of memory.
            some = itertools.chain([first], itertools.islice(iter(reader.take, None), reader.info.frames_in_memory - 1))
        yield from _detect_in(detector, some)


def _detect_in(detector: VideoDetector, frames: Iterable[Frame]) -> Iterator[FrameResult]:
    taken: deque[tuple[int, float]] = deque()

    def pixels() -> Iterator[np.ndarray]:
        for frame in frames:
            taken.append((frame.number, frame.seconds))
            yield frame.pixels

    given = list(pixels()) if isinstance(frames, list) else pixels()
    with contextlib.closing(detector.stream(given)) as results:
        for _, found in results:
            yield FrameResult(*taken.popleft(), found)
