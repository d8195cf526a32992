"""Measuring runners against each other: one process, the same images, warm-up, then interleaved rounds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.baseline import eager_model, find_module
from ssdtrt.artifact.request import BatchRange
from ssdtrt.benchmarking.baselines import File, check_names, file_contenders, peers
from ssdtrt.benchmarking.case import Contender, Trial, free_memory, out_of_memory
from ssdtrt.benchmarking.diagnostics import gpu_notes, row_notes
from ssdtrt.benchmarking.parts import time_parts
from ssdtrt.benchmarking.report import BenchReport, PartTime
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import ArtifactError
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.weights import build_model
from ssdtrt.system.devices import current_device, tf32_disabled
from ssdtrt.system.gpu_state import other_processes, read_state
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.versions import installed_versions, this_machine

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

    Every runner is warmed up `warmup` times; then in each of `rounds` rounds each runner is timed `iterations` times, in
    an order that changes from round to round and after a short rest. When the images are on a GPU, times are between
    CUDA events around one call of several that follow each other without a wait, with the host's time from as many
    other calls, each waited for; else they are the host's clock. A GraphRunner finds its images where it reads them.
    TF32 is off while it measures. A runner for which memory does not suffice gets a row that says so.
    """
    contenders = [Contender(name, "", lambda runner=runner: runner, required=True) for name, runner in runners.items()]
    trials = trials_of(contenders, images)
    settings = run_trials(trials, settings_of(images.device, rounds, iterations, warmup), progress)
    return report_of(trials, settings, images.device)


def trials_of(contenders: Sequence[Contender], images: Tensor) -> list[Trial]:
    """A trial for each, all on the same sets of images of this batch size."""
    inputs = [images] + [images.flip(0).roll(i, dims=-1).contiguous() for i in range(1, INPUT_SETS)]
    return [Trial(contender, inputs) for contender in contenders]


def settings_of(device: torch.device, rounds: int | None, iterations: int | None, warmup: int) -> dict:
    """How runners are measured on this device, `rounds` and `iterations` as configured where they are not given."""
    return {
        "rounds": rounds or config.ROUNDS[device.type],
        "iterations": iterations or config.ITERATIONS[device.type],
        "warmup": warmup,
        "tf32": False,
        "cudnn_benchmark": True,
        "input_sets": INPUT_SETS,
        "rest_seconds": config.REST[device.type],
        "clock": "CUDA events, calls back to back" if device.type == "cuda" else "host monotonic clock",
        "gpu_state": None,
    }


def run_trials(trials: Sequence[Trial], settings: dict, progress: Progress) -> dict:
    """Makes, warms up and times every contender, in turns: the settings, with what the GPU said of itself."""
    images = trials[0].inputs[0]
    size, device = len(images), images.device
    with on_device(device):
        for trial in trials:
            progress(f"warming up {trial.contender.name}, batch {size}")
            trial.prepare(settings["warmup"])
        before = read_state(device) if device.type == "cuda" else None
        for index, order in enumerate(orders(len(trials), settings["rounds"])):
            progress(f"measuring batch {size}, round {index + 1} of {settings['rounds']}")
            for place in order:
                time.sleep(settings["rest_seconds"])
                trials[place].measure(settings["iterations"])
        state = [{"batch_size": size, **gpu_state(trials, before)}] if device.type == "cuda" else None
    return {**settings, "gpu_state": state}


def orders(count: int, rounds: int) -> list[list[int]]:
    """In what order `count` runners are measured in each round: another each time, the same every time that it is asked.

    A GPU at its power limit is slowed down by what ran before, which so is not always the same.
    """
    random = np.random.default_rng(config.SEED)
    return [random.permutation(count).tolist() for _ in range(rounds)]


@contextlib.contextmanager
def on_device(device: torch.device):
    """Inside, calls run as they are measured: this device the current one, no gradients, TF32 off."""
    with current_device(device), torch.no_grad(), tf32_disabled():
        yield


def gpu_state(trials: Sequence[Trial], before: dict | None) -> dict:
    """What nvidia-smi said before the rounds and says now, the last runner still at work, and who else computes."""
    images = trials[0].inputs[0]
    live = [trial.runner for trial in trials if trial.runner is not None]

    def busy() -> None:
        for runner in live[-1:]:
            runner(images)
        torch.cuda.synchronize()

    after = read_state(images.device, busy)
    return {"before": before, "after": after, "other_processes": other_processes(images.device)}


def report_of(trials: Sequence[Trial], settings: dict, device: torch.device) -> BenchReport:
    """The trials' rows, those that were measured with a speed-up over the first."""
    baseline = trials[0].samples if trials and not trials[0].reason else None
    rows = tuple(trial.row(baseline) for trial in trials)
    return BenchReport({**this_machine(device), "versions": installed_versions()}, settings, rows)


def bench_files(
    paths: Sequence[str | Path],
    *,
    against: Sequence[str] = (),
    parts: bool = False,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    batch_sizes: Sequence[int] | None = None,
    rounds: int | None = None,
    iterations: int | None = None,
    warmup: int = config.WARMUP,
    progress: Progress = silent,
) -> BenchReport:
    """Measures saved files against the FP32 eager model, each at the batch size it was built for (or its optimum).

    `against` names more to measure, from config.BENCH_PEERS; one that cannot run here gets a row that says why.
    `batch_sizes` asks for other sizes that the files take; what runs out of memory is not tried at a larger one. With
    `parts` the way from a picture to its detections is timed too, part by part, at the smallest size. The FP32 weights
    come from the module that a file was built from (see `find_module`); where that is missing, latency is measured
    against the same network with random weights, and nothing is said about agreement. Raises SsdtrtError for an
    unknown name, ArtifactError or CompileError.
    """
    check_names(against)
    progress("loading")
    files = [File.read(path, device) for path in paths]
    if len({file.device for file in files}) != 1:
        raise ArtifactError("These files run on different devices (CPU and GPU engines); measure them apart.")
    plan = plan_sizes(files, batch_sizes)
    settings = settings_of(files[0].device, rounds, iterations, warmup)
    reports, notes, exhausted = [], [], set()
    for size, members in plan.items():
        references = contenders = None
        free_memory(files[0].device)  # What the size before left would be taken for nobody's.
        references, missing = references_of(members, module)
        contenders = field_of(against, members, references)
        contenders = [contender for contender in contenders if contender.name not in exhausted]
        if not contenders:
            break
        report, said, out = bench_size(contenders, size, files[0].device, settings, progress)
        reports.append(report)
        exhausted |= out
        notes += [note for note in (*missing, *said) if note not in notes]
    report = joined(reports)
    if any(not file.trained for file in files):
        notes.append("untrained: seeded random weights; speed and agreement hold, detections mean nothing")
    notes += [*row_notes(report.rows), *gpu_notes(report.settings["gpu_state"])]
    timed: tuple[PartTime, ...] = ()
    if parts:
        size, members = next(iter(plan.items()))
        with on_device(members[0].device):
            timed = time_parts(members[0], size, progress, rounds, iterations, warmup)
    return replace(report, notes=tuple(notes), parts=timed)


def field_of(
    against: Sequence[str], members: Sequence[File], references: Mapping[Path, tuple[Path, torch.nn.Module] | None]
) -> list[Contender]:
    """All that is to be measured at one size: the peers, with the first weights that are known, and the files."""
    device = members[0].device
    known = next((reference for reference in references.values() if reference is not None), None)
    place, model = known or (None, build_model("random").to(device))
    if device.type == "cuda":
        with on_device(device):
            model(torch.zeros(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, device=device))  # Belongs to no row's memory.
    contenders = peers(against, model, place, device)
    for file in members:
        reference = references[file.path]
        contenders += file_contenders(against, file, reference and reference[1])
    return contenders


def bench_size(
    contenders: Sequence[Contender], size: int, device: torch.device, settings: dict, progress: Progress
) -> tuple[BenchReport, list[str], set[str]]:
    """One batch size: its report, what is to be said of it, and the names for which memory did not suffice."""
    whole = -(-config.PARITY_IMAGES // size) * size  # Whole batches: some take no other size.
    try:
        pictures = synthetic_images(whole, seed=config.SEED + 2).to(device)
        trials = trials_of(contenders, pictures[:size])
    except Exception as error:
        if not out_of_memory(error):
            raise
        trials = [Trial.too_large(contender, size, error) for contender in contenders]
        return report_of(trials, settings, device), [], {contender.name for contender in contenders}
    settings = run_trials(trials, settings, progress)
    progress(f"comparing with FP32, batch {size}")
    with on_device(device):
        said = [trial.compare(pictures) for trial in trials]
    out = {trial.contender.name for trial in trials if trial.exhausted}
    return report_of(trials, settings, device), [note for note in said if note], out


def joined(reports: Sequence[BenchReport]) -> BenchReport:
    """The reports of several sizes as one."""
    rows = tuple(row for report in reports for row in report.rows)
    states = [state for report in reports for state in report.settings["gpu_state"] or ()]
    return replace(reports[0], rows=rows, settings={**reports[0].settings, "gpu_state": states or None})


def plan_sizes(files: Iterable[File], batch_sizes: Sequence[int] | None) -> dict[int, list[File]]:
    """Which files to measure at which batch size, ascending. Raises ArtifactError for a size that none takes."""
    plan: dict[int, list[File]] = {}
    for file in files:
        for size in batch_sizes or [file.batch.opt if file.batch else config.BATCH_SIZE]:
            if file.batch is None or file.batch.min <= size <= file.batch.max:
                plan.setdefault(size, []).append(file)
    refused = [size for size in batch_sizes or [] if size not in plan]
    if refused:
        taken = ", ".join(f"{file.path} takes {describe(file.batch)}" for file in files)
        raise ArtifactError(f"No file takes batch size {refused[0]}: {taken}.")
    return dict(sorted(plan.items()))


def describe(batch: BatchRange | None) -> str:
    """A batch range in words."""
    if batch is None:
        return "any batch"
    return f"batch {batch.min}" if batch.static else f"batches of {batch.min} to {batch.max}"


def references_of(
    files: Sequence[File], module: str | Path | None
) -> tuple[dict[Path, tuple[Path, torch.nn.Module] | None], list[str]]:
    """Each file's module and FP32 eager model, one for each set of weights, and a note for each file without one."""
    models: dict[Path, torch.nn.Module] = {}
    references, notes = {}, []
    for file in files:
        place, reason = find_module(file, module)
        if place is None:
            references[file.path] = None
            notes.append(f"{file.path}: agreement not compared, {reason}")
            continue
        if place not in models:
            models[place] = eager_model(place, file.device)
        references[file.path] = place, models[place]
    return references, notes
