"""Import the libraries that TensorRT engines need to be built and to run, or report what is missing for them."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ssdtrt import config
from ssdtrt.errors import CompileError, first_line
from ssdtrt.system.versions import installed, pip_install_tensorrt


def missing_parts(plan: bool = False) -> list[str]:
    """Return what this machine lacks for TensorRT engines, and how to install it.

    Does not import torch_tensorrt, which fails without a GPU.

    Args:
        plan: Whether the engines are plans, which need TensorRT alone.
    """
    missing = []
    if not torch.cuda.is_available():
        missing.append(f"a CUDA GPU (torch {torch.__version__} sees none)")
    module, name = ("tensorrt", "TensorRT") if plan else ("torch_tensorrt", "Torch-TensorRT")
    if importlib.util.find_spec(module) is None:
        missing.append(f"{name}: {pip_install_tensorrt()}")
    return missing


def cpu_command(module: Path, detector: bool, out: Path | None = None) -> str:
    """Return the command that builds a CPU engine from a module; `out` is left out where it is a plan or the default."""
    words = ["ssdtrt", "compile", *([str(module)] if str(module) != config.MODULE_FILE else [])]
    words += ["--backend", "torchscript", *(["--detector"] if detector else [])]
    if out is not None and out.suffix != ".plan" and str(out) not in (config.ENGINE_FILE, config.DETECTOR_FILE):
        words += ["-o", str(out)]
    return shlex.join(words)


def why_not(plan: bool = False, instead: str = "ssdtrt compile --backend torchscript") -> str | None:
    """Return a message about what is missing for TensorRT engines, or None if nothing is.

    Args:
        plan: Whether the engines are plans, which need TensorRT alone.
        instead: The command that builds a CPU engine, for the message.
    """
    instead = f"For a CPU engine: {instead}"
    if not plan and (version := installed(config.RTX_DISTRIBUTION)):
        return (
            f"{config.RTX_DISTRIBUTION} {version} is installed. It has the import name of Torch-TensorRT, and builds for "
            "TensorRT-RTX, which ssdtrt does not run. Remove both: pip uninstall -y torch-tensorrt "
            f"{config.RTX_DISTRIBUTION}, then {pip_install_tensorrt()}. {instead}"
        )
    missing = ", and ".join(missing_parts(plan))
    return f"A TensorRT engine cannot be built or run here; missing: {missing}. {instead}" if missing else None


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
            f"Install versions that belong together: {pip_install_tensorrt()}"
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
            f"build a plan, which does without (--format plan), or install a build that has it: {pip_install_tensorrt()}"
        )


def import_tensorrt() -> ModuleType:
    """Import tensorrt, a dependency of Torch-TensorRT.

    Raises:
        CompileError: If it is missing or cannot be imported.
    """
    try:
        return importlib.import_module("tensorrt")
    except Exception as error:  # A missing package or library: the types differ.
        raise CompileError(f"TensorRT cannot be imported ({first_line(error)}). {pip_install_tensorrt()}") from error


def make_logger(tensorrt: ModuleType) -> Any:
    """Return a TensorRT logger that prints warnings and errors to stderr and collects the errors in `errors`."""

    class Logger(tensorrt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.ERROR:
                self.errors.append(message)
            if severity <= tensorrt.ILogger.WARNING:
                print(f"TensorRT: {message}", file=sys.stderr)

    return Logger()


def lacking_in_tensorrt() -> str | None:
    """Return what the installed TensorRT lacks for networks that are written through its API, or None."""
    try:
        tensorrt = import_tensorrt()
    except CompileError as error:
        return str(error)
    if hasattr(getattr(tensorrt, "IBuilderConfig", None), "max_aux_streams"):
        return None
    return f"TensorRT {tensorrt.__version__} has none (8.6 has them)"
