"""Frames of a video decoded ahead by a thread, with a bound on the memory that they take."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import SsdtrtError, VideoError
from ssdtrt.video.decoder import Decoder, Frame, VideoInfo
from ssdtrt.video.sources import scheme_of

_POLL_SECONDS = 0.1  # after which a thread that waits looks whether it is still wanted


class VideoReader:
    """Opens a video and decodes it in a thread. A context manager.

    Leaving the block does not wait for an address that gives no data; the thread ends by its time-out.

    Args:
        source: A file or an address.
        every: Which frames: 0, `every`, 2 * `every` and so on.
        timeout: Seconds without data after which an address fails.

    Attributes:
        live: Whether it is an address, whose frames are used as they come.
        failure: Why the video ended before its end, or what is amiss with it; None before the end, and for a whole one.

    Raises:
        SsdtrtError: For settings out of their range.
    """

    def __init__(self, source: str | Path, every: int = 1, timeout: float = config.FETCH_SECONDS):
        if every < 1 or not timeout > 0:
            raise SsdtrtError(f"Expected every >= 1 and timeout > 0; found {every} and {timeout:g}.")
        self.source, self.live = source, bool(scheme_of(str(source)))
        self.failure: VideoError | None = None
        self._every, self._timeout = every, timeout
        self._queue: queue.Queue[VideoInfo | Frame | None] = queue.Queue()
        self._unwanted, self._ended = threading.Event(), False
        self._crash: BaseException | None = None
        self._info: VideoInfo | None = None
        self._thread = threading.Thread(target=self._work, name="ssdtrt-video", daemon=True)

    def __enter__(self) -> VideoReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted.set()
        self._thread.join(_POLL_SECONDS if self.live else None)

    @property
    def info(self) -> VideoInfo:
        """What the video says about itself; waits until it is open.

        Raises:
            VideoError: Where it cannot be opened.
        """
        if self._info is None:
            found = self._get()
            if not isinstance(found, VideoInfo):
                raise self.failure or VideoError(f"{self.source} was closed.")
            self._info = found
        return self._info

    def take(self) -> Frame | None:
        """Return the next frame, when it is there; None after the last.

        Raises:
            VideoError: Where the video cannot be opened.
        """
        _ = self.info
        frame = self._get()
        assert not isinstance(frame, VideoInfo)
        return frame

    def waiting(self, limit: int) -> list[Frame]:
        """Return the frames that are there already, at most `limit`."""
        frames: list[Frame] = []
        while len(frames) < limit and not self._queue.empty() and (frame := self.take()) is not None:
            frames.append(frame)
        return frames

    def _get(self) -> VideoInfo | Frame | None:
        while not self._ended:
            with contextlib.suppress(queue.Empty):
                found = self._queue.get(timeout=_POLL_SECONDS)  # Not for ever: Ctrl-C would wait on Windows.
                self._ended = found is None
                if self._crash is not None and self._ended:
                    raise self._crash
                return found
        return None

    def _put(self, item: VideoInfo | Frame | None) -> bool:
        """Whether the item is still wanted; waits while too many are in the queue."""
        while not self._unwanted.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def _work(self) -> None:
        try:
            with Decoder(self.source, self._timeout) as decoder:
                self._put(decoder.info)
                self._queue.maxsize = decoder.info.frames_in_memory
                for frame in decoder.frames(self._every):
                    if not self._put(frame):
                        return
        except VideoError as error:
            self.failure = error
        except BaseException as error:  # It is raised where frames are taken.
            self._crash = error
        finally:
            self._put(None)
