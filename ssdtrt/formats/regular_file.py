"""What is checked before a saved file of either format is read, and how a damaged one is refused. Imports no torch."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.system.versions import may_have_tensorrt, other_backend

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
    """Return the advice to run the commands that make a file of this name on this machine."""
    where, words, name = "", ["export"], config.MODULE_FILE
    if path.suffix == ".onnx":
        detector = ".detector" in path.name
        words += ["--format", "onnx", *(["--detector"] if detector else [])]
        name = config.ONNX_DETECTOR_FILE if detector else config.ONNX_FILE
    elif path.suffix == ".plan":
        words, name = ["compile", "--format", "plan"], config.PLAN_FILE
        where = "" if may_have_tensorrt("tensorrt") else " on a machine with a GPU and TensorRT"
    elif ".engine" in path.name or ".detector" in path.name:
        detector = ".engine" not in path.name
        words = ["compile", *other_backend(), *(["--detector"] if detector else [])]
        name = config.DETECTOR_FILE if detector else config.ENGINE_FILE
    if str(path) != name:
        words += ["-o", str(path)]
    needs_module = words[0] == "compile" and not os.path.exists(config.MODULE_FILE)
    return f"Make it first{where}: {'ssdtrt export && ' if needs_module else ''}{shlex.join(['ssdtrt', *words])}"


def damaged(path: Path, error: Exception) -> ArtifactError:
    """Return the refusal of a file that could not be read to its end."""
    reason = str(error) or type(error).__name__
    return ArtifactError(f"{path} is truncated, damaged or not one of ssdtrt's files ({reason:.200}). Make it again.")
