"""Where the detections of a video go: JSON lines, and the video with its boxes. Both are valid however a run ends."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ssdtrt.detection.drawing import draw_detections
from ssdtrt.detection.results import Detections
from ssdtrt.errors import ArtifactError
from ssdtrt.reading.read_ahead import worker_count
from ssdtrt.sinks.text_output import TextOutput
from ssdtrt.system.outputs import writing
from ssdtrt.video.decoder import VideoInfo
from ssdtrt.video.detection import FrameResult
from ssdtrt.video.records import FrameDetections
from ssdtrt.video.sources import load_av

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's format by the suffix of an annotated video."""
_TIME_BASE = Fraction(
    1, 60_000
)  # seconds; whole frames at 24, 25, 29.97, 30, 50, 59.94 and 60 a second, and MPEG-4 takes it
# By the name of the encoder, the first that is there: the quality is that at which no difference is seen.
_ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},  # 118 is FFmpeg's FF_QP2LAMBDA.
}
_WEBM_ENCODERS: dict[str, dict[str, str]] = {
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0", "crf": "30", "b": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "crf": "10", "b": "4M"},
}


class _NoFrameError(Exception):
    """No frame came, so there is no file to write."""


class FrameLinesSink:
    """Writes one JSON object a frame and line, as `FrameDetections.document` has it.

    Args:
        target: A path or a text stream, which stays open.
        labels: The names of the model's classes, the background first.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str]):
        self._labels, self._output = labels, TextOutput(target)

    def __enter__(self) -> FrameLinesSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._output.close("", broken=kind is not None)

    def write(self, video: str, result: FrameResult) -> None:
        """Write one frame's detections.

        Args:
            video: What the video is called.
            result: What was found in the frame.
        """
        found = result.detections
        named = found.named(self._labels).detections
        time = round(result.time, 3)
        record = FrameDetections(video, result.frame, time, found.width, found.height, named)
        self._output.write(json.dumps(record.document()) + "\n")


class VideoSink:
    """Writes a video's frames with their boxes as a video that plays at the same speed; threads draw and encode.

    It is written beside its path and moved there at the end, also where the run breaks off: what was done plays.
    Nothing is written where no frame came.

    Args:
        path: The video; its suffix, one of FORMATS, says the format.
        labels: The names of the model's classes, the background first.
        info: What the source says about itself.
        every: Which frames come: one in so many.
        note: What is written along the bottom of each frame.
        show_labels: Whether labels and scores are drawn, beside the boxes.

    Raises:
        ArtifactError: Where it cannot be written.
    """

    def __init__(
        self, path: str | Path, labels: Sequence[str], info: VideoInfo, every: int = 1, note: str = "", *, show_labels: bool = True
    ):  # fmt: skip
        self.path, self._labels, self._info, self._note = Path(path), labels, info, note
        self._show_labels, self._rate = show_labels, info.rate / every
        self._av = load_av()
        self._container: Any = None
        self._stream: Any = None
        self._reformatter: Any = self._av.video.reformatter.VideoReformatter()
        self._last = -1  # the time stamp of the last frame
        self._failure: ArtifactError | None = None  # after which FFmpeg may crash where it is called again
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> VideoSink:
        self._writing = writing(self.path)
        self._temporary = self._writing.__enter__()
        self._drawers = ThreadPoolExecutor(worker_count(), thread_name_prefix="ssdtrt-draw")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="ssdtrt-encode")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._finish()
        except BaseException as error:
            self._writing.__exit__(type(error), error, error.__traceback__)
            if kind is None and not isinstance(error, _NoFrameError):
                raise
        else:
            self._writing.__exit__(None, None, None)

    def write(self, result: FrameResult) -> None:
        """Write one frame; waits while too many are still being drawn or encoded.

        Raises:
            ArtifactError: Where the video cannot be written.
        """
        drawn = self._drawers.submit(self._draw, result.detections)
        self._waiting.append(self._encoder.submit(self._encode, drawn, result.time))
        if len(self._waiting) > worker_count() + 1:
            self._waiting.popleft().result()

    def _finish(self) -> None:
        """Draw and encode what is waiting, and close the video."""
        try:
            with self._encoder, self._drawers:
                while self._waiting:
                    self._waiting.popleft().result()
            if self._failure is not None:
                raise self._failure
            if self._container is None:
                raise _NoFrameError
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
        except (self._av.FFmpegError, OSError) as error:
            raise self._refused(error) from error
        finally:
            with contextlib.suppress(self._av.FFmpegError, OSError):
                if self._container is not None:
                    self._container.close()
            self._container = self._stream = self._reformatter = None  # With them FFmpeg's threads end.

    def _draw(self, found: Detections) -> np.ndarray:
        """The frame with its boxes, in its own size: without labels where those would need a margin."""
        picture, detections = found.picture, found.named(self._labels).detections
        drawn = draw_detections(picture, detections, self._note, self._show_labels)
        if drawn.size != picture.size:
            drawn = draw_detections(picture, detections, "", False)
        return np.asarray(drawn)

    def _encode(self, drawn: Future[np.ndarray], seconds: float) -> None:
        pixels = drawn.result()
        if self._failure is not None:
            raise self._failure
        try:
            if self._container is None:
                self._open(pixels.shape[1], pixels.shape[0])
            frame = self._av.VideoFrame.from_ndarray(_even(pixels), format="rgb24")
            size = self._stream.width, self._stream.height
            frame = self._reformatter.reformat(frame, *size, "yuv420p", dst_colorspace="ITU709")
            self._last = frame.pts = max(round(Fraction(seconds) / _TIME_BASE), self._last + 1)
            frame.time_base = _TIME_BASE
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (self._av.FFmpegError, OSError) as error:
            self._failure = self._refused(error)
            raise self._failure from error

    def _open(self, width: int, height: int) -> None:
        known = FORMATS[self.path.suffix.lower()]
        encoders = _WEBM_ENCODERS if known == "webm" else _ENCODERS
        there = [name for name in encoders if name in self._av.codecs_available]
        if not there:
            raise OSError(f"this PyAV has none of the encoders {', '.join(encoders)}")
        self._container = self._av.open(str(self._temporary), "w", format=known)
        self._stream = self._container.add_stream(there[0], rate=self._rate, options=encoders[there[0]])
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        turned = width != self._info.width
        context.sample_aspect_ratio = 1 / self._info.pixel_aspect if turned else self._info.pixel_aspect
        context.time_base = _TIME_BASE
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709, which players assume
        context.color_range = 1  # 16..235

    def _refused(self, error: Exception) -> ArtifactError:
        reason = getattr(error, "strerror", None) or str(error)
        return ArtifactError(f"{self.path} cannot be written: {reason}. Give another with -o.")


def _even(pixels: np.ndarray) -> np.ndarray:
    """Pixels with an even height and width: 4:2:0 has one color for two by two; the last row and column are repeated."""
    odd = pixels.shape[0] % 2, pixels.shape[1] % 2
    return np.pad(pixels, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else pixels
