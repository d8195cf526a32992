"""Write a file completely or not at all, with one writer at a time; read texts and lists in any encoding."""

from __future__ import annotations

import codecs
import contextlib
import errno
import glob
import os
import secrets
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ssdtrt.errors import ImageError

try:
    import fcntl
except ImportError:  # Not on Windows.
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 16  # bytes of a list
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")  # JPEG, PNG, GIF, WebP, TIFF
_MARKS = {  # That of UTF-32 begins with UTF-16's.
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextlib.contextmanager
def replacing(path: str | Path, *, exclusive: bool = False, remove_stale: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which becomes `path` when the block ends without an error.

    The content is on disk before the rename, so a reader sees the old file or the new one.

    Args:
        path: The file to write.
        exclusive: Whether to refuse a path that another process is writing.
        remove_stale: Whether to remove the temporary files of writers that were killed, which lists the folder.

    Raises:
        OSError: If the folder cannot be written, or `path` is a device or a pipe.
        BusyError: If `exclusive` and another process is writing the same path.
    """
    path = Path(path)
    if is_special(path):
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))
    if remove_stale and _remove_stale(path) and exclusive:
        raise BusyError(f"another process is writing {path}")
    temporary, handle = _create_temporary(path)
    try:
        permissions = os.fstat(handle).st_mode & 0o777
        temporary.chmod(0o600)  # Nobody else's until it is whole.
        _lock(handle)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(permissions)
        os.replace(temporary, path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def open_exclusive(path: str | Path) -> BinaryIO:
    """Open an empty file for unbuffered writing, discarding what it held.

    Raises:
        BusyError: If another process has opened it in the same way.
    """
    file = open(path, "ab", buffering=0)
    if _lock(file.fileno()) is False:
        file.close()
        raise BusyError(f"another process is writing {path}")
    file.truncate(0)
    return file


class BusyError(OSError):
    """Another process is writing the same file."""


def open_in_use(path: str | Path) -> BinaryIO:
    """Open a file for reading, which `remove_unused` leaves alone until it is closed."""
    file = open(path, "rb")
    if fcntl is not None:
        with contextlib.suppress(OSError):  # Some network file systems have no locks.
            fcntl.flock(file.fileno(), fcntl.LOCK_SH)
    return file


def remove_unused(first: Path, *others: Path) -> None:
    """Remove files that belong together.

    Raises:
        BusyError: If another process writes the first of them, or has opened it with `open_in_use`.
        OSError: If the system refuses.
    """
    if _remove_stale(first):
        raise BusyError(f"another process is writing {first}")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            if _lock(stack.enter_context(_open_to_lock(first)).fileno()) is False:
                raise BusyError(f"another process is reading {first}")
        for path in (first, *others):
            path.unlink(missing_ok=True)


def remove_temporary(temporary: Path) -> bool:
    """Remove the temporary file of a writer that has ended; return False if it is still being written.

    Where the file system has no locks it stays, because its writer may be on another machine.
    """
    writer = temporary.name.split(".")[-3]
    with contextlib.suppress(OSError), _open_to_lock(temporary) as file:
        locked = _lock(file.fileno())
        if locked is False or (writer.isdigit() and _alive(int(writer))):
            return False
        if locked:
            temporary.unlink()
    return True


def _remove_stale(path: Path) -> int:
    """Remove the temporary files of `path` whose writers have ended, and return how many are still being written."""
    temporaries = path.parent.glob(f"{glob.escape(_prefix(path))}*.tmp")
    return sum(not remove_temporary(temporary) for temporary in temporaries)


def _create_temporary(path: Path) -> tuple[Path, int]:
    """Create a file beside `path` and open it, with the permissions that any new one gets.

    They are not computed: the umask can only be read by changing it, for all threads.
    """
    while True:
        temporary = path.parent / f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.tmp"
        with contextlib.suppress(FileExistsError):
            return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _prefix(path: Path) -> str:
    """Return the prefix of the names of this file's temporary files, and of no others."""
    return f".{path.name[:30]}-{zlib.crc32(os.fsencode(path.name)):08x}."


def _open_to_lock(path: Path) -> BinaryIO:
    """Open a file for writing too where that is allowed: NFS locks no other for one process alone."""
    try:
        return open(path, "rb+")
    except PermissionError:
        return open(path, "rb")


def _lock(file: int) -> bool | None:
    """Lock an open file until its process ends.

    Returns:
        False if another process holds the lock; None if the file system has no locks, as some of networks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text: atomically to a file, directly to a device or a pipe."""
    if is_special(path):
        with open(path, "wb", buffering=0) as file, filename_in_errors(path):
            file.write(text.encode())
        return
    with filename_in_errors(path), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def as_list(given: Any) -> list[Any]:
    """Return what was given as a list; one name or path is a list of one, and not of its letters."""
    return [given] if isinstance(given, (str, os.PathLike)) else list(given)


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Decode a text file: UTF-8, or what the byte-order mark at its beginning says, which is no part of the text.

    Args:
        content: The bytes of the file.
        errors: As of `bytes.decode`.

    Raises:
        UnicodeDecodeError: If the content is not in that encoding, unless `errors` is another.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors)


def paths_in_list(stream: BinaryIO) -> Iterator[str]:
    """Yield the paths in a list, as they come: one a line, or each with a NUL behind it.

    Args:
        stream: The list, in UTF-16 where its mark begins it, else in the encoding of the system's file names.

    Raises:
        ImageError: If there is a picture in its place, as of `cat street.jpg | ssdtrt detect ENGINE -`.
    """
    read = getattr(stream, "read1", stream.read)  # What is there, without waiting for more.
    decoder: codecs.IncrementalDecoder | None = None
    separator, rest, chunk = "\n", "", b" "
    while chunk:
        chunk = read(_CHUNK) or b""  # None where a pipe does not wait.
        if decoder is None and len(chunk) == 1:
            chunk += read(1)  # A byte-order mark has two bytes or more.
        if decoder is None and b"\0" in chunk and (chunk.startswith(_PICTURES) or chunk[4:8] == b"ftyp"):
            raise ImageError(
                "stdin begins as a picture does; expected a list of paths. Give the picture's path, not -."
            )
        decoder = decoder or _decoder_of(chunk)
        rest += decoder.decode(chunk, final=not chunk)
        separator = "\0" if "\0" in rest else separator  # No path has one: it is `find -print0`.
        *entries, rest = rest.split(separator)
        for entry in entries if chunk else [*entries, rest]:
            entry = entry.removeprefix("\ufeff")  # A byte-order mark, also that of a list which was put behind another.
            entry = entry if separator == "\0" else entry.rstrip("\r")
            if entry.strip():
                yield entry


def _decoder_of(start: bytes) -> codecs.IncrementalDecoder:
    """A decoder for a list: of UTF-16 where its mark begins the list, else of the system's file names."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return codecs.getincrementaldecoder("utf-16")("replace")
    return codecs.getincrementaldecoder(sys.getfilesystemencoding())("surrogateescape")


@contextlib.contextmanager
def filename_in_errors(path: str | Path) -> Iterator[None]:
    """Add the file's name to an OSError from a write, which does not have it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def is_special(path: str | Path) -> bool:
    """Return whether the path is a device, a pipe or a socket, which must not be replaced by a file."""
    path = Path(path)
    return path.exists() and not path.is_file() and not path.is_dir()


def check_writable(path: str | Path) -> str | None:
    """Return why a file cannot be written at `path`, or None if it can. Creates nothing."""
    path = Path(path)
    if path.is_dir():
        return "it is a directory"
    if is_special(path):
        return "it is a device or a pipe"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"the directory {path.parent} is not writable"
    return None
