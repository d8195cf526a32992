"""Measure how long each layer of a TensorRT engine takes."""

from __future__ import annotations

import statistics
from pathlib import Path

from ssdtrt import config
from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, read_metadata
from ssdtrt.benchmarking.rounds import INPUT_SETS
from ssdtrt.errors import ArtifactError
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.reporting.records import LayerTime, ProfileReport
from ssdtrt.runners.engine_layers import layers_of, time_layers
from ssdtrt.runners.runner import load_engine
from ssdtrt.runners.tensorrt_engine import load_plan, plan_in_archive
from ssdtrt.runners.timing import time_calls
from ssdtrt.system.gpu_errors import gpu_errors
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.versions import installed_versions, this_machine


def profile_engine(
    path: str | Path = config.ENGINE_FILE,
    *,
    batch_size: int | None = None,
    device: str | None = None,
    sha256: str | None = None,
    calls: int = config.PROFILE_CALLS,
    progress: Progress = silent,
) -> ProfileReport:
    """Time each layer of a TensorRT engine on the GPU, with TensorRT's profiler.

    Args:
        path: An engine, a detector (of which the engine is profiled) or a plan, built through TensorRT's own API.
        batch_size: The number of images in a call; by default the one that the engine is optimized for.
        device: The GPU, `cuda` or `cuda:N`.
        sha256: The SHA-256 that the file must have.
        calls: How many calls are timed, at least 1.
        progress: Called with a line of text for each step.

    Raises:
        ArtifactError: If the file is damaged, no such engine, built for another machine, or for other batch sizes.
        CompileError: If a GPU or TensorRT is missing.
        GpuError: If the GPU fails or has no memory left.

    Example:
        >>> from ssdtrt import profile_engine
        >>> report = profile_engine("ssd300.engine.ts")
        >>> report.layers[0].layer.dtype, report.sum_ms > report.call_ms
        ('fp16', True)
    """
    path = Path(path)
    plan = _read_plan(path, read_metadata(path, ("engine", "detector")))
    runner = load_engine(path, device, sha256=sha256, reuse_outputs=True)
    batch = runner.batch
    assert batch is not None
    size = batch_size or batch.opt
    progress("timing whole calls")
    inputs = [synthetic_images(size, seed=seed).to(runner.device) for seed in range(INPUT_SETS)]
    with gpu_errors():
        for images in inputs:
            runner(images)
        call_ms = statistics.median(time_calls(runner, inputs, calls))
        network = load_plan(plan, runner.device, batch.min)
        times = time_layers(network, inputs[0], calls, config.WARMUP, progress)
        known = {layer.name: layer for layer in layers_of(network.engine)}
    total = sum(times.values())
    rows = [
        LayerTime(known.get(name, EngineLayer(name, "unknown")), milliseconds, milliseconds / total if total else 0.0)
        for name, milliseconds in times.items()
    ]
    rows.sort(key=lambda row: -row.median_ms)
    return ProfileReport(
        str(path), size, calls, installed_versions(), this_machine(runner.device), total, call_ms, tuple(rows)
    )


def _read_plan(path: Path, metadata: Metadata) -> bytes:
    """Return the serialized engine of a checked file; raise ArtifactError if it has none that is known."""
    if not isinstance(metadata, EngineMetadata) or not metadata.request.capabilities.on_gpu:
        raise ArtifactError(f"{path} is no TensorRT engine; expected one that ssdtrt compile built on a GPU.")
    if metadata.format == "plan":
        return path.read_bytes()
    plan = plan_in_archive(path)
    if plan is None:
        raise ArtifactError(
            f"{path} holds its engine in a way that is not known here; expected one that a supported Torch-TensorRT "
            "wrote. Profile a plan instead: ssdtrt compile --format plan"
        )
    return plan
