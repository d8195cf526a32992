"""Results as GitHub's Markdown, and the summary of a GitHub Actions job, which shows it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ssdtrt.benchmarking.compare import CompareReport
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.commands.bench_text import (
    Table,
    bench_heading,
    bench_notes,
    bench_tables,
    compare_table,
    compare_verdict,
)

_SUMMARY = "GITHUB_STEP_SUMMARY"  # set by GitHub Actions: the file whose text is shown with the job
_SPECIAL = re.compile(r"([\\|`*_<>\[\]~$&])")


def bench_markdown(report: BenchReport) -> str:
    """Return what the terminal shows of a benchmark."""
    return page("ssdtrt bench", bench_heading(report), bench_tables(report), bench_notes(report))


def compare_markdown(report: CompareReport) -> str:
    """Return what the terminal shows of a comparison, with the failures."""
    heading = [report.machine.line, f"{report.old} to {report.new}, median ms of a batch"]
    notes = [*report.notes, *compare_verdict(report), *report.failures]
    return page("ssdtrt compare", heading, [compare_table(report)], notes)


def page(title: str, heading: Sequence[str], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return a title, the paragraphs of a heading, tables and a list of notes, with a line end."""
    parts = [f"### {_escape(title)}", *map(_escape, heading), *(_table(header, rows) for header, rows in tables)]
    if notes:
        parts.append("\n".join(f"- {_escape(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def append_summary(text: str) -> str | None:
    """Add the text to the summary of a GitHub Actions job, where there is one; return the reason where that failed."""
    path = os.environ.get(_SUMMARY)
    if not path:
        return None
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        return f"the job's summary {path} cannot be written: {error.strerror or error}"
    return None


def _escape(text: str) -> str:
    """Text that shows as it is, on one line, also in a table."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column left and the others right."""
    marks = ["---", *["--:"] * (len(header) - 1)]
    lines = [[_escape(cell) for cell in header], marks, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
