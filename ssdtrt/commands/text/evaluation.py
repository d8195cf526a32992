"""An evaluation and a comparison of two, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ssdtrt.commands.text.tables import Table, fill, markdown_page, shorten, table
from ssdtrt.evaluation.compare import ComparedFigure, EvalComparison
from ssdtrt.evaluation.report import FIGURES, EvalReport
from ssdtrt.reporting.numbers import difference, fraction
from ssdtrt.system.report import counted

_COMPARED = ("old", "new", "change")
_SHORTEST = 8  # characters of a class's name


def evaluation_text(report: EvalReport, width: int) -> str:
    """Return COCO's figures, with those of the baselines and the differences, then all classes, and the notes."""
    figures, classes = _tables(report)
    parts = [
        "\n".join(fill(line, width) for line in _heading(report)),
        table(*figures, width),
        _narrowed(*classes, width),
    ]
    if report.notes:
        parts.append("\n".join(fill(f"note: {note}", width) for note in report.notes))
    return "\n\n".join(parts)


def evaluation_markdown(report: EvalReport, problems: Sequence[object] = ()) -> str:
    """Return what the terminal shows of an evaluation, and the problems that end it with exit code 1."""
    notes = [*(f"note: {note}" for note in report.notes), *map(str, problems)]
    return markdown_page("ssdtrt evaluate", _heading(report), _tables(report), notes)


def _heading(report: EvalReport) -> list[str]:
    """Return what was evaluated, and how."""
    settings = report.settings
    return [
        *([report.machine.line] if report.machine else []),
        f"{report.name} {report.precision.upper()} on {settings.annotations}: {counted(report.images, 'picture')}, "
        f"{counted(report.objects, 'object')}, {counted(report.detections, 'detection')}, {report.images_per_second:,.1f} images/s",
        f"score > {settings.min_score:g}, NMS at IoU {settings.nms_iou:g}, at most {settings.max_detections} "
        f"detections a picture, EXIF orientation {'applied' if settings.orient else 'ignored'}",
    ]


def _tables(report: EvalReport) -> list[Table]:
    """Return the figures, and the classes by AP, those without objects last."""
    header = ["figure", "engine" if report.against else "value"]
    for baseline in report.against:
        header += [baseline.name, f"vs {baseline.name}"]
    ordered = sorted(report.classes, key=lambda row: (row.ap is None, -(row.ap or 0.0)))
    rows = [(row.name, fraction(row.ap), fraction(row.ap50), str(row.objects)) for row in ordered]
    return [(header, [_figure_cells(report, name) for name in FIGURES]), (("class", "AP", "AP50", "objects"), rows)]


def _figure_cells(report: EvalReport, name: str) -> list[str]:
    """Return one figure of the report, then for each baseline its figure and the signed difference to it."""
    cells = [name, fraction(report.figures[name])]
    for baseline in report.against:
        cells += [fraction(baseline.figures[name]), difference(report.minus(baseline)[name])]
    return cells


def compare_text(report: EvalComparison, width: int) -> str:
    """Return both reports, the figures, the classes, what a reader must know, and the verdict."""
    figures, classes = _compared_tables(report)
    parts = ["\n".join(fill(line, width) for line in _compared_heading(report)), table(*figures, width)]
    parts.append(_narrowed(*classes, width))
    if lines := [*(f"note: {note}" for note in report.notes), *_verdict(report)]:
        parts.append("\n".join(fill(line, width) for line in lines))
    return "\n\n".join(parts)


def compare_markdown(report: EvalComparison) -> str:
    """Return what the terminal shows of a comparison, with the failures."""
    notes = [*report.notes, *_verdict(report), *report.failures]
    return markdown_page("ssdtrt compare", _compared_heading(report), _compared_tables(report), notes)


def _compared_heading(report: EvalComparison) -> list[str]:
    return [f"{name}: {evaluated}" for name, evaluated in zip((report.old, report.new), report.evaluated)]


def _compared_tables(report: EvalComparison) -> list[Table]:
    """Return the figures, and the AP of the classes, those that fell most first."""
    ordered = sorted(report.classes, key=lambda row: (row.change is None, row.change or 0.0))
    return [
        (("figure", *_COMPARED), [_compared_cells(row) for row in report.figures]),
        (("class AP", *_COMPARED), [_compared_cells(row) for row in ordered]),
    ]


def _compared_cells(row: ComparedFigure) -> tuple[str, ...]:
    return row.name, fraction(row.old), fraction(row.new), difference(row.change)


def _verdict(report: EvalComparison) -> list[str]:
    """Return a line on whether the limit holds; none where there is no limit."""
    if report.limit is None:
        return []
    if report.failures:
        return [f"FAILED: AP broke the limit of {report.limit:g}"]
    return [f"passed: AP did not fall by more than {report.limit:g}"]


def _narrowed(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Return a table whose names are shortened if it is too wide."""
    room = width - sum(2 + max(map(len, column)) for column in list(zip(header, *rows))[1:])
    return table(header, [(shorten(name, max(room, _SHORTEST)), *cells) for name, *cells in rows], width)
