"""Writing a file whole or not at all, by one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Not on Windows.
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replacing(path: str | Path, *, alone: bool = False, clear: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which becomes `path` when the block ends and vanishes when it fails.

    The bytes are on disk before the rename, so a reader sees the old file or the new one. What a writer that was killed
    left behind is cleared away, unless `clear` is False (a look through the folder). Raises OSError where the folder
    cannot be written or `path` is a device or a pipe and, with `alone`, BusyError where another process is writing the
    same path.
    """
    path = Path(path)
    if is_special(path):
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))
    if clear and clear_litter(path) and alone:
        raise BusyError(f"another process is writing {path}")
    prefix = f"{_prefix(path)}{os.getpid()}."
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        _lock(handle)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def open_alone(path: str | Path) -> BinaryIO:
    """An empty file to write into as it grows, what was there gone. BusyError where another process has it open so."""
    file = open(path, "ab", buffering=0)
    if not _lock(file.fileno()):
        file.close()
        raise BusyError(f"another process is writing {path}")
    file.truncate(0)
    return file


class BusyError(OSError):
    """Another process is writing the same file."""


def clear_litter(path: Path) -> int:
    """Removes the temporary files of `path` whose writers are gone, and returns how many are still being written."""
    busy = 0
    for temporary in path.parent.glob(f"{glob.escape(_prefix(path))}*.tmp"):
        writer = temporary.name[len(_prefix(path)) :].split(".")[0]
        with contextlib.suppress(OSError), open(temporary, "rb") as file:
            if not _lock(file.fileno()) or (writer.isdigit() and _alive(int(writer))):
                busy += 1
            else:
                temporary.unlink()
    return busy


def _prefix(path: Path) -> str:
    """What the names of its temporary files begin with, and those of no other file."""
    return f".{path.name[:30]}-{zlib.crc32(os.fsencode(path.name)):08x}."


def _lock(file: int) -> bool:
    """Takes the lock of an open file, which the system gives back when its process ends; False where another has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
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
    """Replaces a text file atomically, UTF-8; into a device or a pipe it just writes."""
    if is_special(path):
        with open(path, "wb", buffering=0) as file, naming(path):
            file.write(text.encode())
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Names the file in an OSError of a write, which does not know it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def is_special(path: str | Path) -> bool:
    """Whether a device, a pipe or a socket is there, which is not to be replaced by a file."""
    path = Path(path)
    return path.exists() and not path.is_file() and not path.is_dir()


def check_writable(path: str | Path) -> str | None:
    """Why a file cannot be written at `path`, in a few words; None when it can. Creates nothing."""
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
