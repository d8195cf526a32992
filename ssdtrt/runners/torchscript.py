"""Save and load TorchScript, the format of the saved files."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from ssdtrt.errors import ArtifactError
from ssdtrt.system.gpu_errors import gpu_errors

_lock = threading.Lock()
_fusing = 0  # threads
_before = False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress newer torch's warning that TorchScript is deprecated inside the block."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=category)
        yield


def save(module: torch.jit.ScriptModule, path: str | Path) -> None:
    """Save a module, without metadata.

    Python writes the file, because torch's own writer aborts the process when the disk is full.

    Raises:
        OSError: If the file cannot be written.
    """
    Path(path).write_bytes(_to_buffer(module).getbuffer())


def freeze(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Return the module with its weights as constants and BatchNorm folded into the convolutions."""
    with quiet():
        return torch.jit.freeze(module.eval())


@contextlib.contextmanager
def fusing() -> Iterator[None]:
    """Enable TorchScript's oneDNN fusion of CPU layers inside the block, a setting of the process that no file holds.

    TorchScript fuses a module in its third call with inputs of a shape, and does so for each shape. Threads that are in such
    blocks at the same time share one change of the setting, which the last one out undoes.
    """
    global _fusing, _before
    with _lock, quiet():
        if not _fusing:
            _before = torch.jit.onednn_fusion_enabled()
            torch.jit.enable_onednn_fusion(True)
        _fusing += 1
    try:
        yield
    finally:
        with _lock:
            _fusing -= 1
            if not _fusing:
                torch.jit.enable_onednn_fusion(_before)


def reload(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Save and load a module in memory: a compiled one cannot become part of another module before that."""
    with quiet():
        return torch.jit.load(_to_buffer(module))


def _to_buffer(module: torch.jit.ScriptModule) -> io.BytesIO:
    """Return the module's archive in a buffer, ready to be read."""
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(module, buffer)
    buffer.seek(0)
    return buffer


def _loadable(path: str | Path) -> str | io.BytesIO:
    """Return the path if torch can open it, or else the file's content: torch encodes every path in UTF-8."""
    name = str(path)
    try:
        if name.encode() == os.fsencode(name):
            return name
    except UnicodeEncodeError:
        pass
    return io.BytesIO(Path(path).read_bytes())


def load(path: str | Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """Load a module in eval mode.

    Raises:
        ArtifactError: If TorchScript cannot load the file.
        GpuError: If the GPU fails or has no memory left.
    """
    try:
        with quiet(), gpu_errors():
            return torch.jit.load(_loadable(path), map_location=device).eval()
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be loaded ({last_line(error)}). Make it again.") from error


def last_line(error: BaseException) -> str:
    """Return the last line of a TorchScript error, which holds the message below TorchScript's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
