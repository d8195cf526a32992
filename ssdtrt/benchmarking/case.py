"""A benchmark case, and its run at one batch size: made, warmed up, timed and compared, or the reason of its failure."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.benchmarking.report import BenchRow
from ssdtrt.benchmarking.timing import Samples
from ssdtrt.engine import parity
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.runners.timing import host_time, time_calls
from ssdtrt.system.gpu_errors import out_of_memory


@dataclass(frozen=True)
class BenchmarkCase:
    """A runner to measure.

    Attributes:
        name: The name of its rows.
        precision: `fp32`, `tf32`, `fp16` or `bf16`; "" where it is not known.
        make: Returns the runner, or raises where it cannot run here.
        case: One of config.BENCH_CASES; "" for a runner of the caller's own.
        file: The path of the file that is run.
        build_seconds: How long that engine took to build.
        reference: The FP32 eager model that its outputs are compared with; None for no comparison.
        compiles: Whether its first call compiles or captures.
        measures_memory: Whether the GPU memory that it takes is measured.
        required: Whether its failure is raised, and not reported in its row.
    """

    name: str
    precision: str
    make: Callable[[], Runner]
    case: str = ""
    file: Path | None = None
    build_seconds: float | None = None
    reference: torch.nn.Module | None = field(default=None, repr=False)
    compiles: bool = False
    measures_memory: bool = False
    required: bool = False


class CaseRun:
    """A benchmark case at one batch size: what was measured of it, or the `reason` of its failure.

    `exhausted` is whether memory did not suffice.
    """

    def __init__(self, case: BenchmarkCase, inputs: Sequence[Tensor]):
        self.case, self.inputs, self.samples = case, inputs, Samples()
        self.runner: Runner | None = None
        self.first_call_ms: float | None = None
        self.compile_seconds: float | None = None
        self.memory_mib: float | None = None
        self.agreement: ParityReport | None = None
        self.reason, self.exhausted = "", False

    @classmethod
    def too_large(cls, case: BenchmarkCase, batch_size: int, error: Exception) -> CaseRun:
        """Return the run of a case for which there was no memory, not even for its images."""
        run = cls(case, [torch.empty(batch_size, 0)])
        run.exhausted, run.reason = True, _no_memory(error)
        return run

    @property
    def batch_size(self) -> int:
        """The images of a batch."""
        return len(self.inputs[0])

    def prepare(self, warmup: int) -> None:
        """Make the runner and warm it up with `warmup` calls, the first of them timed; one more where it compiles."""
        images = self.inputs[0]
        with self._failing():
            before = free_memory(images.device) if self.case.measures_memory else None
            runner = self.case.make()
            if self.case.compiles:
                self.compile_seconds = host_time(runner, images)[1] / 1e3
            if warmup:
                self.first_call_ms = host_time(runner, images)[1]
            if before is not None:
                torch.cuda.empty_cache()  # What was tried while libraries chose their kernels.
                time_calls(runner, self.inputs, 3)
                self.memory_mib = (before - torch.cuda.mem_get_info(images.device)[0]) / 2**20
            time_calls(runner, self.inputs, max(warmup - 1, 0))
            self.runner = runner

    def measure(self, iterations: int) -> None:
        """Time one round of `iterations` calls."""
        with self._failing():
            if self.runner is not None:
                self.samples.take(self.runner, self.inputs, iterations)

    def compare(self, images: Tensor) -> str:
        """Compare with FP32 at this batch size, and let the runner go; return why that was not possible, or ""."""
        case, runner, self.runner = self.case, self.runner, None
        try:
            if runner is not None and case.reference is not None:
                self.agreement = _agreement(runner, case.reference, case.precision, images, self.batch_size)
        except Exception as error:
            if not out_of_memory(error):
                raise
            return f"{case.name}, batch {self.batch_size}: agreement not compared, out of memory"
        finally:
            getattr(runner, "close", lambda: None)()
        return ""

    def row(self, baseline: Samples | None) -> BenchRow:
        """Return the case's row, with the speed-up over the samples of `baseline` where it is given."""
        case = self.case
        file = str(case.file) if case.file else None
        row = BenchRow(case.name, case.precision, self.batch_size, case.case, file)
        if self.reason:
            return replace(row, status="failed", reason=self.reason)
        row = replace(
            row,
            memory_mib=self.memory_mib,
            build_seconds=case.build_seconds,
            compile_seconds=self.compile_seconds,
            first_call_ms=self.first_call_ms,
            agreement=self.agreement,
        )
        return self.samples.summarized_in(row, baseline)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Inside, a failure ends the run and becomes its reason; a required case raises it, but for lack of memory."""
        try:
            yield
        except Exception as error:  # torch.compile, a driver or a library: each has errors of its own.
            self.exhausted = out_of_memory(error)
            if self.case.required and not self.exhausted:
                raise
            self.runner = None
            self.reason = _no_memory(error) if self.exhausted else _reason(error)
        if self.reason:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of the GPU, torch's cache emptied; None on a CPU."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _agreement(
    runner: Runner, reference: torch.nn.Module, precision: str, images: Tensor, batch_size: int
) -> ParityReport:
    """The runner's distance to its reference. Its outputs are copied: the next call of a CUDA graph overwrites them."""

    def copied(batch: Tensor) -> tuple[Tensor, Tensor]:
        loc, conf = runner(batch)
        return loc.clone(), conf.clone()

    tf32 = precision == "tf32"
    computed = "fp32" if tf32 else precision
    report = parity.compare(copied, reference, images, precision=computed, batch_sizes=(batch_size,))
    return replace(report, precision="tf32", bound=config.TF32_BOUND) if tf32 else report


def _no_memory(error: Exception) -> str:
    return f"out of memory ({_reason(error)})"


def _reason(error: Exception) -> str:
    """The error in one line: ours as it is, another's with its type."""
    kind = type(error).__name__
    line = first_line(error, empty=kind)
    return line if isinstance(error, SsdtrtError) or line == kind else f"{kind}: {line}"
