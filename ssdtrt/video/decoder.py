"""Open a video with PyAV and decode its frames: numbers, times, upright RGB pixels, and what is amiss with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssdtrt import config
from ssdtrt.errors import VideoError, first_line
from ssdtrt.system.report import counted
from ssdtrt.video.http_file import HttpFile
from ssdtrt.video.sources import LIVE_SCHEMES, PLAYLISTS, WEB_SCHEMES, load_av, scheme_of, shown_name, suffix_of

_BUFFER = 1 << 16  # bytes that are asked of a web server at once
_MISSING_SECONDS = 1.0  # a video that ends earlier by more than this is not whole
_USUAL_RATE = Fraction(25)  # frames a second of a video that does not say it, nor when its frames are shown


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        number: Its place among all frames of the source, from 0.
        seconds: When it is shown, from the beginning of the source.
        pixels: uint8 [h, w, 3], RGB, upright.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class VideoInfo(NamedTuple):
    """What a video says about itself.

    Attributes:
        rate: Frames a second, on average.
        width: Its width in pixels, before it is turned upright.
        height: Its height.
        pixel_aspect: The width of a pixel over its height, likewise.
        frames: About how many frames there are; None where that is not known.
    """

    rate: Fraction
    width: int
    height: int
    pixel_aspect: Fraction
    frames: int | None

    @property
    def frames_in_memory(self) -> int:
        """How many decoded frames fit into config.VIDEO_BYTES, at least two."""
        return max(2, config.VIDEO_BYTES // max(1, 3 * self.width * self.height))


class Decoder:
    """A video that is open. A context manager; one thread.

    Args:
        source: A file or an address.
        timeout: Seconds without data after which an address fails.

    Attributes:
        info: What it says about itself.

    Raises:
        VideoError: Where it cannot be opened or has no video, or PyAV is missing.
    """

    def __init__(self, source: str | Path, timeout: float):
        self._av, self._name, self._timeout = load_av(), shown_name(source), timeout
        self._scheme = scheme_of(str(source))
        self._reformatter = self._av.video.reformatter.VideoReformatter()  # One for all frames: each has threads.
        self._file: HttpFile | None = None
        self._number = -1  # of the last frame, decoded or not
        self._last, self._seconds = -1, 0.0  # of the last that was decoded
        self._damaged, self._first_damaged = 0, 0  # how many frames are missing or faulty, and which is the first
        started = time.monotonic()
        try:
            self._container = self._open(str(source))
        except (self._av.FFmpegError, OSError) as error:
            late = bool(self._scheme) and time.monotonic() - started >= timeout  # FFmpeg's RTSP says something else.
            reason = self._reason(TimeoutError() if late else (self._file and self._file.failure) or error)
            self._close_file()
            raise VideoError(f"{self._name} cannot be opened as a video ({reason}).") from error
        self._stream = self._container.streams.best("video")
        if self._stream is None or self._stream.codec_context is None:
            found = "has no video, only sound or subtitles" if self._stream is None else "is of a codec that PyAV lacks"
            self.__exit__()
            raise VideoError(f"{self._name} {found}.")
        self._stream.thread_type = "SLICE" if self._scheme in LIVE_SCHEMES else "AUTO"  # Frames at once come later.
        self._start = Fraction(self._container.start_time or 0, self._av.time_base)
        self._step = 1 / (self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE)
        self.info = self._described()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._container = self._stream = self._reformatter = None  # With them FFmpeg's threads end.
        self._close_file()

    def _open(self, source: str) -> Any:
        if not self._scheme:  # What a file names, as a playlist may, is not fetched.
            return self._av.open(f"file:{source}", options={"protocol_whitelist": "file,crypto,data"})
        if self._scheme in WEB_SCHEMES and suffix_of(source) not in PLAYLISTS:
            self._file = HttpFile(source, self._timeout)
            # What the server sends may be a list of files, of which none of this machine is opened.
            return self._av.open(self._file, buffer_size=_BUFFER, options={"protocol_whitelist": "data"})
        options = {"rtsp_flags": "prefer_tcp"} if self._scheme.startswith("rtsp") else {}
        return self._av.open(source, options=options, timeout=self._timeout)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()

    def _described(self) -> VideoInfo:
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        seconds = self._declared_seconds()
        frames = self._stream.frames or (round(seconds / self._step) if seconds else None)
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        return VideoInfo(1 / self._step, width, height, aspect, frames)

    def _declared_seconds(self) -> Fraction | None:
        """How long the video is, as it says; None where it does not, as a live stream."""
        if self._container.format.name == "avi":  # Its duration is that of the frames which are there.
            return self._stream.frames * self._step or None
        if self._stream.duration and self._stream.time_base:
            return self._stream.duration * self._stream.time_base
        parts = self._stream.metadata.get("DURATION", "").split(":")  # Matroska's and WebM's.
        with contextlib.suppress(ValueError, ZeroDivisionError):
            if len(parts) == 3:
                return sum((Fraction(part) * 60**place for place, part in enumerate(reversed(parts))), Fraction(0))
        return Fraction(self._container.duration, self._av.time_base) if self._container.duration else None

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Yield every Nth frame, from the first on, in the order in which they are shown.

        Raises:
            VideoError: After the last frame, where the video broke off or parts of it are damaged.
        """
        failure: BaseException | None = None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)  # The last one of a video that ends well empties the decoder.
            except (self._av.FFmpegError, OSError) as error:
                failure, packet = error, None
            if packet is None and failure is None:
                break
            for decoded in self._decode(packet):
                self._seconds = self._time(decoded)
                self._last = self._number = self._number + 1
                if decoded.is_corrupt:
                    self._note_damage()
                if self._number % every == 0:
                    yield Frame(self._number, self._seconds, self._pixels(decoded))
            if packet is None:
                break
        self._check_end((self._file and self._file.failure) or failure)

    def _decode(self, packet: Any) -> list[Any]:
        """The frames that a packet completes; for None those that the decoder still has."""
        try:
            return packet.decode() if packet is not None else self._stream.codec_context.decode(None)
        except self._av.error.EOFError:
            return []
        except self._av.FFmpegError:
            if self._scheme not in LIVE_SCHEMES or self._number >= 0:  # One joins a stream in the middle of a picture.
                self._number += 1  # A packet is a frame.
                self._note_damage()
            return []

    def _note_damage(self) -> None:
        self._first_damaged = self._first_damaged if self._damaged else self._number
        self._damaged += 1

    def _pixels(self, frame: Any) -> np.ndarray:
        """The pixels of a decoded frame, turned upright by its display matrix."""
        pixels = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX":
                return np.ascontiguousarray(upright(pixels, np.frombuffer(bytes(data), np.int32).tolist()))
        return pixels

    def _time(self, frame: Any) -> float:
        if frame.pts is None:
            return self._seconds + float(self._step) if self._last >= 0 else 0.0
        return max(0.0, float(frame.pts * self._stream.time_base - self._start))

    def _check_end(self, failure: BaseException | None) -> None:
        """Raise what is to be known about how the video ended."""
        after = f"after frame {self._last} ({self._seconds:.3f} s)" if self._last >= 0 else "before its first frame"
        expected = self._declared_seconds()
        if failure is not None:
            raise VideoError(f"{self._name} broke off {after}: {self._reason(failure)}.")
        if self._scheme in LIVE_SCHEMES and expected is None:
            raise VideoError(f"{self._name} broke off {after}: the stream ended.")
        if expected is not None and self._seconds + self._step + _MISSING_SECONDS < expected:
            raise VideoError(f"{self._name} broke off {after}: it should have {float(expected):.3f} s.")
        if self._damaged:
            found = f"{counted(self._damaged, 'frame')} missing or faulty, the first is frame {self._first_damaged}"
            raise VideoError(f"{self._name} is damaged: {found}; the others were read.")
        if self._last < 0:
            raise VideoError(f"{self._name} has no frame.")

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, (self._av.error.ExitError, TimeoutError)):
            return f"no data for {self._timeout:g} s; --timeout (timeout) waits longer"
        return getattr(error, "strerror", None) or first_line(error)


def upright(pixels: np.ndarray, matrix: list[int]) -> np.ndarray:
    """Turn and mirror pixels by quarter turns as a display matrix has it.

    Args:
        pixels: [h, w, 3].
        matrix: Nine numbers by rows: a pixel (x, y) is shown at (m0 x + m3 y, m1 x + m4 y).

    Returns:
        A view [h, w, 3] or [w, h, 3].
    """
    to_x, to_y = (matrix[0], matrix[4]) if abs(matrix[0]) >= abs(matrix[1]) else (matrix[3], matrix[1])
    if abs(matrix[0]) < abs(matrix[1]):
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if to_y < 0 else 1, :: -1 if to_x < 0 else 1]
