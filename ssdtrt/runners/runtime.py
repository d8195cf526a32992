"""Import torch_tensorrt, which TensorRT engines need to be built and to run, or report what is missing for it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch

from ssdtrt import config
from ssdtrt.errors import CompileError, first_line
from ssdtrt.system.versions import installed

_CPU_BACKEND = "For a CPU engine: ssdtrt compile --backend torchscript"


def missing_parts() -> list[str]:
    """Return what this machine lacks for TensorRT engines, and how to install it.

    Does not import torch_tensorrt, which fails without a GPU.
    """
    missing = []
    if not torch.cuda.is_available():
        missing.append(f"a CUDA GPU (torch {torch.__version__} sees none)")
    if importlib.util.find_spec("torch_tensorrt") is None:
        missing.append(f"Torch-TensorRT: {config.HOW_TO_INSTALL}")
    return missing


def why_not() -> str | None:
    """Return a message about what is missing for TensorRT engines, or None if nothing is."""
    if version := installed(config.RTX_DISTRIBUTION):
        return (
            f"{config.RTX_DISTRIBUTION} {version} is installed. It has the import name of Torch-TensorRT, and builds for "
            "TensorRT-RTX, which ssdtrt does not run. Remove both: pip uninstall -y torch-tensorrt "
            f"{config.RTX_DISTRIBUTION}, then {config.HOW_TO_INSTALL}. {_CPU_BACKEND}"
        )
    missing = ", and ".join(missing_parts())
    return f"A TensorRT engine cannot be built or run here; missing: {missing}. {_CPU_BACKEND}" if missing else None


def import_torch_tensorrt() -> ModuleType:
    """Import torch_tensorrt, which also registers the classes that engine files contain.

    Raises:
        CompileError: If it or a GPU is missing, or it does not fit the installed torch.
    """
    reason = why_not()
    if reason:
        raise CompileError(reason)
    try:
        return importlib.import_module("torch_tensorrt")
    except Exception as error:  # A missing library, another ABI, no GPU: the types differ.
        raise CompileError(
            f"Torch-TensorRT is installed but cannot be imported with torch {torch.__version__} ({first_line(error)}). "
            f"Install versions that belong together: {config.HOW_TO_INSTALL}"
        ) from error


def check_front_end(torch_tensorrt: ModuleType) -> None:
    """Check that Torch-TensorRT has the TorchScript front end.

    Raises:
        CompileError: If it does not.
    """
    features = getattr(torch_tensorrt, "ENABLED_FEATURES", None)
    if not getattr(features, "torchscript_frontend", hasattr(torch_tensorrt, "ts")):
        raise CompileError(
            f"Torch-TensorRT {torch_tensorrt.__version__} has no TorchScript front end, which writes the engine file; "
            f"install a build that has it: {config.HOW_TO_INSTALL}"
        )


def lacking_in_tensorrt() -> str | None:
    """Return what the installed TensorRT lacks for networks that are written through its API, or None."""
    try:
        tensorrt = importlib.import_module("tensorrt")
    except Exception as error:  # A missing package or library: the types differ.
        return f"tensorrt cannot be imported ({first_line(error)})"
    if hasattr(getattr(tensorrt, "IBuilderConfig", None), "max_aux_streams"):
        return None
    return f"TensorRT {tensorrt.__version__} has none (8.6 has them)"
