"""A benchmark's report: what was measured, how, and on which machine. No torch here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.evaluation.report import EvalSettings
from ssdtrt.system.gpu_state import GpuState
from ssdtrt.system.report import Report, counted
from ssdtrt.system.versions import MeasuredOn

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]
_BESIDE_ENGINES = ("torchscript", "engine-plain")  # what is a baseline in a report that has engines

UNTRAINED = "untrained: seeded random weights; speed and agreement hold, detections mean nothing"
"""The note of a report on untrained weights."""


class HostTimes(Report, frozen=True):
    """Milliseconds of host time of a call and the wait for its result.

    Attributes:
        median_ms: The median.
        p90_ms: The 90th percentile, nearest rank.
        p99_ms: The 99th percentile, nearest rank.
        max_ms: The longest.
        returned_ms: The median until the call returned, before the wait; None on a CPU, where there is no wait.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    returned_ms: float | None = None


class Accuracy(Report, frozen=True):
    """COCO's figures of what a row runs, 0..1. None stands for what is not known, such as the AP without an object.

    Attributes:
        ap: The average precision over IoU 0.50 to 0.95.
        ap50: That at IoU 0.50.
        ap75: That at IoU 0.75.
        difference: AP less that of FP32 eager with the same weights; None where these were not found.
        images: The number of pictures.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    difference: float | None
    images: int


class BenchRow(Report, frozen=True):
    """One benchmark case at one batch size. Times are milliseconds for a batch, and None where the case failed.

    Attributes:
        name: What was measured: a baseline's name, or the path of a file.
        precision: `fp32`, `tf32`, `fp16` or `bf16`; "" for a runner of the caller's own.
        batch_size: The images of a batch.
        case: One of config.BENCH_CASES; "" for a runner of the caller's own.
        file: The path, where a file was run.
        status: `ok` or `failed`.
        reason: Why it failed; "" where it did not.
        samples: How many calls were timed.
        median_ms: The median.
        p90_ms: The 90th percentile, nearest rank.
        p99_ms: The 99th percentile, nearest rank.
        max_ms: The longest.
        coefficient_of_variation: The standard deviation over the mean; None for a single sample.
        images_per_second: From the median.
        speedup: The median of the FP32 baseline at this batch size over this one.
        speedup_low: The lower end of its 95 % confidence interval; None with fewer than three rounds.
        speedup_high: The upper end.
        host: The host's times of a call.
        memory_mib: What loading and running it took of the GPU's free memory; None on a CPU.
        build_seconds: How long an engine took to build; None for everything else.
        compile_seconds: The first call of a case that compiles or captures in it.
        first_call_ms: The first call after that, by the host's clock.
        agreement: How far its outputs are from FP32; None where that was not compared.
        accuracy: What it finds in annotated pictures; None where it was not evaluated.
    """

    name: str
    precision: str
    batch_size: Count
    case: str = ""
    file: str | None = None
    status: Literal["ok", "failed"] = "ok"
    reason: str = ""
    samples: int = 0
    median_ms: Positive | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    coefficient_of_variation: float | None = None
    images_per_second: Positive | None = None
    speedup: Positive | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    host: HostTimes | None = None
    memory_mib: float | None = None
    build_seconds: float | None = None
    compile_seconds: float | None = None
    first_call_ms: float | None = None
    agreement: ParityReport | None = None
    accuracy: Accuracy | None = None

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok" and self.median_ms is not None

    @property
    def is_file(self) -> bool:
        """Whether it is one of the files that were measured, or the module that they were built from."""
        return self.file is not None

    @property
    def built(self) -> bool:
        """Whether it is an engine, which was built, and not a module."""
        return self.build_seconds is not None

    @property
    def key(self) -> tuple[str, str | None, str, int]:
        """What makes it the same row as one of another report."""
        return self.case or self.name, self.file, self.precision, self.batch_size

    @property
    def runner(self) -> str:
        """What was measured, such as `b8.engine.ts FP16` or `eager-fp32`."""
        name = self.file or self.case or self.name
        if self.precision not in name.lower():
            name = f"{name} {self.precision.upper()}"
        return name if self.file is None or self.case == "engine" else f"{name}, {self.case}"

    @property
    def label(self) -> str:
        """The runner and its batch size."""
        return f"{self.runner}, batch {self.batch_size}"


class PartTime(Report, frozen=True):
    """One part of the way from pictures to detections, timed alone: milliseconds of host time for a batch."""

    name: str
    batch_size: int
    median_ms: float
    p90_ms: float


class BatchGpuState(Report, frozen=True):
    """The GPU around the rounds of one batch size.

    Attributes:
        batch_size: The batch size.
        before: Its state before the first round; None where nothing reports it.
        after: Its state after the last round, still busy.
        other_processes: `name (pid)` of the other processes that compute on it.
    """

    batch_size: int
    before: GpuState | None = None
    after: GpuState | None = None
    other_processes: tuple[str, ...] = ()


class BenchSettings(Report, frozen=True, kw_only=True):
    """How everything in a report was measured. None stands for what an older report does not record.

    Attributes:
        rounds: How many rounds there were, in each of which every case had its turn.
        iterations: The timed calls of a case in a round.
        clock: What was read: CUDA events on a GPU, the host's monotonic clock on a CPU.
        warmup: The calls of a case before the first round.
        tf32: Whether TF32 was enabled.
        cudnn_benchmark: Whether cuDNN chose its kernels by timing them.
        input_sets: How many different batches were used in turn.
        rest_seconds: The pause before each turn.
        gpu_state: The GPU's state at each batch size; None on a CPU.
        evaluation: The annotated pictures, and how they were evaluated; None without them.
    """

    rounds: int
    iterations: int
    clock: str
    warmup: int | None = None
    tf32: bool | None = None
    cudnn_benchmark: bool | None = None
    input_sets: int | None = None
    rest_seconds: float | None = None
    gpu_state: tuple[BatchGpuState, ...] | None = None
    evaluation: EvalSettings | None = None

    @property
    def calls(self) -> str:
        """How many calls there were, in words."""
        return f"{counted(self.rounds * self.iterations, 'call')} a row in {counted(self.rounds, 'interleaved round')}"


class BenchReport(Report, frozen=True):
    """Benchmark cases measured in one process on the same images, interleaved.

    Attributes:
        machine: The machine and the versions.
        settings: How it was measured.
        rows: A row for each case at each batch size, the FP32 baseline first.
        notes: What a reader of the figures must know.
        parts: The parts of the whole way from pictures to detections, where they were asked for.
        failures: Why annotated pictures could not be read. They count as pictures without detections.
    """

    kind = "bench"
    schema = config.BENCH_SCHEMA

    machine: MeasuredOn
    settings: BenchSettings
    rows: Annotated[tuple[BenchRow, ...], msgspec.Meta(min_length=1)]
    notes: tuple[str, ...] = ()
    parts: tuple[PartTime, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def judged(self) -> tuple[BenchRow, ...]:
        """The rows of files, for which limits are; without any those of the caller's own runners.

        Beside engines, the module that they were built from and the engines without a CUDA graph are baselines.
        """
        engines = any(row.case == "engine" for row in self.rows)
        files = [row for row in self.rows if row.is_file and not (engines and row.case in _BESIDE_ENGINES)]
        return tuple(files or [row for row in self.rows if not row.case])

    @property
    def with_file_names(self) -> BenchReport:
        """The report with the name of each file in place of its path, but where two paths end with the same name."""
        names = Counter(Path(path).name for path in {row.file for row in self.rows if row.file})

        def named(row: BenchRow) -> BenchRow:
            name = Path(row.file).name if row.file else ""
            return replace(row, file=name) if names[name] == 1 else row

        return replace(self, rows=tuple(map(named, self.rows)))
