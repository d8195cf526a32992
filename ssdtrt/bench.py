"""Measuring runners against each other: one process, the same images, warm-up, then interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config, machine, parity
from ssdtrt.engine import BatchRange
from ssdtrt.errors import ArtifactError
from ssdtrt.files import Progress, silent
from ssdtrt.image import synthetic_images
from ssdtrt.model.weights import build_model, model_from_state
from ssdtrt.parity import Runner
from ssdtrt.results import BenchReport, BenchRow
from ssdtrt.runner import FileRunner, eager_model, find_module, load_engine

EAGER = "eager FP32"
INPUT_SETS = 4  # batches used in turn, so that no run finds its input in the cache


def benchmark(
    runners: Mapping[str, Runner],
    images: Tensor,
    *,
    rounds: int | None = None,
    iterations: int | None = None,
    warmup: int = config.WARMUP,
    progress: Progress = silent,
) -> BenchReport:
    """Times each runner on `images` [N, 3, 300, 300]; the first one is the baseline of the speed-ups.

    Every runner is warmed up `warmup` times; then in each of `rounds` rounds each runner is timed `iterations` times in
    turn. Times are between CUDA events around one call when the images are on a GPU, else the host's clock. TF32 is
    off while it measures.
    """
    device = images.device
    rounds = rounds or config.ROUNDS[device.type]
    iterations = iterations or config.ITERATIONS[device.type]
    inputs = [images] + [images.flip(0).roll(i, dims=-1).contiguous() for i in range(1, INPUT_SETS)]
    times: dict[str, list[float]] = {name: [] for name in runners}
    with torch.no_grad(), machine.plain_fp32():
        for name, runner in runners.items():
            progress(f"warming up {name}, batch {len(images)}")
            time_calls(runner, inputs, warmup)
        for index in range(rounds):
            progress(f"measuring batch {len(images)}, round {index + 1} of {rounds}")
            for name, runner in runners.items():
                times[name] += time_calls(runner, inputs, iterations)
    baseline = statistics.median(next(iter(times.values())))
    rows = tuple(summarise(name, "", len(images), samples, baseline) for name, samples in times.items())
    settings = {
        "rounds": rounds,
        "iterations": iterations,
        "warmup": warmup,
        "tf32": False,
        "cudnn_benchmark": True,
        "input_sets": INPUT_SETS,
        "clock": "CUDA events" if device.type == "cuda" else "host monotonic clock",
    }
    return BenchReport({**machine.machine(device), "versions": machine.versions()}, settings, rows)


def time_calls(runner: Runner, inputs: Sequence[Tensor], count: int) -> list[float]:
    """The milliseconds of each of `count` calls, the inputs used in turn."""
    if inputs[0].device.type != "cuda":
        return [_host_time(runner, inputs[i % len(inputs)]) for i in range(count)]
    events = []
    for i in range(count):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        runner(inputs[i % len(inputs)])
        end.record()
        end.synchronize()
        events.append((start, end))
    return [start.elapsed_time(end) for start, end in events]


def _host_time(runner: Runner, images: Tensor) -> float:
    started = time.perf_counter()
    runner(images)
    return (time.perf_counter() - started) * 1e3


def summarise(name: str, precision: str, batch_size: int, samples: Sequence[float], baseline: float) -> BenchRow:
    """One row from the milliseconds of every timed call and the baseline's median."""
    median = statistics.median(samples)
    return BenchRow(
        name=name,
        precision=precision,
        batch_size=batch_size,
        samples=len(samples),
        median_ms=median,
        p90_ms=quantile(samples, 0.9),
        p99_ms=quantile(samples, 0.99),
        images_per_second=batch_size / median * 1e3,
        speedup=baseline / median,
        memory_mib=None,
    )


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of the samples does not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def bench_files(
    paths: Sequence[str | Path],
    *,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    batch_sizes: Sequence[int] | None = None,
    rounds: int | None = None,
    iterations: int | None = None,
    warmup: int = config.WARMUP,
    progress: Progress = silent,
) -> BenchReport:
    """Measures saved files against the FP32 eager model, each at the batch size it was built for (a range at its optimum).

    `batch_sizes` asks for others that the files take. The FP32 weights come from the module that a file was built from
    (see `find_module`); where that is missing, latency is measured against the same network with random weights, and
    nothing is said about agreement. Raises ArtifactError or CompileError.
    """
    progress("loading")
    runners = [load_engine(path, device) for path in paths]
    if len({runner.device for runner in runners}) != 1:
        raise ArtifactError("These files run on different devices (CPU and GPU engines); measure them apart.")
    device = runners[0].device
    plan = plan_sizes(runners, batch_sizes)
    reports, notes = [], []
    for size, members in plan.items():
        pictures = synthetic_images(max(size, config.PARITY_IMAGES), seed=config.SEED + 2).to(device)
        images = pictures[:size]
        references, missing = references_of(members, module, device)
        notes += [note for note in missing if note not in notes]
        eager = next((model for model in references.values() if model is not None), None)
        if eager is None:
            eager = build_model("random").to(device)
        named = {EAGER: eager, **{str(runner.path): runner for runner in members}}
        with torch.no_grad(), machine.plain_fp32():
            memory = measure_memory(members, eager, images)
        report = benchmark(named, images, rounds=rounds, iterations=iterations, warmup=warmup, progress=progress)
        progress(f"comparing with FP32, batch {size}")
        rows = [replace(report.rows[0], precision="fp32", memory_mib=memory[EAGER])]
        for runner, row in zip(members, report.rows[1:]):
            rows.append(complete(row, runner, references[runner.path], memory[str(runner.path)], pictures))
        reports.append(replace(report, rows=tuple(rows)))
    if any(not runner.trained for runner in runners):
        notes.append("untrained: seeded random weights; speed and agreement hold, detections mean nothing")
    return replace(reports[0], rows=tuple(row for report in reports for row in report.rows), notes=tuple(notes))


def plan_sizes(runners: Sequence[FileRunner], batch_sizes: Sequence[int] | None) -> dict[int, list[FileRunner]]:
    """Which runners to measure at which batch size, ascending. Raises ArtifactError for a size that none takes."""
    plan: dict[int, list[FileRunner]] = {}
    for runner in runners:
        for size in batch_sizes or [runner.batch.opt if runner.batch else config.BATCH_SIZE]:
            if runner.batch is None or runner.batch.min <= size <= runner.batch.max:
                plan.setdefault(size, []).append(runner)
    refused = [size for size in batch_sizes or [] if size not in plan]
    if refused:
        taken = ", ".join(f"{runner.path} takes {describe(runner.batch)}" for runner in runners)
        raise ArtifactError(f"No file takes batch size {refused[0]}: {taken}.")
    return dict(sorted(plan.items()))


def describe(batch: BatchRange | None) -> str:
    """A batch range in words."""
    if batch is None:
        return "any batch"
    return f"batch {batch.min}" if batch.static else f"batches of {batch.min} to {batch.max}"


def references_of(
    runners: Sequence[FileRunner], module: str | Path | None, device: torch.device
) -> tuple[dict[Path, torch.nn.Module | None], list[str]]:
    """The FP32 eager model of each file, one for each set of weights, and a note for each file without one."""
    models: dict[Path, torch.nn.Module] = {}
    references, notes = {}, []
    for runner in runners:
        place, reason = find_module(runner, module)
        if place is None:
            references[runner.path] = None
            notes.append(f"{runner.path}: agreement not compared, {reason}")
            continue
        if place not in models:
            models[place] = eager_model(place, device)
        references[runner.path] = models[place]
    return references, notes


def measure_memory(members: Sequence[FileRunner], eager: torch.nn.Module, images: Tensor) -> dict[str, float | None]:
    """MiB of the device's free memory that loading and running takes, for each row; None on a CPU.

    Each is loaded again for it, after torch's cache was emptied: TensorRT allocates outside torch, so only the
    device's free memory counts everything.
    """
    names = [EAGER, *(str(runner.path) for runner in members)]
    if images.device.type != "cuda":
        return dict.fromkeys(names)
    eager(images)  # What the first convolution of a process allocates belongs to no row.
    weights = eager.state_dict()
    loaders: list[Callable[[], Runner]] = [lambda: _fresh(eager, weights)]
    loaders += [lambda path=runner.path: load_engine(path, images.device) for runner in members]
    return {name: _memory_of(loader, images) for name, loader in zip(names, loaders)}


def _fresh(eager: torch.nn.Module, weights: dict[str, Tensor]) -> torch.nn.Module:
    return model_from_state({key: value.clone() for key, value in weights.items()}, EAGER)


def _memory_of(loader: Callable[[], Runner], images: Tensor) -> float:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info(images.device)[0]
    runner = loader()
    for _ in range(3):
        runner(images)
    torch.cuda.synchronize()
    return (before - torch.cuda.mem_get_info(images.device)[0]) / 2**20


def complete(
    row: BenchRow, runner: FileRunner, reference: torch.nn.Module | None, memory: float | None, images: Tensor
) -> BenchRow:
    """A timed row with what else is known of its file, and its agreement with FP32 where there is a reference."""
    agreement = None
    if reference is not None:
        agreement = parity.compare(
            runner, reference, images, precision=runner.precision, batch_sizes=(row.batch_size,)
        )
    return replace(
        row,
        precision=runner.precision,
        memory_mib=memory,
        build_seconds=runner.metadata["build"].get("seconds"),
        agreement=agreement,
    )
