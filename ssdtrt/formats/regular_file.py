"""What is checked before a saved file of either format is read, and how a damaged one is refused. Imports no torch."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ssdtrt.errors import ArtifactError

_EXPECTED = "expected a file that ssdtrt export or ssdtrt compile wrote"
_START = 8  # bytes
_SPECIAL_FILES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_start(path: Path) -> bytes:
    """Return the first bytes of a regular file, or of one that a link leads to.

    Anything else is not opened: opening a named pipe would block.

    Raises:
        ArtifactError: If it is not such a file, cannot be read, or is empty.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise ArtifactError(
                f"{path} is {_SPECIAL_FILES.get(stat.S_IFMT(mode), 'not a regular file')}; {_EXPECTED}."
            )
        with open(path, "rb") as file:
            start = file.read(_START)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"{path}: no such file. {_creation_hint(path)}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
        raise ArtifactError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not start:
        raise ArtifactError(f"{path} is empty; {_EXPECTED}.")
    return start


def _creation_hint(path: Path) -> str:
    """Return the advice to run the command that makes a file of this name."""
    if path.suffix == ".onnx":
        more = " --detector" if ".detector" in path.name else ""
        return f"Make it first: ssdtrt export --format onnx{more}"
    if path.suffix == ".plan":
        return "Make it first: ssdtrt compile --format plan"
    commands = {".engine": "ssdtrt compile", ".detector": "ssdtrt compile --detector"}
    matching = [command for part, command in commands.items() if part in path.name]
    return f"Make it first: {matching[0] if matching else 'ssdtrt export'}"


def damaged(path: Path, error: Exception) -> ArtifactError:
    """Return the refusal of a file that could not be read to its end."""
    reason = str(error) or type(error).__name__
    return ArtifactError(f"{path} is truncated, damaged or not one of ssdtrt's files ({reason:.200}). Make it again.")
