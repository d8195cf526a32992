"""Text that grows by whole pieces, in a file or a stream, and is valid at any moment a run may end: by an error or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from ssdtrt.errors import ArtifactError
from ssdtrt.system.files import BusyError, filename_in_errors, is_special, open_exclusive

_CHUNK = 4096  # bytes handed to a stream's buffer at once; the buffer holds more


class TextOutput:
    """A text file that grows by whole pieces, or a stream such as sys.stdout, which stays open.

    When a run breaks off in the middle of a piece, that piece is cut off a file and completed on a stream. Of pieces that
    are written together, those that are whole stay.

    Args:
        target: A path or a text stream.
        start: The first piece.

    Raises:
        ArtifactError: For a path that cannot be written.
        OSError: For a write that fails.
    """

    def __init__(self, target: str | os.PathLike | TextIO, start: str = ""):
        self.file: BinaryIO | None = None
        self._stream: _StreamOutput | None = None
        self._target = str(target)
        try:
            if not isinstance(target, (str, os.PathLike)):
                self._stream = _StreamOutput(target)
            elif is_special(path := Path(target)):
                self.file = open(path, "wb", buffering=0)
            else:
                self.file = open_exclusive(path)
        except BusyError as error:
            raise ArtifactError(f"{target} cannot be written: {error}. Wait for it.") from error
        except OSError as error:
            raise ArtifactError(f"{target} cannot be written: {error.strerror or error}.") from error
        self._whole = 0  # bytes of the file that are whole pieces, without those that are being written
        self._pieces: list[bytes] = []  # that are being written
        if start:
            try:
                self.write(start)
            except BaseException:
                self.close("", broken=True)
                raise

    def write(self, *texts: str) -> None:
        """Write pieces together, each whole, so that no buffer still holds a part of one."""
        if self._stream is not None:
            self._stream.write(texts)
            return
        assert self.file is not None
        self._pieces = [text.encode() for text in texts]
        rest = memoryview(b"".join(self._pieces))
        size = len(rest)
        with filename_in_errors(self._target):
            while rest:
                rest = rest[self.file.write(rest) :]
        self._whole, self._pieces = self._whole + size, []

    def close(self, end: str, broken: bool) -> None:
        """Write the end, and close a file.

        Args:
            end: The last piece.
            broken: Whether the run failed; a failure while closing is not raised then.
        """
        try:
            if broken and self._stream is not None:
                self._stream.complete()
            if broken and self.file is not None and self.file.seekable():
                self._cut()
            if end:
                self.write(end)
        except OSError:
            if not broken:
                raise
        finally:
            if self.file is not None:
                self.file.close()
            elif self._stream is not None and self._stream.buffer is not None:
                with contextlib.suppress(OSError):  # Its reader may be gone.
                    self._stream.buffer.close()

    def _cut(self) -> None:
        """Cut off the piece that was not written to its end."""
        assert self.file is not None
        reached = self.file.tell()
        for piece in self._pieces:
            if self._whole + len(piece) > reached:
                break
            self._whole += len(piece)
        self.file.truncate(self._whole)
        self.file.seek(self._whole)


class _StreamOutput:
    """A text stream that can complete a piece whose writing was interrupted. It is flushed after pieces that come together."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.buffer: BinaryIO | None = None
        stream.flush()
        with contextlib.suppress(AttributeError, OSError):  # A stream in memory has no file below it.
            self.buffer = open(stream.fileno(), "wb", buffering=2 * _CHUNK, closefd=False)
        self.pending: tuple[list[list[bytes]], deque[int]] = [], deque()

    def write(self, texts: Sequence[str]) -> None:
        if self.buffer is None:
            self.stream.write("".join(texts))
            self.stream.flush()
            return
        pieces = [text.encode() for text in texts]
        self.pending = [[one[at : at + _CHUNK] for at in range(0, len(one), _CHUNK)] for one in pieces], deque()
        self._write_until(len(pieces))

    def complete(self) -> None:
        """Write what is missing of the piece that was begun: Ctrl-C may come while a write waits for its reader."""
        pieces, taken = self.pending
        begun, chunks = 0, 0
        while chunks < len(taken):
            chunks += len(pieces[begun])
            begun += 1
        self._write_until(begun)

    def _write_until(self, count: int) -> None:
        """Write the rest of the first `count` pieces."""
        if self.buffer is None:
            return
        pieces, taken = self.pending
        chunks = [chunk for piece in pieces[:count] for chunk in piece]
        # The buffer takes a chunk whole or, when it raises, not at all. One call in C counts the chunks taken, so that
        # no interrupt comes between a write and its count.
        taken.extend(map(self.buffer.write, chunks[len(taken) :]))
        self.buffer.flush()
