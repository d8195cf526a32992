"""Compare two benchmark reports, row by row. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ssdtrt import config
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.report import BenchReport, BenchRow
from ssdtrt.errors import ReportError
from ssdtrt.evaluation.compare import settings_differences
from ssdtrt.system.report import Report, differing
from ssdtrt.system.versions import MeasuredOn

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
        judged: Whether the limit is for it: a row of a file, and no baseline.
        old_ms: The old median milliseconds of a batch; None where there is none.
        new_ms: The new one.
        verdict: `same`; `slower` where it is slower than allowed; `not comparable` where neither can be said; `not judged`
            for a baseline or without a limit; or `failed`, `missing` or `new` where the new report records a failure,
            lacks the row, or alone has it.
        reason: Why it failed in the new report.
    """

    derived: ClassVar[tuple[str, ...]] = ("change",)

    runner: str
    batch_size: int
    judged: bool
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
        rows: The rows of both.
        failures: A sentence for each row that breaks the limit.
        not_comparable: A sentence for each reason why a row cannot be held to the limit.
        notes: What a reader must know.
    """

    kind = "compare"
    schema = 2
    derived: ClassVar[tuple[str, ...]] = ("passed", "verdict")

    old: str
    new: str
    machine: MeasuredOn
    limit: float | None
    rows: tuple[ComparedRow, ...]
    failures: tuple[str, ...]
    not_comparable: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every judged row keeps the limit."""
        return not self.failures and not self.not_comparable

    @property
    def verdict(self) -> str | None:
        """`passed`; `failed` where a row breaks the limit; `not comparable`; or None without a limit."""
        if self.limit is None:
            return None
        return "failed" if self.failures else "not comparable" if self.not_comparable else "passed"


def compare_files(
    old: str | Path, new: str | Path, *, limit: float | None = None, force: bool = False
) -> CompareReport:
    """Compare the report saved at `new` with the one at `old`.

    Args:
        old: The path of a report.
        new: The path of a later one.
        limit: The slowdown allowed to the rows of files, 0.05 for 5 %. One that is slower, or that `new` lacks or has no
            figures of, is a failure. One cannot be judged where its times vary by more than the limit, or where at its
            batch size the baseline that tells of the machine (config.MACHINE_CASES) does, or moved by more.
        force: Compare also where machine, versions or settings differ.

    Returns:
        What changed, and what broke the limit.

    Raises:
        ReportError: Where a file holds no benchmark report, the two cannot be compared, or no measured row is in both.
    """
    reports = report_file.read(old), report_file.read(new)
    return compare(*reports, sources=(str(old), str(new)), limit=limit, force=force)


def compare(
    old: BenchReport,
    new: BenchReport,
    *,
    sources: tuple[str, str] = ("the old report", "the new report"),
    limit: float | None = None,
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
    judged = {row.key for report in (old, new) for row in report.judged}
    pairs = [(key, then.get(key), now.get(key)) for key in [*then, *(key for key in now if key not in then)]]
    doubts = _Doubts(old, new, sources, limit)
    rows = tuple(_compared(before, after, key in judged, doubts) for key, before, after in pairs)
    failures = []
    if limit is not None:
        failures = [_violation(row, limit, sources[1]) for row in rows if row.judged and row.verdict in _VIOLATIONS]
    held = [row for row in rows if row.judged or limit is None or failures]
    if all(row.change is None for row in held):
        which = "row" if limit is None or failures else "row of a file"
        raise ReportError(
            f"{names} have no measured {which} in common: {_labels(old)} against {_labels(new)}. "
            "Rows belong together by case, file name, precision and batch size: measure the same again."
        )
    notes = [f"compared although they differ: {text}" for text in different] + _remarks(old, new) + doubts.notes
    notes += _accuracy_notes(old, new, pairs)
    reasons = tuple(dict.fromkeys(doubts.reasons))
    return CompareReport(*sources, new.machine, limit, rows, tuple(failures), reasons, tuple(notes))


class _Doubts:
    """Why rows cannot be held to a limit, collected while they are compared: `reasons`, and `notes` of what is unknown."""

    def __init__(self, old: BenchReport, new: BenchReport, sources: tuple[str, str], limit: float | None):
        self.limit, self.sources = limit, sources
        self.case = config.MACHINE_CASES["cuda" if new.machine.gpu else "cpu"]
        self.machine = [
            {row.batch_size: row for row in report.rows if row.case == self.case and row.ok} for report in (old, new)
        ]
        self.reasons: list[str] = []
        self.lacking: dict[str, list[int]] = {}  # batch sizes by what a report lacks

    @property
    def notes(self) -> list[str]:
        """What a report lacks, so that less is known than of today's reports."""
        return [f"{words} at batch {', '.join(map(str, dict.fromkeys(at)))}" for words, at in self.lacking.items()]

    def about(self, old: BenchRow, new: BenchRow, limit: float) -> bool:
        """Whether a measured row cannot be held to the limit; the reasons are added."""
        found = self._varying(old, new, limit)
        machine = [rows.get(new.batch_size) for rows in self.machine]
        for row, source in zip(machine, self.sources):
            if row is None:
                self._lacks(f"whether the machine changed is not known: {source} has no measured {self.case}", new)
        before, after = machine
        if before is not None and after is not None:
            found += self._varying(before, after, limit) + self._moved(before, after, limit)
        self.reasons += found
        return bool(found)

    def _lacks(self, words: str, row: BenchRow) -> None:
        self.lacking.setdefault(words, []).append(row.batch_size)

    def _varying(self, old: BenchRow, new: BenchRow, limit: float) -> list[str]:
        """How a row's times vary by more than the limit, a sentence for each report."""
        found = []
        for row, source in zip((old, new), self.sources):
            variation = row.coefficient_of_variation
            if variation is None:
                self._lacks(f"{source} does not record how much times vary", row)
            elif variation > limit * (1 + config.LIMIT_ROUNDING):
                found.append(
                    f"{row.label} varies by {100 * variation:.1f} % in {source}; expected at most the limit, "
                    f"{100 * limit:g} %. Measure again where nothing else runs, or allow more."
                )
        return found

    def _moved(self, old: BenchRow, new: BenchRow, limit: float) -> list[str]:
        """How the baseline that tells of the machine moved by more than the limit, to either side."""
        assert old.median_ms is not None and new.median_ms is not None
        change = new.median_ms / old.median_ms - 1
        if abs(change) <= limit + config.LIMIT_ROUNDING:
            return []
        return [
            f"The machine changed: {new.label} took {old.median_ms:.3f} ms and takes {new.median_ms:.3f} ms, "
            f"{100 * change:+.1f} %; expected at most {100 * limit:g} % to either side. Measure again where nothing else "
            f"runs; if it stays so, record {self.sources[0]} again."
        ]


def _compared(old: BenchRow | None, new: BenchRow | None, judged: bool, doubts: _Doubts) -> ComparedRow:
    """How one row changed; one of the two may be missing."""
    row = new or old
    assert row is not None
    old_ms, new_ms = (one.median_ms if one is not None and one.ok else None for one in (old, new))
    limit = doubts.limit
    if old is None or new is None:
        verdict = "new" if old is None else "missing"
    elif new_ms is None and old_ms is not None:
        verdict = "failed"
    elif limit is None or old_ms is None or new_ms is None or not judged:
        verdict = "not judged"
    elif doubts.about(old, new, limit):
        verdict = "not comparable"
    else:
        verdict = "slower" if new_ms > old_ms * (1 + limit) * (1 + config.LIMIT_ROUNDING) else "same"
    reason = None if new is None or new.ok else new.reason
    return ComparedRow(row.runner, row.batch_size, judged, old_ms, new_ms, verdict, reason)


def _violation(row: ComparedRow, limit: float, source: str) -> str:
    """How a row breaks the limit."""
    label, allowed = f"{row.runner}, batch {row.batch_size}", f"expected at most {100 * limit:g} % over"
    if row.verdict == "missing":
        return f"{label} is not in {source}; expected every row of a file in the old report. Measure it too."
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


def _accuracy_notes(
    old: BenchReport, new: BenchReport, pairs: Sequence[tuple[object, BenchRow | None, BenchRow | None]]
) -> list[str]:
    """How the AP of each runner changed, or why that is not known."""
    if old.settings.evaluation is None or new.settings.evaluation is None:
        return []
    different = settings_differences(old.settings.evaluation, new.settings.evaluation)
    notes = []
    for _, before, after in pairs:
        then, now = (row.accuracy if row else None for row in (before, after))
        if after is None or then is None or now is None or then.ap is None or now.ap is None:
            continue
        if then.images != now.images:
            different.append(f"number of pictures was {then.images}, is {now.images}")
        elif then.ap != now.ap:
            notes.append(f"AP of {after.runner} was {then.ap:.4f}, is {now.ap:.4f}")
    if different:
        return [f"AP is not compared: {'; '.join(dict.fromkeys(different))}"]
    return list(dict.fromkeys(notes))


def _labels(report: BenchReport) -> str:
    """The first rows of a report by name."""
    names = [row.label + ("" if row.ok else " (failed)") for row in report.rows]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
