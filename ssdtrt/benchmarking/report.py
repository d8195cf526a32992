"""A benchmark's report: what was measured, of what, on which machine. No torch here."""

from __future__ import annotations

from ssdtrt import config
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.system.report import Report


class HostTimes(Report, frozen=True):
    """Milliseconds of host time of a call and the wait for its result.

    `returned_ms` is the median until the call came back, before the wait; None on a CPU, where there is no wait.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    returned_ms: float | None = None


class BenchRow(Report, frozen=True):
    """One runner at one batch size. Times are milliseconds for a batch; they are None where `status` is "failed".

    `peer` is one of config.BENCH_PEERS ("" for a runner of the caller's own) and `file` the path where it is a file.
    `variation` is the standard deviation over the mean. `speedup` is over the FP32 eager row of the same batch size,
    `speedup_low` to `speedup_high` its 95 % confidence interval, None from fewer than three rounds. `memory_mib` is what
    loading and running the runner took from the GPU's free memory. `compile_seconds` is the first call of what compiles
    or captures in it, `first_call_ms` the host time of the first call after that. `agreement` is None where it was
    not compared. `reason` says why it failed.
    """

    name: str
    precision: str
    batch_size: int
    samples: int = 0
    median_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    speedup: float | None = None
    memory_mib: float | None = None
    build_seconds: float | None = None
    agreement: ParityReport | None = None
    peer: str = ""
    file: str | None = None
    worst_ms: float | None = None
    variation: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    host: HostTimes | None = None
    first_call_ms: float | None = None
    compile_seconds: float | None = None
    status: str = "ok"
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"


class PartTime(Report, frozen=True):
    """One part of the way from pictures to detections, timed apart: milliseconds of host time for a batch."""

    name: str
    batch_size: int
    median_ms: float
    p90_ms: float


class BenchReport(Report, frozen=True):
    """Runners measured in one process on the same images, interleaved.

    `clock` in the settings says what was read: CUDA events on a GPU, the host's monotonic clock on a CPU. `notes` are
    what a reader of the figures must know, `parts` the parts of the whole way where they were asked for.
    """

    kind = "bench"
    schema = config.BENCH_SCHEMA

    machine: dict
    settings: dict
    rows: tuple[BenchRow, ...]
    notes: tuple[str, ...] = ()
    parts: tuple[PartTime, ...] = ()
