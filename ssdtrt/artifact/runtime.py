"""The one door to torch_tensorrt: import it, name what is missing, and call its TorchScript front end."""

from __future__ import annotations

import importlib
import importlib.util
import inspect

import torch

from ssdtrt import config
from ssdtrt.engine.modules import BatchRange
from ssdtrt.errors import CompileError, first_line

CPU_BACKEND = "For a CPU engine: ssdtrt compile --backend torchscript"


def why_not() -> str | None:
    """What this machine lacks for a TensorRT engine and how to get it, in one message; None when nothing is seen to lack.

    Looks without importing torch_tensorrt, which fails where there is no GPU.
    """
    missing = []
    if not torch.cuda.is_available():
        missing.append(f"a CUDA GPU (torch {torch.__version__} sees none)")
    if importlib.util.find_spec("torch_tensorrt") is None:
        missing.append(f"Torch-TensorRT: {config.HOW_TO_INSTALL}")
    if not missing:
        return None
    return f"A TensorRT engine cannot be built or run here; missing: {', and '.join(missing)}. {CPU_BACKEND}"


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


def timing_iterations(batch_size: int) -> int:
    """How often TensorRT times each kernel for a batch of this size: small ones take microseconds."""
    return min(config.MOST_TIMED, max(1, config.TIMED_IMAGES // batch_size))


def compile_arguments(precision: str, batch: BatchRange, workspace_mib: int, device: torch.device) -> dict:
    """The keyword arguments of `torch_tensorrt.compile`; `inputs` holds those of `torch_tensorrt.Input`, one dict each.

    Images are float32 in every precision, and the module casts them: from TensorRT 11 on `enabled_precisions` is ignored.
    """
    shapes = [(size, 3, config.IMAGE_SIZE, config.IMAGE_SIZE) for size in (batch.min, batch.opt, batch.max)]
    if batch.static:
        image = {"shape": shapes[0], "dtype": torch.float}
    else:
        image = {"min_shape": shapes[0], "opt_shape": shapes[1], "max_shape": shapes[2], "dtype": torch.float}
    return {
        "ir": "ts",
        "inputs": [image],
        "enabled_precisions": {torch.half if precision == "fp16" else torch.float},
        "disable_tf32": True,
        "workspace_size": workspace_mib << 20,
        "num_avg_timing_iters": timing_iterations(batch.opt),
        "require_full_compilation": True,
        "truncate_long_and_double": True,
        "device": device,
    }


def build(module: torch.jit.ScriptModule, precision: str, batch: BatchRange, workspace_mib: int, device: torch.device):
    """The module as one TensorRT engine in a TorchScript module. Holds the interpreter lock for minutes.

    The module takes and gives float32, and what it computes in is its own: FP16 is asked for where it casts to it.
    Raises CompileError, also with what TensorRT said.
    """
    torch_tensorrt = import_torch_tensorrt()
    check_front_end(torch_tensorrt)
    arguments = compile_arguments(precision, batch, workspace_mib, device)
    known = inspect.signature(torch_tensorrt.ts.compile).parameters
    unknown = set(arguments) - set(known) - {"ir"}
    if unknown:
        raise CompileError(
            f"Torch-TensorRT {torch_tensorrt.__version__} does not take {', '.join(sorted(unknown))}; "
            "ssdtrt knows the versions 2.2.0 to 2.14.0."
        )
    arguments["inputs"] = [torch_tensorrt.Input(**image) for image in arguments["inputs"]]
    try:
        return torch_tensorrt.compile(module.to(device).eval(), **arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CompileError(f"TensorRT could not build the engine ({first_line(error)}).") from error


def embed(plan: bytes, images: str, output: str, device: torch.device) -> torch.jit.ScriptModule:
    """An engine that TensorRT itself wrote, with one input and one output of these names, in a TorchScript module.

    Raises CompileError.
    """
    torch_tensorrt = import_torch_tensorrt()
    target = torch_tensorrt.Device(str(device))
    try:
        return torch_tensorrt.ts.embed_engine_in_new_module(
            plan, input_binding_names=[images], output_binding_names=[output], device=target
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise CompileError(f"Torch-TensorRT could not take the engine ({first_line(error)}).") from error
