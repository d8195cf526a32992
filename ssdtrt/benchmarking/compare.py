"""Two benchmark reports set against each other, row by row. No torch here."""

from __future__ import annotations

from pathlib import Path

from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.report_file import Record, Row
from ssdtrt.errors import ReportError
from ssdtrt.system.report import Report

ROUNDING = 1e-9  # so that a limit that is just met is met
# What must be the same for figures to be comparable, and what a reader should know of: names by the keys in a report.
DEVICE = {"gpu": "GPU", "sm": "compute capability"}
PROCESSOR = {"cpu": "processor", "cores": "cores", "architecture": "architecture", "os": "operating system"}
GPU_VERSIONS = {"torch": "torch", "cuda": "CUDA", "torch_tensorrt": "Torch-TensorRT", "tensorrt": "TensorRT"}
CPU_VERSIONS = {"torch": "torch"}
SETTINGS = {"clock": "clock", "tf32": "TF32", "cudnn_benchmark": "cudnn.benchmark", "input_sets": "input sets"}
WORTH_KNOWING = {"driver": "driver", "python": "Python"}


class ComparedRow(Report, frozen=True):
    """One runner at one batch size in both reports: the median milliseconds of a batch, None where there are none.

    `change` is new over old, less 1. `verdict` is same, or failed, missing or new, where the new report says that it
    failed, lacks it, or alone has it; `slower` where it is slower than allowed. `reason` says why it failed.
    """

    runner: str
    batch_size: int
    is_file: bool
    old_ms: float | None
    new_ms: float | None
    verdict: str
    reason: str | None = None

    @property
    def change(self) -> float | None:
        """0.05 where the new report's median is 5 % longer; None where either has none."""
        return None if self.old_ms is None or self.new_ms is None else self.new_ms / self.old_ms - 1

    def as_dict(self) -> dict:
        return {**super().as_dict(), "change": self.change}


class CompareReport(Report, frozen=True):
    """What became of each row. `limit` is the slowdown allowed (0.05 for 5 %), None where nothing is demanded.

    `failures` are the rows that broke it, one sentence each, `notes` what a reader must know.
    """

    old: str
    new: str
    machine: dict
    limit: float | None
    files_only: bool
    rows: tuple[ComparedRow, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing broke the limit."""
        return not self.failures

    def as_dict(self) -> dict:
        rows = [row.as_dict() for row in self.rows]
        return {"schema": 1, "kind": "compare", "passed": self.passed, **super().as_dict(), "rows": rows}


def compare_files(
    old: str | Path, new: str | Path, *, limit: float | None = None, files_only: bool = False, force: bool = False
) -> CompareReport:
    """The report saved at `new` against the one at `old`.

    A row that is slower by more than `limit` (0.05: 5 %), or that `new` lacks or has no figures of, is a failure; with
    `files_only` only the rows of files are held to it. Raises ReportError where the two are not comparable (unless
    `force`), have no measured row in common, or are no benchmark's reports.
    """
    return compare(report_file.read(old), report_file.read(new), limit, files_only, force)


def compare(
    old: Record, new: Record, limit: float | None = None, files_only: bool = False, force: bool = False
) -> CompareReport:
    """As `compare_files`, for reports that were read."""
    differing = differences(old, new)
    if differing and not force:
        raise ReportError(
            f"{old.source} and {new.source} cannot be compared: {'; '.join(differing)}. "
            "Measure both on one kind of machine with the same versions and settings, or give --force."
        )
    then, now = ({row.key: row for row in record.rows} for record in (old, new))
    keys = [*then, *(key for key in now if key not in then)]
    rows = tuple(judge(then.get(key), now.get(key), limit, files_only) for key in keys)
    held = [row for row in rows if row.is_file or not files_only]
    if all(row.change is None for row in held):
        which = "row of a file" if files_only else "row"
        raise ReportError(
            f"{old.source} and {new.source} have no measured {which} in common: {labels(old)} against {labels(new)}. "
            "Rows belong together by peer, file name, precision and batch size: measure the same again."
        )
    broken = [row for row in held if row.verdict in BROKEN] if limit is not None else []
    failures = tuple(sentence(row, limit, new) for row in broken)
    notes = [f"compared although they differ: {text}" for text in differing] + remarks(old, new)
    return CompareReport(old.source, new.source, new.machine, limit, files_only, rows, failures, tuple(notes))


BROKEN = ("slower", "failed", "missing")


def judge(old: Row | None, new: Row | None, limit: float | None, files_only: bool) -> ComparedRow:
    """What became of one row; one of the two may be missing."""
    row = new or old
    times = [None if one is None else one.median_ms for one in (old, new)]
    if old is None or new is None:
        verdict = "new" if old is None else "missing"
    elif new.median_ms is None:
        verdict = "same" if old.median_ms is None else "failed"
    else:
        free = limit is None or old.median_ms is None or (files_only and not row.is_file)
        slower = not free and new.median_ms > old.median_ms * (1 + limit) * (1 + ROUNDING)
        verdict = "slower" if slower else "same"
    return ComparedRow(row.runner, row.batch_size, row.is_file, *times, verdict, None if new is None else new.reason)


def sentence(row: ComparedRow, limit: float, new: Record) -> str:
    """How a row broke the limit."""
    label = f"{row.runner}, batch {row.batch_size}"
    if row.verdict == "missing":
        return f"{label} is not in {new.source}; expected every row of the old report. Measure it too."
    if row.verdict == "failed":
        return f"{label} failed ({row.reason}); expected at most {100 * limit:g} % over {row.old_ms:.3f} ms."
    return (
        f"{label} takes {row.new_ms:.3f} ms, {100 * row.change:+.1f} %; "
        f"expected at most {100 * limit:g} % over {row.old_ms:.3f} ms."
    )


def differences(old: Record, new: Record) -> list[str]:
    """What makes the figures of two reports incomparable, each in words."""
    on_gpu = bool(old.machine.get("gpu") or new.machine.get("gpu"))
    found = differing(old.machine, new.machine, DEVICE if on_gpu else PROCESSOR)
    versions = (record.machine["versions"] for record in (old, new))
    found += differing(*versions, GPU_VERSIONS if on_gpu else CPU_VERSIONS)
    both = {key: name for key, name in SETTINGS.items() if key in old.settings and key in new.settings}
    return found + differing(old.settings, new.settings, both)


def remarks(old: Record, new: Record) -> list[str]:
    """What differs and may explain a small change, each in words."""
    versions = (record.machine["versions"] for record in (old, new))
    found = differing(*versions, WORTH_KNOWING)
    if old.machine.get("gpu"):
        found += differing(old.machine, new.machine, PROCESSOR)
    return found


def differing(then: dict, now: dict, names: dict[str, str]) -> list[str]:
    """The values of these keys that differ, in words."""
    return [
        f"{name} was {say(then.get(key))}, is {say(now.get(key))}"
        for key, name in names.items()
        if then.get(key) != now.get(key)
    ]


def say(value) -> str:
    """A value of a report in words."""
    return "none" if value is None else "on" if value is True else "off" if value is False else str(value)


def labels(record: Record) -> str:
    """The first rows of a report by name."""
    names = [row.label + (" (failed)" if row.median_ms is None else "") for row in record.rows]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
