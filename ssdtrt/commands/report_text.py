"""Results as text for a terminal: a table where there is room, a list where there is not."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.detection.results import ImageDetections
from ssdtrt.diagnosis.report import TRIAL, DoctorReport, Finding
from ssdtrt.evaluation.report import FIGURES, EvalReport

if TYPE_CHECKING:
    from ssdtrt.detection.sinks import Summary


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Rows under a header, the first column left and the others right; one value a line when wider than `width`."""
    columns = list(zip(header, *rows))
    sizes = [max(map(len, column)) for column in columns]
    if sum(sizes) + 2 * (len(sizes) - 1) > width:
        return "\n\n".join(stacked(header, row) for row in rows)
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(sizes[0]), *(cell.rjust(size) for cell, size in zip(row[1:], sizes[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def stacked(header: Sequence[str], row: Sequence[str]) -> str:
    """One row as `name: value` lines under its first value."""
    return "\n".join([row[0], *(f"  {name}: {cell}" for name, cell in zip(header[1:], row[1:]))])


def share(report: ParityReport) -> str:
    """The share of matched detections in words: never a percentage of nothing."""
    found = report.detections
    return "none to compare" if found.share is None else f"{100 * found.share:.1f} %"


def milliseconds(value: float) -> str:
    """Three significant digits or better."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def machine_line(machine: dict) -> str:
    """What the figures were measured on."""
    return ", ".join([machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores", *version_parts(machine)])


VERSIONS_SHOWN = (("torch_tensorrt", "Torch-TensorRT"), ("tensorrt", "TensorRT"), ("driver", "driver"))


def version_parts(machine: dict) -> list[str]:
    """The versions that decide the figures, such as `torch 2.14.0`."""
    versions = machine["versions"]
    shown = VERSIONS_SHOWN if machine["gpu"] else ()
    return [f"torch {versions['torch']}", *(f"{name} {versions[key]}" for key, name in shown if versions[key])]


def parity_text(report: ParityReport, width: int) -> str:
    """The figures of a comparison and its verdict."""
    rows = [
        (o.name, f"{o.relative_l2:.2e}", f"{report.bound:.0e}", f"{o.max_abs:.2e}", "yes" if o.finite else "NO")
        for o in report.outputs
    ]
    found = report.detections
    sizes = ", ".join(map(str, report.batch_sizes))
    change = "-" if found.max_score_change is None else f"{found.max_score_change:.4f}"
    return "\n".join(
        [
            f"{report.precision.upper()} against FP32 eager on {report.images} pictures, batch {sizes}",
            table(("output", "relative L2", "bound", "max abs", "finite"), rows, width),
            f"detections: {found.reference} FP32, {found.engine} engine, {found.matched} matched ({share(report)})",
            f"largest score change: {change}",
            "passed" if report.passed else "FAILED",
        ]
    )


def detections_text(results: Sequence[ImageDetections], width: int) -> str:
    """A line for each picture: how many objects, and the best of them."""
    rows = []
    for found in results:
        best = found.detections[0] if found.detections else None
        rows.append((found.image, str(len(found.detections)), f"{best.label} {best.score:.2f}" if best else "-"))
    return table(("picture", "objects", "best"), rows, width) if rows else "no picture was read"


def evaluation_text(report: EvalReport, width: int) -> str:
    """COCO's figures, beside those of the peers with the differences, then every class, and what was noted."""
    settings = report.settings
    head = [
        machine_line(report.machine),
        f"{report.name} {report.precision.upper()} on {settings['annotations']}: {report.images} pictures, "
        f"{report.objects} objects, {report.detections} detections, {report.images_per_second:,.1f} images/s",
        f"score > {settings['min_score']:g}, NMS at IoU {settings['nms_iou']:g}, at most {settings['max_detections']} "
        "detections a picture, EXIF orientation ignored",
    ]
    header = ["figure", "engine" if report.against else "value"]
    for peer in report.against:
        header += [peer.name, f"vs {peer.name}"]
    figures = table(header, [figure_cells(report, name) for name in FIGURES], width)
    parts = ["\n".join(fill(line, width) for line in head), figures, classes_table(report, width)]
    if report.notes:
        parts.append("\n".join(fill(f"note: {note}", width) for note in report.notes))
    return "\n\n".join(parts)


def figure_cells(report: EvalReport, name: str) -> list[str]:
    """One figure of the report, then for each peer its figure and the signed difference to it."""
    cells = [name, fraction(report.figures[name])]
    for peer in report.against:
        difference = report.minus(peer)[name]
        cells += [fraction(peer.figures[name]), "-" if difference is None else f"{difference:+.4f}"]
    return cells


def classes_table(report: EvalReport, width: int) -> str:
    """Every class, the best AP first and those without objects last; names are cut where the table is too wide."""
    ordered = sorted(report.classes, key=lambda row: (row.ap is None, -(row.ap or 0.0)))
    rows = [(row.name, fraction(row.ap), fraction(row.ap50), str(row.objects)) for row in ordered]
    room = width - sum(2 + max(map(len, column)) for column in list(zip(CLASS_HEADER, *rows))[1:])
    return table(CLASS_HEADER, [(shorten(name, max(room, 8)), *cells) for name, *cells in rows], width)


CLASS_HEADER = ("class", "AP", "AP50", "objects")


def fraction(value: float | None) -> str:
    """A figure of 0..1 with three decimals, as COCO has them."""
    return "-" if value is None else f"{value:.3f}"


def shorten(name: str, width: int) -> str:
    """The name, its end left out where it is longer than `width`."""
    return name if len(name) <= width else name[: width - 3].rstrip() + "..."


def fill(text: str, width: int) -> str:
    """A line broken at its spaces into lines no wider than `width`."""
    return textwrap.fill(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def summary_text(summary: Summary, width: int) -> str:
    """A line for each picture, the first twenty of many, and how fast it went."""
    lines = [detections_text(summary.first, width)]
    if summary.pictures > len(summary.first):
        lines.append(f"and {summary.pictures - len(summary.first)} more")
    rate = summary.images_per_second
    if summary.pictures:
        lines.append(f"{summary.detections} objects in {summary.pictures} pictures, {rate:,.1f} images/s")
    return "\n".join(lines)


def doctor_text(report: DoctorReport, width: int) -> str:
    """A line for each finding, its fix under it, and the verdict."""
    lines = [line for finding in report.findings for line in finding_lines(finding, width)]
    count = len(report.problems)
    verdict = "No problem was found. To be sure: ssdtrt doctor --build"
    if count:
        verdict = f"No TensorRT engine can be built here: {count} problem{'s' if count > 1 else ''}."
    elif any(finding.check == TRIAL for finding in report.findings):
        verdict = "A TensorRT engine can be built here."
    return "\n".join([*lines, "", fill(verdict, width)])


def finding_lines(finding: Finding, width: int) -> list[str]:
    """Status and check in columns, or above what was found where there is little room."""
    found = " ".join(finding.found.split())
    if width < 60:
        head, indent = [f"{finding.status}: {finding.check}"], "  "
    else:
        head, indent = [], " " * 27
        found = f"{finding.status:<9}{finding.check:<18}{found}"
    room = {"width": max(width, 20), "break_long_words": False, "break_on_hyphens": False}
    lines = textwrap.wrap(found, initial_indent="" if not head else indent, subsequent_indent=indent, **room)
    if finding.fix:
        lines += textwrap.wrap(f"fix: {finding.fix}", initial_indent=indent, subsequent_indent=indent + "  ", **room)
    return head + lines


def as_json(result) -> str:
    """A result as indented JSON."""
    return json.dumps(result.as_dict(), indent=1)
