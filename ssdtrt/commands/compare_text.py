"""A comparison of two benchmark reports as text and as Markdown."""

from __future__ import annotations

from ssdtrt.benchmarking.compare import ComparedRow, CompareReport
from ssdtrt.commands import markdown
from ssdtrt.commands.report_text import machine_line, milliseconds, table

HEADER = ("runner", "batch", "old ms", "new ms", "change")
IN_WORDS = {"missing": "only in old", "new": "only in new", "failed": "failed in new"}


def cells(row: ComparedRow) -> tuple[str, ...]:
    """The cells of one row, as HEADER names them."""
    times = ("-" if time is None else milliseconds(time) for time in (row.old_ms, row.new_ms))
    return row.runner, str(row.batch_size), *times, change(row)


def change(row: ComparedRow) -> str:
    """How much slower the new one is, or which of the two there is."""
    if row.change is None:
        return IN_WORDS.get(row.verdict, "not measured")
    return f"{100 * row.change:+.1f} %" + (" SLOWER" if row.verdict == "slower" else "")


def verdict(report: CompareReport) -> str | None:
    """Whether the limit holds, in words; None where there is none."""
    if report.limit is None:
        return None
    rows = "row of a file" if report.files_only else "row"
    if report.passed:
        return f"passed: no {rows} is slower by more than {100 * report.limit:g} %"
    return f"FAILED: {len(report.failures)} of the rows broke the limit of {100 * report.limit:g} %"


def compare_text(report: CompareReport, width: int) -> str:
    """The machine, both reports, the rows, what a reader must know, and the verdict."""
    lines = [machine_line(report.machine), f"{report.old} -> {report.new}, median ms of a batch", ""]
    lines.append(table(HEADER, [cells(row) for row in report.rows], width))
    lines += [f"note: {note}" for note in report.notes]
    lines += filter(None, [verdict(report)])
    return "\n".join(lines)


def compare_markdown(report: CompareReport) -> str:
    """The same for GitHub, with the failures."""
    about = [machine_line(report.machine), f"{report.old} to {report.new}, median ms of a batch"]
    notes = [*report.notes, *filter(None, [verdict(report)]), *report.failures]
    return markdown.page("ssdtrt compare", about, [(HEADER, [cells(row) for row in report.rows])], notes)
