"""Compare two benchmark reports, row by row. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.report import BenchReport, BenchRow
from ssdtrt.errors import ReportError
from ssdtrt.system.report import Report, differing
from ssdtrt.system.versions import MeasuredOn

_ROUNDING = 1e-9  # so that a limit that is just met is met
_VIOLATIONS = ("slower", "failed", "missing")  # the verdicts that break a limit
# What must be the same for figures to be comparable, and what a reader should know of: words by the name of a field.
_DEVICE = {"gpu": "GPU", "sm": "compute capability"}
_PROCESSOR = {"cpu": "processor", "cores": "cores", "architecture": "architecture", "os": "operating system"}
_GPU_VERSIONS = {"torch": "torch", "cuda": "CUDA", "torch_tensorrt": "Torch-TensorRT", "tensorrt": "TensorRT"}
_CPU_VERSIONS = {"torch": "torch"}
_SETTINGS = {"clock": "clock", "tf32": "TF32", "cudnn_benchmark": "cudnn.benchmark", "input_sets": "input sets"}
_WORTH_KNOWING = {"driver": "driver", "python": "Python"}


class ComparedRow(Report, frozen=True):
    """One benchmark case at one batch size in both reports.

    Attributes:
        runner: What was measured, such as `b8.engine.ts FP16`.
        batch_size: The images of a batch.
        is_file: Whether it is a file, and not a baseline.
        old_ms: The old median milliseconds of a batch; None where there is none.
        new_ms: The new one.
        verdict: `same`; `slower` where it is slower than allowed; or `failed`, `missing` or `new` where the new report
            records a failure, lacks the row, or alone has it.
        reason: Why it failed in the new report.
    """

    derived: ClassVar[tuple[str, ...]] = ("change",)

    runner: str
    batch_size: int
    is_file: bool
    old_ms: float | None
    new_ms: float | None
    verdict: str
    reason: str | None = None

    @property
    def change(self) -> float | None:
        """0.05 where the new median is 5 % longer; None where either report has none."""
        return None if self.old_ms is None or self.new_ms is None else self.new_ms / self.old_ms - 1


class CompareReport(Report, frozen=True):
    """How each row changed from one report to the next.

    Attributes:
        old: The file of the old report.
        new: The file of the new one.
        machine: The machine of the new one.
        limit: The slowdown allowed, 0.05 for 5 %; None without a limit.
        files_only: Whether the limit is for the rows of files only.
        rows: The rows of both.
        failures: A sentence for each row that breaks the limit.
        notes: What a reader must know.
    """

    kind = "compare"
    derived: ClassVar[tuple[str, ...]] = ("passed",)

    old: str
    new: str
    machine: MeasuredOn
    limit: float | None
    files_only: bool
    rows: tuple[ComparedRow, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no row breaks the limit."""
        return not self.failures


def compare_files(
    old: str | Path, new: str | Path, *, limit: float | None = None, files_only: bool = False, force: bool = False
) -> CompareReport:
    """Compare the report saved at `new` with the one at `old`.

    Args:
        old: The path of a report.
        new: The path of a later one.
        limit: The slowdown allowed, 0.05 for 5 %. A row that is slower, or that `new` lacks or has no figures of, is a
            failure.
        files_only: Hold only the rows of files to the limit, not the baselines.
        force: Compare also where machine, versions or settings differ.

    Returns:
        What changed, and what broke the limit.

    Raises:
        ReportError: Where a file holds no benchmark report, the two are not comparable, or no measured row is in both.
    """
    reports = report_file.read(old), report_file.read(new)
    return compare(*reports, sources=(str(old), str(new)), limit=limit, files_only=files_only, force=force)


def compare(
    old: BenchReport,
    new: BenchReport,
    *,
    sources: tuple[str, str] = ("the old report", "the new report"),
    limit: float | None = None,
    files_only: bool = False,
    force: bool = False,
) -> CompareReport:
    """Compare two reports as `compare_files` does; `sources` names them in messages."""
    old, new = old.with_file_names, new.with_file_names
    names = " and ".join(sources)
    different = differences(old, new)
    if different and not force:
        raise ReportError(
            f"{names} cannot be compared: {'; '.join(different)}. "
            "Measure both on one kind of machine with the same versions and settings, or give --force."
        )
    then, now = ({row.key: row for row in report.rows} for report in (old, new))
    keys = [*then, *(key for key in now if key not in then)]
    rows = tuple(_judge(then.get(key), now.get(key), limit, files_only) for key in keys)
    held = [row for row in rows if row.is_file or not files_only]
    if all(row.change is None for row in held):
        which = "row of a file" if files_only else "row"
        raise ReportError(
            f"{names} have no measured {which} in common: {_labels(old)} against {_labels(new)}. "
            "Rows belong together by case, file name, precision and batch size: measure the same again."
        )
    failures = []
    if limit is not None:
        failures = [_violation(row, limit, sources[1]) for row in held if row.verdict in _VIOLATIONS]
    notes = [f"compared although they differ: {text}" for text in different] + _remarks(old, new)
    return CompareReport(*sources, new.machine, limit, files_only, rows, tuple(failures), tuple(notes))


def _judge(old: BenchRow | None, new: BenchRow | None, limit: float | None, files_only: bool) -> ComparedRow:
    """How one row changed; one of the two may be missing."""
    row = new or old
    assert row is not None
    old_ms, new_ms = (one.median_ms if one is not None and one.ok else None for one in (old, new))
    if old is None or new is None:
        verdict = "new" if old is None else "missing"
    elif new_ms is None:
        verdict = "same" if old_ms is None else "failed"
    elif limit is None or old_ms is None or (files_only and not row.is_file):
        verdict = "same"
    else:
        verdict = "slower" if new_ms > old_ms * (1 + limit) * (1 + _ROUNDING) else "same"
    reason = None if new is None or new.ok else new.reason
    return ComparedRow(row.runner, row.batch_size, row.is_file, old_ms, new_ms, verdict, reason)


def _violation(row: ComparedRow, limit: float, source: str) -> str:
    """How a row breaks the limit."""
    label, allowed = f"{row.runner}, batch {row.batch_size}", f"expected at most {100 * limit:g} % over"
    if row.verdict == "missing":
        return f"{label} is not in {source}; expected every row of the old report. Measure it too."
    if row.verdict == "failed":
        return f"{label} failed ({row.reason}); {allowed} {row.old_ms:.3f} ms."
    return f"{label} takes {row.new_ms:.3f} ms, {100 * (row.change or 0.0):+.1f} %; {allowed} {row.old_ms:.3f} ms."


def differences(old: BenchReport, new: BenchReport) -> list[str]:
    """Return what makes the figures of two reports incomparable, each in words."""
    on_gpu = bool(old.machine.gpu or new.machine.gpu)
    found = differing(old.machine, new.machine, _DEVICE if on_gpu else _PROCESSOR)
    found += differing(old.machine.versions, new.machine.versions, _GPU_VERSIONS if on_gpu else _CPU_VERSIONS)
    recorded = {
        name: words
        for name, words in _SETTINGS.items()
        if None not in (getattr(old.settings, name), getattr(new.settings, name))
    }
    return found + differing(old.settings, new.settings, recorded)


def _remarks(old: BenchReport, new: BenchReport) -> list[str]:
    """What differs and may explain a small change, each in words."""
    found = differing(old.machine.versions, new.machine.versions, _WORTH_KNOWING)
    return found + differing(old.machine, new.machine, _PROCESSOR) if old.machine.gpu else found


def _labels(report: BenchReport) -> str:
    """The first rows of a report by name."""
    names = [row.label + ("" if row.ok else " (failed)") for row in report.rows]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
