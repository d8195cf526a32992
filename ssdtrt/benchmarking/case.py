"""One runner at one batch size: made, warmed up, timed and compared, and what becomes of it when one of those fails."""

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
from ssdtrt.benchmarking.timing import Samples, host_time, time_calls
from ssdtrt.diagnosis.probe import one_line
from ssdtrt.engine import parity
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import SsdtrtError
from ssdtrt.system import gpu_errors

HOST_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # of torch's CPU allocators, and TensorRT
LONGEST = 200  # characters of a reason


@dataclass(frozen=True)
class Contender:
    """What is to be measured. `make` gives its runner, and may raise where it cannot run here.

    `reference` is the FP32 eager model that it is compared with. `compiles` says that its first call compiles or
    captures, `weighs` that memory is measured while it is made. A failure of what is `required` is raised.
    """

    name: str
    precision: str
    make: Callable[[], Runner]
    peer: str = ""
    file: Path | None = None
    build_seconds: float | None = None
    reference: torch.nn.Module | None = field(default=None, repr=False)
    compiles: bool = False
    weighs: bool = False
    required: bool = False


class Trial:
    """A contender at one batch size, which holds what was measured of it, or the `reason` why nothing was."""

    def __init__(self, contender: Contender, inputs: Sequence[Tensor]):
        self.contender, self.inputs, self.samples = contender, inputs, Samples()
        self.runner: Runner | None = None
        self.first_call_ms: float | None = None
        self.compile_seconds: float | None = None
        self.memory_mib: float | None = None
        self.agreement: ParityReport | None = None
        self.reason, self.exhausted = "", False

    @classmethod
    def too_large(cls, contender: Contender, batch_size: int, error: Exception) -> Trial:
        """The trial of a contender for which there was no memory, not even for its images."""
        trial = cls(contender, [torch.empty(batch_size, 0)])
        trial.exhausted, trial.reason = True, no_memory(error)
        return trial

    def prepare(self, warmup: int) -> None:
        """Makes the runner and warms it up with `warmup` calls, the first of them timed; one more where it compiles."""
        images = self.inputs[0]
        with self.guarded():
            before = free_memory(images.device) if self.contender.weighs else None
            runner = self.contender.make()
            if self.contender.compiles:
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
        """One round."""
        with self.guarded():
            if self.runner is not None:
                self.samples.take(self.runner, self.inputs, iterations)

    def compare(self, images: Tensor) -> str:
        """Compares with FP32 at this batch size, and lets the runner go; why that could not be done, or ""."""
        contender, runner, self.runner = self.contender, self.runner, None
        try:
            if runner is not None and contender.reference is not None:
                self.agreement = agreement(runner, contender, images, len(self.inputs[0]))
        except Exception as error:
            if not out_of_memory(error):
                raise
            return f"{contender.name}, batch {len(self.inputs[0])}: agreement not compared, out of memory"
        finally:
            getattr(runner, "close", lambda: None)()
        return ""

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, a failure ends the trial and becomes its reason; what is required raises, but for memory."""
        try:
            yield
        except Exception as error:  # torch.compile, a driver or a library: each has errors of its own.
            self.exhausted = out_of_memory(error)
            if self.contender.required and not self.exhausted:
                raise
            self.runner = None
            self.reason = no_memory(error) if self.exhausted else reason_of(error)
        if self.reason:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def row(self, baseline: Samples | None) -> BenchRow:
        """What became of it, its speed-up over the samples of `baseline` where there are any."""
        contender = self.contender
        row = BenchRow(
            name=contender.name,
            precision=contender.precision,
            batch_size=len(self.inputs[0]),
            peer=contender.peer,
            file=str(contender.file) if contender.file else None,
            build_seconds=contender.build_seconds,
        )
        if self.reason:
            return replace(row, status="failed", reason=self.reason, build_seconds=None)
        return replace(
            row,
            **self.samples.figures(row.batch_size, baseline),
            memory_mib=self.memory_mib,
            first_call_ms=self.first_call_ms,
            compile_seconds=self.compile_seconds,
            agreement=self.agreement,
        )


def agreement(runner: Runner, contender: Contender, images: Tensor, batch_size: int) -> ParityReport:
    """The runner against its reference. Its answers are copied: the next call of a graph overwrites them."""

    def copied(batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in runner(batch))

    tf32 = contender.precision == "tf32"
    precision = "fp32" if tf32 else contender.precision
    report = parity.compare(copied, contender.reference, images, precision=precision, batch_sizes=(batch_size,))
    return replace(report, precision="tf32", bound=config.TF32_BOUND) if tf32 else report


def free_memory(device: torch.device) -> int | None:
    """Bytes of the GPU that nobody holds, torch's cache emptied; None on a CPU."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def out_of_memory(error: BaseException | None) -> bool:
    """Whether this is how torch, or a library below it, says that memory ran out, on a GPU or on the host.

    What a capture raises when it ends early says nothing; what ended it does, and is looked at too.
    """
    while error is not None:
        if isinstance(error, MemoryError) or gpu_errors.out_of_memory(error):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in HOST_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_memory(error: Exception) -> str:
    """The reason of a trial that memory ended."""
    return f"out of memory ({reason_of(error)})"


def reason_of(error: Exception) -> str:
    """The error in one line: ours as it is, another with its type, and a second line where the first announces it."""
    said = " ".join(str(error).split()) if isinstance(error, SsdtrtError) else one_line(error)
    following = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    if said.endswith(":") and following:
        said = f"{said} {following[0]}"
    return said if len(said) <= LONGEST else said[: LONGEST - 3].rstrip() + "..."
