"""The back end that builds the network through the API of any TensorRT from 8.6 on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.artifact.tensors import INPUT_NAME, OUTPUT_NAME
from ssdtrt.engine.build import BuildJob, BuiltNetwork
from ssdtrt.engine.cache import read_timing_cache, write_timing_cache
from ssdtrt.engine.modules import EngineModule
from ssdtrt.engine.network_writer import NetworkWriter, image_shape
from ssdtrt.engine.torch_tensorrt_backend import timing_iterations
from ssdtrt.errors import BuilderError, CompileError, first_line
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300
from ssdtrt.rewriting.quantized import quantize_as
from ssdtrt.runners import runtime, torchscript
from ssdtrt.runners.baseline import eager_model


def build(job: BuildJob) -> BuiltNetwork:
    """Build the network of a job for the batch sizes of its request.

    For a plan neither Torch-TensorRT nor its TorchScript front end is needed.

    Raises:
        CompileError: If the build fails; the message has TensorRT's first error.
    """
    request, device = job.request, torch.device(job.device)
    batch = request.batch_range
    assert batch is not None
    if request.format != "plan":
        runtime.check_front_end(runtime.import_torch_tensorrt())
    torch.cuda.set_device(device)
    fused = FusedSSD300(eager_model(job.module, device), request.computes_in.dtype, job.merged_projections)
    if request.quantization is not None:
        fused = quantize_as(fused, request.quantization)
    limits = BuildLimits(request.streams or 0, request.workspace_mib)
    plan = build_plan(fused, batch, limits, Path(job.timing_cache) if job.timing_cache else None)
    if request.format == "plan":
        return BuiltNetwork(None, plan)
    network = FusedNetwork(torchscript.reload(embed(plan, device)))
    return BuiltNetwork(EngineModule(network, torch.float32, batch, channels_last=False), plan)


def build_plan(fused: FusedSSD300, batch: BatchRange, limits: BuildLimits, timing_cache: Path | None = None) -> bytes:
    """Build a fused network as one serialized TensorRT engine on the current GPU.

    The build holds the interpreter lock for minutes.

    Args:
        fused: The network; the engine computes in the dtype of its weights.
        batch: The batch sizes that the engine takes.
        limits: What TensorRT may use.
        timing_cache: The file of the timing cache, which is read and written; None for none.

    Returns:
        The engine: images [N, 3, 300, 300] -> [N, 4 + C, A], both float32.

    Raises:
        CompileError: If TensorRT is missing, or lacks a part of its API.
        BuilderError: If the build fails; the message has TensorRT's first error.
    """
    tensorrt = runtime.import_tensorrt()
    plan, timings = serialize(tensorrt, fused, batch, limits, read_timing_cache(timing_cache))
    write_timing_cache(timing_cache, timings)
    return plan


def embed(plan: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """Embed a serialized TensorRT engine in a TorchScript module: images [N, 3, 300, 300] -> [N, 4 + C, A].

    Raises:
        CompileError: If Torch-TensorRT is missing, or refuses the engine.
    """
    torch_tensorrt = runtime.import_torch_tensorrt()
    try:
        return torch_tensorrt.ts.embed_engine_in_new_module(
            plan,
            input_binding_names=[INPUT_NAME],
            output_binding_names=[OUTPUT_NAME],
            device=torch_tensorrt.Device(str(device)),
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise CompileError(f"Torch-TensorRT could not embed the engine ({first_line(error)}).") from error


@dataclass(frozen=True)
class BuildLimits:
    """What TensorRT may use.

    Attributes:
        streams: How many auxiliary streams.
        workspace_mib: How much memory while it chooses kernels, in MiB.
    """

    streams: int = 0
    workspace_mib: int = config.WORKSPACE_MIB


def serialize(
    tensorrt: ModuleType, fused: FusedSSD300, batch: BatchRange, limits: BuildLimits, timing_cache: bytes = b""
) -> tuple[bytes, bytes]:
    """Build a fused network as one serialized TensorRT engine.

    Args:
        tensorrt: The module `tensorrt`, or another with its API, such as `tensorrt_rtx`.
        fused: The network; the engine computes in the dtype of its weights, its quantized layers in INT8.
        batch: The batch sizes that the engine takes.
        limits: What TensorRT may use.
        timing_cache: The content of the timing cache.

    Returns:
        The serialized engine and the new content of the timing cache.

    Raises:
        CompileError: If TensorRT lacks a part of its API.
        BuilderError: If the build fails; the message has TensorRT's first error.
    """
    _check_api(tensorrt, fused, limits)
    logger = runtime.make_logger(tensorrt)
    try:
        return _serialize(tensorrt, logger, fused, batch, limits, timing_cache)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:  # Its functions return None on failure.
        reason = next(filter(None, logger.errors), "").split("\n")[0] or first_line(error)
        raise BuilderError(f"TensorRT could not build the engine ({reason}).") from error


def _check_api(tensorrt: ModuleType, fused: FusedSSD300, limits: BuildLimits) -> None:
    """Raise CompileError if TensorRT lacks a part of the API that this build uses."""
    required = [("IBuilderConfig.max_aux_streams", "engines with auxiliary streams need")] if limits.streams else []
    for flag in _flags(fused, tensorrt):
        required.append((f"BuilderFlag.{flag}", f"engines in {flag} need"))
    for name, why in required:
        owner, attribute = name.split(".")
        if not hasattr(getattr(tensorrt, owner, None), attribute):
            raise CompileError(f"TensorRT {tensorrt.__version__} has no {name}, which {why} (TensorRT 8.6 has it).")


def _strongly_typed(tensorrt: ModuleType) -> bool:
    """Return whether layers compute in the types that the network has; else a flag allows FP16."""
    flags = tensorrt.NetworkDefinitionCreationFlag
    return hasattr(flags, "STRONGLY_TYPED") or not hasattr(flags, "EXPLICIT_BATCH")


def _flags(fused: FusedSSD300, tensorrt: ModuleType) -> tuple[str, ...]:
    """Return the builder's flags for types below FP32, which a strongly typed network has no need of.

    In an INT8 network TensorRT may run in FP16 what is not quantized.
    """
    if _strongly_typed(tensorrt):
        return ()
    return ("INT8", "FP16") if fused.quantized else ("FP16",) if fused.compute_dtype == torch.float16 else ()


def _network_flags(tensorrt: ModuleType) -> int:
    """Return the flags of a network with an explicit batch size, strongly typed where TensorRT can do that.

    TensorRT 8.6 has a flag for the batch size and 10 one for the types; 11 needs neither.
    """
    flags = tensorrt.NetworkDefinitionCreationFlag
    for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH"):
        if hasattr(flags, name):
            return 1 << int(getattr(flags, name))
    return 0


def _serialize(
    tensorrt: ModuleType,
    logger: Any,
    fused: FusedSSD300,
    batch: BatchRange,
    limits: BuildLimits,
    timing_cache: bytes,
) -> tuple[bytes, bytes]:
    """Return the serialized engine and the new timing cache; raise what TensorRT raises, or RuntimeError."""
    builder = tensorrt.Builder(logger)
    network = builder.create_network(_network_flags(tensorrt))
    # The writer must stay alive, with the weights, until the engine is built.
    writer = NetworkWriter(tensorrt, network, _strongly_typed(tensorrt))
    writer.write(fused, batch)
    settings = builder.create_builder_config()
    for flag in _flags(fused, tensorrt):
        settings.set_flag(getattr(tensorrt.BuilderFlag, flag))
    settings.clear_flag(tensorrt.BuilderFlag.TF32)
    settings.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, limits.workspace_mib << 20)
    settings.avg_timing_iterations = timing_iterations(batch.opt)
    settings.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # The inspector then knows types.
    sharing = getattr(tensorrt.PreviewFeature, "PROFILE_SHARING_0806", None)
    if sharing is not None:  # Newer versions always let several execution contexts use one optimization profile.
        settings.set_preview_feature(sharing, True)
    if limits.streams:
        settings.max_aux_streams = limits.streams
    if not batch.static:
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT_NAME, *(image_shape(size) for size in (batch.min, batch.opt, batch.max)))
        settings.add_optimization_profile(profile)
    cache = settings.create_timing_cache(timing_cache)
    if cache is None or not settings.set_timing_cache(cache, False):  # One of another GPU or version.
        cache = settings.create_timing_cache(b"")
        settings.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise RuntimeError("no reason reported")
    return bytes(plan), bytes(cache.serialize())
