"""Measure runners and saved files against each other: one process, the same images, interleaved rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.benchmarking.accuracy import with_accuracy
from ssdtrt.benchmarking.baselines import BenchFile, baseline_cases, check_names, file_cases
from ssdtrt.benchmarking.case import BenchmarkCase, CaseRun, free_memory
from ssdtrt.benchmarking.diagnostics import gpu_notes, row_notes
from ssdtrt.benchmarking.parts import time_parts
from ssdtrt.benchmarking.report import UNTRAINED, BenchReport, BenchSettings, PartTime
from ssdtrt.benchmarking.rounds import case_runs, measure, measuring, report_of, settings_for
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import ArtifactError
from ssdtrt.evaluate import Evaluation
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.weights import build_model
from ssdtrt.runners.baseline import eager_model, find_module
from ssdtrt.system.files import as_list
from ssdtrt.system.gpu_errors import out_of_memory
from ssdtrt.system.progress import Progress, silent, tracked


def benchmark(
    runners: Mapping[str, Runner],
    images: Tensor,
    *,
    rounds: int | None = None,
    iterations: int | None = None,
    warmup: int = config.WARMUP,
    progress: Progress = silent,
) -> BenchReport:
    """Time runners on the same images; the first one is the baseline of the speed-ups.

    Every runner is warmed up; then in each round each runner has its turn, in an order that changes from round to round
    and after a short rest. With images on a GPU, times are between CUDA events around one call of several that follow
    each other without a wait; the host's times are from as many other calls, each waited for. On a CPU they are the
    host's. A runner with a method `place`, as those of `load_engine` have, gets its images where it reads them, so that
    no copy is timed. TF32 is disabled meanwhile.

    Args:
        runners: Callables by name: images -> (loc [N, 4, A], conf [N, C, A]).
        images: [N, 3, 300, 300], float32, on the device of the runners.
        rounds: How many rounds, at least 1; by default 10 on a GPU and 5 on a CPU.
        iterations: The timed calls of a runner in a round, at least 1; by default 10 on a GPU and 4 on a CPU.
        warmup: The calls of a runner before the first round.
        progress: Called with a line of text for each step.

    Returns:
        A report with a row for each runner. A runner for which memory does not suffice has a row with the reason.

    Raises:
        Exception: What a runner raises, but for lack of memory.

    Example:
        >>> import torch
        >>> from ssdtrt import benchmark
        >>> runners = {"one": lambda images: images.mul(2), "two": lambda images: images.exp()}
        >>> report = benchmark(runners, torch.zeros(1, 3, 300, 300), rounds=3, iterations=2, warmup=1)
        >>> [(row.name, row.samples) for row in report.rows]
        [('one', 6), ('two', 6)]
    """
    runs = case_runs([_own_case(name, runner) for name, runner in runners.items()], images)
    settings = measure(runs, settings_for(images.device, rounds, iterations, warmup), progress)
    return report_of(runs, settings, images.device)


def bench_files(
    paths: str | Path | Sequence[str | Path],
    *,
    against: str | Sequence[str] = (),
    parts: bool = False,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    batch_sizes: Sequence[int] | None = None,
    rounds: int | None = None,
    iterations: int | None = None,
    warmup: int = config.WARMUP,
    evaluation: Evaluation | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Measure saved files against the FP32 eager model, as `benchmark` does, and on a GPU FP16 eager as a CUDA graph.

    The FP32 weights come from the module that a file was built from (see `find_module`). Where that is missing, latency
    is measured against the same network with random weights, and agreement is not compared.

    With an `evaluation` the rows have the AP too, of every file and baseline that was measured, and its difference to
    that of FP32 eager with the same weights. It takes one evaluation of each network, whatever the batch sizes.

    Args:
        paths: Modules, engines or detectors, or one of them.
        against: More cases to measure, from config.BENCH_CASES. One that cannot run here has a row with the reason.
        parts: Whether the way from a picture to its detections is timed too, part by part, at the smallest batch size.
        module: The module that the files were built from, where it is not found by itself.
        device: `cpu`, `cuda` or `cuda:N`; by default what the files are for.
        batch_sizes: The batch sizes, of those that the files take; by default the one that each was built for. What
            runs out of memory is not tried at a larger one.
        rounds: How many rounds, at least 1; by default 10 on a GPU and 5 on a CPU.
        iterations: The timed calls of a case in a round, at least 1; by default 10 on a GPU and 4 on a CPU.
        warmup: The calls of a case before the first round.
        evaluation: The annotated pictures on which files and baselines are evaluated; by default they are not.
        progress: Called with a line of text for each step.

    Returns:
        A report with a row for each case at each batch size.

    Raises:
        SsdtrtError: For an unknown name in `against`, or classes that do not fit the annotations.
        ArtifactError: Where a file cannot be used, or none takes a batch size.
        CompileError: Where Torch-TensorRT or a GPU is missing.

    Example:
        >>> from ssdtrt import bench_files, build_model, export_module
        >>> module = export_module(build_model("random"), "ssd300.ts")
        >>> report = bench_files([module], device="cpu", rounds=1, iterations=1, warmup=1)
        >>> [(row.case, row.batch_size) for row in report.rows]
        [('eager-fp32', 1), ('torchscript', 1)]
    """
    against = as_list(against)
    check_names(against)
    progress("loading")
    files = [BenchFile.read(path, device) for path in as_list(paths)]
    if not files:
        raise ArtifactError("No file was given; expected at least one module, engine or detector.")
    if len({file.device for file in files}) != 1:
        raise ArtifactError("These files run on different devices (CPU and GPU engines); measure them separately.")
    plan = plan_sizes(files, batch_sizes)
    if evaluation:
        evaluation.check(*(file.metadata.model.labels for file in files))
        evaluation.check_decoding(*((file.device, file.metadata.model.preprocess) for file in files))
    modules, notes = _find_modules(files, module, "agreement and AP" if evaluation else "agreement")
    settings = settings_for(files[0].device, rounds, iterations, warmup)
    report = _joined(list(_sweep(plan, against, modules, settings, progress)))
    if evaluation:
        report = with_accuracy(report, plan, modules, evaluation)
    notes += report.notes
    if not all(file.metadata.trained for file in files):
        notes.append(UNTRAINED)
    notes += [*row_notes(report.rows), *gpu_notes(report.settings.gpu_state)]
    times: tuple[PartTime, ...] = ()
    if parts:
        size, members = next(iter(plan.items()))
        with measuring(members[0].device):
            times = time_parts(members[0], size, settings, progress)
    return replace(report, notes=tuple(notes), parts=times)


def _own_case(name: str, runner: Runner) -> BenchmarkCase:
    return BenchmarkCase(name, "", lambda: runner, required=True)


def plan_sizes(files: Iterable[BenchFile], batch_sizes: Sequence[int] | None) -> dict[int, list[BenchFile]]:
    """Return the files to measure at each batch size, ascending. Raises ArtifactError for a size that none takes."""
    plan: dict[int, list[BenchFile]] = {}
    for file in files:
        for size in batch_sizes or [file.batch.opt if file.batch else config.BATCH_SIZE]:
            if file.batch is None or file.batch.min <= size <= file.batch.max:
                plan.setdefault(size, []).append(file)
    refused = [size for size in batch_sizes or [] if size not in plan]
    if refused:
        taken = ", ".join(f"{file.path} takes {_in_words(file.batch)}" for file in files)
        raise ArtifactError(f"No file takes batch size {refused[0]}: {taken}.")
    return dict(sorted(plan.items()))


def _in_words(batch: BatchRange | None) -> str:
    if batch is None:
        return "any batch"
    return f"batch {batch.min}" if batch.static else f"batches of {batch.min} to {batch.max}"


def _find_modules(
    files: Sequence[BenchFile], module: str | Path | None, lost: str
) -> tuple[dict[Path, Path | None], list[str]]:
    """The module of each file by the file's path, None where it is missing, and a note on what is `lost` by each that is."""
    modules: dict[Path, Path | None] = {}
    notes = []
    for file in files:
        modules[file.path], reason = find_module(file, module)
        if reason:
            notes.append(f"{file.path}: {lost} not compared, {reason}")
    return modules, notes


def _sweep(
    plan: Mapping[int, Sequence[BenchFile]],
    against: Sequence[str],
    modules: Mapping[Path, Path | None],
    settings: BenchSettings,
    progress: Progress,
) -> Iterator[BenchReport]:
    """A report for each batch size. A case for which memory did not suffice is not tried at the larger ones."""
    exhausted: set[str] = set()
    for size, files in plan.items():
        free_memory(files[0].device)  # What the last size left would be missing in the memory of this one's rows.
        report, more = _bench_size(size, files, against, modules, exhausted, settings, progress)
        if report is None:
            return
        exhausted |= more
        yield report


def _bench_size(
    size: int,
    files: Sequence[BenchFile],
    against: Sequence[str],
    modules: Mapping[Path, Path | None],
    exhausted: set[str],
    settings: BenchSettings,
    progress: Progress,
) -> tuple[BenchReport | None, set[str]]:
    """The report of all cases but the `exhausted`, None without any, and the names of what memory did not suffice for."""
    device = files[0].device
    cases = [case for case in _cases(files, against, modules) if case.name not in exhausted]
    if not cases:
        return None, set()
    whole = -(-config.PARITY_IMAGES // size) * size  # Whole batches: some cases take no other size.
    notes: list[str] = []
    try:
        images = synthetic_images(whole, seed=config.SEED + 2).to(device)
        runs = case_runs(cases, images[:size])
    except Exception as error:
        if not out_of_memory(error):
            raise
        runs = [CaseRun.too_large(case, size, error) for case in cases]
    else:
        settings = measure(runs, settings, progress)
        with measuring(device):
            compared = tracked(runs, progress, f"comparing batch {size} with FP32", "case")
            notes = [note for run in compared if (note := run.compare(images))]
    report = replace(report_of(runs, settings, device), notes=tuple(notes))
    return report, {run.case.name for run in runs if run.exhausted}


def _cases(
    files: Sequence[BenchFile], against: Sequence[str], modules: Mapping[Path, Path | None]
) -> list[BenchmarkCase]:
    """The baselines, with the first weights that are known, and the files."""
    device = files[0].device
    models = {place: eager_model(place, device) for file in files if (place := modules[file.path]) is not None}
    place, model = next(iter(models.items()), (None, None))
    model = model or build_model("random").to(device)
    if device.type == "cuda":
        with measuring(device):
            model(torch.zeros(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, device=device))  # Belongs to no row's memory.
    measured = {file.case for file in files if file.path == place}  # Modules that are measured as files.
    against = [name for name in against if name not in measured]
    cases = baseline_cases(against, model, place, device)
    for file in files:
        module = modules[file.path]
        cases += file_cases(against, file, models[module] if module else None)
    return cases


def _joined(reports: Sequence[BenchReport]) -> BenchReport:
    """The reports of several batch sizes as one."""
    states = [state for report in reports for state in report.settings.gpu_state or ()]
    return replace(
        reports[0],
        rows=tuple(row for report in reports for row in report.rows),
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        settings=replace(reports[0].settings, gpu_state=tuple(states) or None),
    )
