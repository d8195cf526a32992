"""The back end that builds the network through Torch-TensorRT's TorchScript front end."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine.build import BuildJob, BuiltNetwork
from ssdtrt.engine.modules import EngineModule
from ssdtrt.errors import BuilderError, CompileError, first_line
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300, trace
from ssdtrt.runners import torchscript
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.runtime import check_front_end, import_torch_tensorrt


def build(job: BuildJob) -> BuiltNetwork:
    """Build the network of a job for the batch sizes of its request.

    Raises:
        CompileError: If the build fails; the message has TensorRT's first line.
    """
    request, device = job.request, torch.device(job.device)
    batch = request.batch_range
    assert batch is not None
    torch.cuda.set_device(device)
    fused = FusedSSD300(eager_model(job.module, device), request.computes_in.dtype, job.merged_projections)
    built = compile_module(trace(fused, device), request.precision, batch, request.workspace_mib, device)
    network = FusedNetwork(torchscript.reload(built))
    return BuiltNetwork(EngineModule(network, torch.float32, batch, channels_last=False))


def compile_module(
    module: torch.jit.ScriptModule, precision: str, batch: BatchRange, workspace_mib: int, device: torch.device
) -> torch.jit.ScriptModule:
    """Compile a module to one TensorRT engine in a TorchScript module.

    The build holds the interpreter lock for minutes.

    Args:
        module: The fused network. It takes and returns float32, and casts to the dtype that it computes in.
        precision: `fp16` or `fp32`; `fp16` lets TensorRT use the FP16 that the module casts to.
        batch: The batch sizes that the engine takes.
        workspace_mib: The memory that TensorRT may use while it chooses kernels, in MiB.
        device: The GPU to build on.

    Raises:
        CompileError: If the build fails; the message has TensorRT's first line.
    """
    torch_tensorrt = import_torch_tensorrt()
    check_front_end(torch_tensorrt)
    arguments = _compile_arguments(precision, batch, workspace_mib, device)
    accepted = inspect.signature(torch_tensorrt.ts.compile).parameters
    unknown = set(arguments) - set(accepted) - {"ir"}
    if unknown:
        oldest, newest = (".".join(map(str, version)) for version in config.TORCH_TENSORRT_VERSIONS)
        raise CompileError(
            f"Torch-TensorRT {torch_tensorrt.__version__} does not accept {', '.join(sorted(unknown))}; "
            f"ssdtrt supports the versions {oldest} to {newest}."
        )
    arguments["inputs"] = [torch_tensorrt.Input(**image) for image in arguments["inputs"]]
    arguments["device"] = torch_tensorrt.Device(str(device))  # Some versions do not take torch's own.
    try:
        return torch_tensorrt.compile(module.to(device).eval(), **arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BuilderError(f"TensorRT could not build the engine ({first_line(error)}).") from error


def _compile_arguments(precision: str, batch: BatchRange, workspace_mib: int, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `torch_tensorrt.compile`; `inputs` holds a dict of those of `torch_tensorrt.Input`.

    Images are float32 in every precision, and the module casts them, because TensorRT 11 ignores `enabled_precisions`.
    """
    shapes = [(size, 3, config.IMAGE_SIZE, config.IMAGE_SIZE) for size in (batch.min, batch.opt, batch.max)]
    image: dict[str, Any] = {"dtype": torch.float}
    if batch.static:
        image["shape"] = shapes[0]
    else:
        image.update(min_shape=shapes[0], opt_shape=shapes[1], max_shape=shapes[2])
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


def timing_iterations(batch_size: int) -> int:
    """Return how often TensorRT times each kernel: more often for small batches, whose kernels take microseconds."""
    return min(config.MAX_TIMING_ITERATIONS, max(1, config.TIMING_IMAGES // batch_size))
