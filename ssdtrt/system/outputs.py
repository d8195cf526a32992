"""Check and write output files, and turn the system's errors into one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ssdtrt.errors import ArtifactError
from ssdtrt.system.files import BusyError, check_writable, replacing


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends, as its only writer (see `replacing`).

    Raises:
        ArtifactError: If another process is writing the same file, or the system refuses.
    """
    try:
        with replacing(path, exclusive=True) as temporary:
            yield temporary
    except BusyError as error:
        raise ArtifactError(f"{path} cannot be written: {error}. Wait for it, or give another path with -o.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_output(path: str | Path, option: str = " with -o") -> Path:
    """Check, before any work is done, that a file can be written at `path`, and return it as a Path.

    Args:
        path: The file to write.
        option: How the user gives another path, for the message.

    Raises:
        ArtifactError: If it cannot be written.
    """
    path = Path(path)
    reason = check_writable(path)
    if reason:
        raise ArtifactError(f"{path} cannot be written: {reason}. Give another path{option}.")
    return path
