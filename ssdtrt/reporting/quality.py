"""The agreement with FP32, the accuracy on annotated pictures, and comparisons of reports."""

from __future__ import annotations

from xml.etree import ElementTree

from ssdtrt.benchmarking.compare import CompareReport
from ssdtrt.evaluation.compare import EvalComparison
from ssdtrt.evaluation.report import FIGURES, EvalReport
from ssdtrt.reporting.elements import Content, bullets, element, section, table
from ssdtrt.reporting.numbers import difference, fraction, match_rate, milliseconds, scientific
from ssdtrt.reporting.sources import Agreement, Reports
from ssdtrt.system.report import counted

_AGREEMENT = (
    "compared", "verdict", "type", "pictures", "batch", "loc", "conf", "bound", "objects of FP32", "its own", "matched",
    "score change",
)  # fmt: skip
_MEANINGS = {
    "AP": "average precision, IoU 0.50 to 0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "small objects",
    "APm": "medium objects",
    "APl": "large objects",
    "AR1": "average recall, 1 detection a picture",
    "AR10": "10 detections",
    "AR100": "100 detections",
    "ARs": "small objects",
    "ARm": "medium objects",
    "ARl": "large objects",
}


def agreement_section(reports: Reports, missing: list[str]) -> ElementTree.Element | None:
    """Return every comparison with FP32; None without any."""
    if not reports.agreements:
        missing.append("Agreement with FP32: none of the files has it. ssdtrt verify --json writes it.")
        return None
    for name, bench in reports.benches:
        labels = [row.label for row in bench.with_file_names.rows if row.ok and row.is_file and row.agreement is None]
        missing += [f"The agreement of {label} with FP32 ({name})." for label in labels]
    text = (
        "The outputs beside those of the FP32 model on the same pictures: loc and conf are relative L2 distances, and "
        "pass up to the bound. Objects match where class and place are the same (IoU at least 0.5); they do not count "
        "for the verdict."
    )
    failures = [f"{one.what}: {one.parity.failure}" for one in reports.agreements if one.parity.failure]
    rows = [_agreement_cells(one) for one in reports.agreements]
    shown = table("Comparisons with FP32", _AGREEMENT, rows, texts=3)
    return section("Agreement with FP32", element("p", text), shown, bullets(failures, "failures"))


def _agreement_cells(one: Agreement) -> list[Content]:
    """The cells of _AGREEMENT."""
    parity, found = one.parity, one.parity.detections
    distances = {output.name: scientific(output.relative_l2, 2) for output in parity.outputs}
    change = "-" if found.max_score_change is None else f"{found.max_score_change:.4f}"
    return [
        element("span", one.what, " ", element("small", one.source)),
        verdict(parity.passed),
        parity.precision.upper(),
        str(parity.images),
        ", ".join(map(str, parity.batch_sizes)),
        distances.get("loc", "-"),
        distances.get("conf", "-"),
        f"{parity.bound:.0e}",
        str(found.reference),
        str(found.engine),
        match_rate(found),
        change,
    ]


def verdict(passed: bool, text: str | None = None) -> ElementTree.Element:
    """Return `passed` or `FAILED`, or in its place another text in capitals, such as `not comparable`."""
    return element(
        "strong", "passed" if passed else (text or "failed").upper(), class_="passed" if passed else "failed"
    )


def accuracy_section(reports: Reports, missing: list[str]) -> ElementTree.Element | None:
    """Return COCO's figures of each evaluation; None without any."""
    if not reports.evaluations:
        # The section on speed has the AP of a benchmark.
        if not any(row.accuracy for _, bench in reports.benches for row in bench.rows):
            missing.append(
                "Accuracy: none of the files is an evaluation on annotated pictures. ssdtrt evaluate --json writes one."
            )
        return None
    parts: list[Content] = []
    for name, report in reports.evaluations:
        parts += _evaluation_parts(name, report)
        if not report.against:
            missing.append(
                f"How much accuracy {report.name} loses against FP32 ({name}). ssdtrt evaluate --against eager-fp32 "
                "evaluates both."
            )
        if unknown := [one for one in report.classes if one.ap is None]:
            missing.append(
                f"The accuracy of {counted(len(unknown), 'class')}, of which the pictures show no object ({name})."
            )
    return section("Accuracy", *parts)


def _evaluation_parts(name: str, report: EvalReport) -> list[Content]:
    settings = report.settings
    text = (
        f"On {counted(report.images, 'picture')} with {counted(report.objects, 'object')} ({settings.annotations}): "
        f"{counted(report.detections, 'detection')} with scores above {settings.min_score:g}, NMS at IoU {settings.nms_iou:g}, at most "
        f"{settings.max_detections} a picture."
    )
    header = ["figure", report.name]
    for baseline in report.against:
        header += [baseline.name, "difference"]
    classes = sorted(report.classes, key=lambda row: (row.ap is None, -(row.ap or 0.0)))
    rows = [(row.name, fraction(row.ap), fraction(row.ap50), f"{row.objects:,}") for row in classes]
    by_class = table(f"Average precision of each class ({name})", ("class", "AP", "AP50", "objects"), rows)
    return [
        element("h3", f"{report.name} {report.precision.upper()} ({name})"),
        element("p", text),
        table(f"COCO's figures ({name})", header, [_figure_cells(report, figure) for figure in FIGURES]),
        element("details", element("summary", f"The {counted(len(rows), 'class')}"), by_class) if rows else None,
        bullets((*report.notes, *report.failures), "notes"),
    ]


def _figure_cells(report: EvalReport, name: str) -> list[Content]:
    cells: list[Content] = [
        element("span", name, " ", element("small", _MEANINGS[name])),
        fraction(report.figures[name]),
    ]
    for baseline in report.against:
        cells += [fraction(baseline.figures[name]), difference(report.minus(baseline)[name])]
    return cells


def comparison_section(reports: Reports) -> ElementTree.Element | None:
    """Return the comparisons of two reports; None without any."""
    parts: list[Content] = []
    for name, speed in reports.comparisons:
        parts += _speed_comparison(name, speed)
    for name, accuracy in reports.evaluation_comparisons:
        parts += _accuracy_comparison(name, accuracy)
    return section("Compared with before", *parts) if parts else None


def _speed_comparison(name: str, report: CompareReport) -> list[Content]:
    rows = [
        (
            row.runner,
            row.verdict,
            str(row.batch_size),
            "-" if row.old_ms is None else milliseconds(row.old_ms),
            "-" if row.new_ms is None else milliseconds(row.new_ms),
            "-" if row.change is None else f"{100 * row.change:+.1f} %",
        )
        for row in report.rows
    ]
    header = ("runner", "verdict", "batch", "old ms", "new ms", "change")
    limit = "no limit" if report.limit is None else f"at most {100 * report.limit:g} % slower"
    return [
        element("h3", f"Speed: {report.new} and, before, {report.old} ({name})"),
        element("p", "Median milliseconds of a batch; ", limit, *_judged(report.limit, report.passed, report.verdict)),
        table(f"Speed, old and new ({name})", header, rows, texts=2),
        bullets(report.failures, "failures"),
        bullets(report.not_comparable, "failures"),
        bullets(report.notes, "notes"),
    ]


def _judged(limit: float | None, passed: bool, text: str | None = None) -> tuple[Content, ...]:
    """The verdict behind a limit; without one there is none."""
    return (", so nothing is judged",) if limit is None else (": ", verdict(passed, text))


def _accuracy_comparison(name: str, report: EvalComparison) -> list[Content]:
    rows = [(row.name, fraction(row.old), fraction(row.new), difference(row.change)) for row in report.figures]
    limit = "no limit" if report.limit is None else f"AP at most {report.limit:g} lower"
    return [
        element("h3", f"Accuracy: {report.evaluated[1]} and, before, {report.evaluated[0]} ({name})"),
        element("p", limit, *_judged(report.limit, report.passed)),
        table(f"Accuracy, old and new ({name})", ("figure", "old", "new", "change"), rows),
        bullets(report.failures, "failures"),
        bullets(report.notes, "notes"),
    ]
