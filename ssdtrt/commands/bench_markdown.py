"""A benchmark's report as GitHub's Markdown, with what the terminal shows."""

from __future__ import annotations

from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.commands import markdown
from ssdtrt.commands.bench_text import (
    BEHIND,
    NAME,
    PARTS,
    SPEED,
    behind_cells,
    filled,
    head_lines,
    name_cells,
    part_cells,
    said,
    speed_cells,
)


def bench_markdown(report: BenchReport) -> str:
    """The machine, the speed, what stands behind it, the parts, and what a reader must know."""
    behind = [(*name_cells(row), *behind_cells(row)) for row in report.rows if row.ok]
    tables = [(NAME + SPEED, [(*name_cells(row), *speed_cells(row)) for row in report.rows])]
    tables += [filled(NAME + BEHIND, behind)] if behind else []
    tables += [(PARTS, list(map(part_cells, report.parts)))] if report.parts else []
    return markdown.page("ssdtrt bench", head_lines(report), tables, said(report))
