"""TorchScript, our files' format: save, load, and keep newer torch quiet about its maintenance."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import torch

from ssdtrt.errors import ArtifactError
from ssdtrt.system.gpu_errors import gpu_errors


@contextlib.contextmanager
def quiet():
    """Hides newer torch's notice that TorchScript is in maintenance."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=category)
        yield


def save(module: torch.jit.ScriptModule, path: str | Path) -> None:
    """`torch.jit.save`, without metadata. Raises OSError: torch's own writer ends the process on a full disk."""
    Path(path).write_bytes(in_memory(module).getbuffer())


def freeze(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module with its weights as constants, which folds BatchNorm into the convolutions."""
    with quiet():
        return torch.jit.freeze(module.eval())


@contextlib.contextmanager
def fusing():
    """Inside the block TorchScript fuses layers with oneDNN on a CPU: a switch of the process, which no file carries.

    A module is fused in its third call with images of a size; each size has its own form.
    """
    with quiet():
        before = torch.jit.onednn_fusion_enabled()
        torch.jit.enable_onednn_fusion(True)
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)


def reload(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module saved and loaded again, in memory: one that a compiler made cannot be part of another until then."""
    with quiet():
        return torch.jit.load(in_memory(module))


def in_memory(module: torch.jit.ScriptModule) -> io.BytesIO:
    """The module's archive as bytes, ready to be read."""
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(module, buffer)
    buffer.seek(0)
    return buffer


def source(path: str | Path) -> str | io.BytesIO:
    """The path as torch takes it, which writes every name in UTF-8, or the file's bytes where it has another name."""
    name = str(path)
    try:
        if name.encode() == os.fsencode(name):
            return name
    except UnicodeEncodeError:
        pass
    return io.BytesIO(Path(path).read_bytes())


def load(path: str | Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """`torch.jit.load` in eval mode. Raises ArtifactError, or GpuError where it is the GPU that fails."""
    try:
        with quiet(), gpu_errors():
            return torch.jit.load(source(path), map_location=device).eval()
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be loaded ({last_line(error)}). Make it again.") from error


def last_line(error: BaseException) -> str:
    """Return the last line of an error of TorchScript's, which puts what happened below its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
