"""Output files: checked before any work is done, and what the system refuses said in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ssdtrt.errors import ArtifactError
from ssdtrt.system.files import BusyError, check_writable, replacing


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends, as the only writer of it (see `replacing`).

    Raises:
        ArtifactError: Where another process writes the same file, or the system refuses.
    """
    try:
        with replacing(path, alone=True) as temporary:
            yield temporary
    except BusyError as error:
        raise ArtifactError(f"{path} cannot be written: {error}. Wait for it, or give another path with -o.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_output(path: str | Path, option: str = " with -o") -> Path:
    """Return the path as a Path, where a file can be written there.

    Args:
        path: The file to write.
        option: How another path is given, for the message.

    Raises:
        ArtifactError: Where it cannot be written, before any work is done.
    """
    path = Path(path)
    reason = check_writable(path)
    if reason:
        raise ArtifactError(f"{path} cannot be written: {reason}. Give another path{option}.")
    return path
