"""The one import of torch_tensorrt, which engines need to run and back ends to build, and what is missing for it."""

from __future__ import annotations

import importlib
import importlib.util

import torch

from ssdtrt import config
from ssdtrt.errors import CompileError, first_line

_CPU_BACKEND = "For a CPU engine: ssdtrt compile --backend torchscript"


def missing_parts() -> list[str]:
    """Return what this machine lacks for a TensorRT engine, and how to get it; an empty list where nothing is missing.

    Looks without importing torch_tensorrt, which fails where there is no GPU.
    """
    missing = []
    if not torch.cuda.is_available():
        missing.append(f"a CUDA GPU (torch {torch.__version__} sees none)")
    if importlib.util.find_spec("torch_tensorrt") is None:
        missing.append(f"Torch-TensorRT: {config.HOW_TO_INSTALL}")
    return missing


def why_not() -> str | None:
    """Return what is missing for a TensorRT engine, and the way without one, in one message; None where nothing is."""
    missing = ", and ".join(missing_parts())
    return f"A TensorRT engine cannot be built or run here; missing: {missing}. {_CPU_BACKEND}" if missing else None


def import_torch_tensorrt():
    """The torch_tensorrt package, whose import also registers the classes that engine files need. Raises CompileError."""
    reason = why_not()
    if reason:
        raise CompileError(reason)
    try:
        return importlib.import_module("torch_tensorrt")
    except Exception as error:  # A missing library, another ABI, no GPU: each has another type.
        raise CompileError(
            f"Torch-TensorRT is installed but cannot be imported with torch {torch.__version__} ({first_line(error)}). "
            f"Install versions that belong together: {config.HOW_TO_INSTALL}"
        ) from error


def check_front_end(torch_tensorrt) -> None:
    """Raises CompileError, by name, for a Torch-TensorRT without the TorchScript front end."""
    features = getattr(torch_tensorrt, "ENABLED_FEATURES", None)
    if not getattr(features, "torchscript_frontend", hasattr(torch_tensorrt, "ts")):
        raise CompileError(
            f"Torch-TensorRT {torch_tensorrt.__version__} has no TorchScript front end, which writes the engine file; "
            f"install a build that has it: {config.HOW_TO_INSTALL}"
        )
