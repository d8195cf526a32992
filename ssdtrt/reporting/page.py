"""The page: what stands above, then a section for each subject, and what was not measured."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from ssdtrt.artifact.inspection import Inspection
from ssdtrt.benchmarking.report import UNTRAINED as UNTRAINED_NOTE
from ssdtrt.detection.results import UNTRAINED, PictureList
from ssdtrt.reporting.built import built_section, where_section
from ssdtrt.reporting.elements import Content, bullets, document, element, section
from ssdtrt.reporting.numbers import difference, fraction, milliseconds
from ssdtrt.reporting.pictures import pictures_section
from ssdtrt.reporting.quality import accuracy_section, agreement_section, comparison_section
from ssdtrt.reporting.records import RunReport
from ssdtrt.reporting.sources import Reports, Source
from ssdtrt.reporting.speed import grouped, speed_section
from ssdtrt.reporting.style import STYLE
from ssdtrt.system.report import counted

_NOT_MEASURED = "not measured"


def page(sources: Sequence[Source]) -> tuple[str, tuple[str, ...]]:
    """Return one HTML page of everything that the sources hold, and what it says was not measured."""
    reports, missing = Reports(sources), list[str]()
    sections = [
        built_section(reports, missing),
        where_section(reports, missing),
        speed_section(reports, missing),
        agreement_section(reports, missing),
        accuracy_section(reports, missing),
        comparison_section(reports),
        pictures_section(reports, missing),
        _notes_section(reports),
        section("What was not measured", bullets(missing, "notes") or element("p", "Nothing that this page shows.")),
    ]
    kept = [one for one in sections if one is not None]
    title = _title(reports)
    links = [element("a", one[0].text, href=f"#{one[0].get('id')}") for one in kept]
    names = ", ".join(one.name for one in sources)
    body = element(
        "main",
        element(
            "header",
            element("h1", title),
            element("p", f"Made by ssdtrt report of {names}."),
            _untrained(reports),
            _of_scenes(reports),
        ),
        _summary(reports),
        element("nav", bullets(links, "contents"), aria_label="Contents"),
        *kept,
    )
    return document(title, STYLE, body), tuple(missing)


def _title(reports: Reports) -> str:
    names = [f"{one.name} {one.precision.upper()}" for _, one in reports.evaluations]
    rows = [row for _, bench in reports.benches for row in bench.with_file_names.rows if row.is_file and row.built]
    rows.sort(key=lambda row: row.case != "engine")  # First as they run by default.
    names = [row.runner for row in rows] + names
    names += [one.name for one in reports.built] + [one.file for _, one in reports.profiles]
    return f"SSD300: {names[0]}" if names else "SSD300"


def _untrained(reports: Reports) -> ElementTree.Element | None:
    sources = [one.source for one in reports.built if not one.metadata.trained]
    sources += [name for name, bench in reports.benches if UNTRAINED_NOTE in bench.notes]
    sources += [name for name, found in reports.of(PictureList) if found.note == UNTRAINED]
    if not sources:
        return None
    text = (
        f"The weights are untrained random numbers in {', '.join(dict.fromkeys(sources))}: speed and agreement hold, "
        "these detections mean nothing."
    )
    return element("p", element("strong", text), class_="warning")


def _of_scenes(reports: Reports) -> ElementTree.Element | None:
    """What the weights of the package find, where a file has them."""
    weights = [one.metadata.model.weights for one in reports.built]
    if not any(one is not None and one.name == "scenes" for one in weights):
        return None
    text = (
        "The weights are those of the package (scenes): trained on generated scenes, they find ten shapes in such "
        "pictures and mean nothing in others."
    )
    return element("p", text)


def _summary(reports: Reports) -> ElementTree.Element:
    """The three answers: how fast, how near to FP32, how accurate."""
    cards = (
        ("Speed", *_speed(reports)),
        ("Agreement with FP32", *_agreement(reports)),
        ("Accuracy", *_accuracy(reports)),
    )
    shown = [
        element("div", element("dt", name), element("dd", element("strong", value), element("span", detail)))
        for name, value, detail in cards
    ]
    return element("dl", *shown, class_="cards")


def _speed(reports: Reports) -> tuple[str, str]:
    """The speed-ups of the engines, as they run by default, of the first machine."""
    for _, bench in grouped(reports.benches):
        rows = [row for row in bench.rows if row.ok and row.built and row.speedup is not None]
        rows = [row for row in rows if row.case == "engine"] or rows  # As they run by default, where that was measured.
        measured = [(row.speedup or 0.0, row) for row in rows]
        if measured:
            (low, slowest), (high, fastest) = (pick(measured, key=lambda one: one[0]) for pick in (min, max))
            where = f"on {bench.machine.gpu or bench.machine.cpu}"
            if f"{low:.2f}" == f"{high:.2f}":
                return f"{high:.2f}x as fast", f"as FP32 eager {where}: {fastest.label}"
            return f"{low:.2f}x to {high:.2f}x as fast", f"as FP32 eager {where}: {slowest.label} to {fastest.label}"
    for _, profile in reports.profiles:
        return f"{milliseconds(profile.call_ms)} ms", f"a call of {profile.file}, batch {profile.batch_size}"
    return _NOT_MEASURED, ""


def _agreement(reports: Reports) -> tuple[str, str]:
    verdicts = [one.parity.passed for one in reports.agreements]
    if not verdicts:
        return _NOT_MEASURED, ""
    failed = verdicts.count(False)
    return (f"{failed} FAILED" if failed else "passed"), f"of {counted(len(verdicts), 'comparison')}" if failed else (
        f"{'both' if len(verdicts) == 2 else f'all {len(verdicts)}'} comparisons within their bounds"
        if len(verdicts) > 1
        else "within its bound"
    )


def _accuracy(reports: Reports) -> tuple[str, str]:
    if not reports.evaluations:
        return _NOT_MEASURED, ""
    _, report = reports.evaluations[0]
    detail = f"{report.name} {report.precision.upper()}, {counted(report.images, 'picture')}"
    for baseline in report.against[:1]:
        detail += f"; {baseline.name} {fraction(baseline.figures['AP'])} ({difference(report.minus(baseline)['AP'])})"
    return f"AP {fraction(report.figures['AP'])}", detail


def _notes_section(reports: Reports) -> ElementTree.Element | None:
    """What `run` did otherwise than asked, and what a file's record calls for."""
    notes: list[Content] = [f"{text} ({name})" for name, run in reports.of(RunReport) for text in run.notes]
    notes += [f"{text} ({name})" for name, run in reports.of(RunReport) for text in run.failures]
    notes += [f"{text} ({name})" for name, one in reports.of(Inspection) for text in (*one.differs, *one.notes)]
    shown = bullets(notes, "notes")
    return None if shown is None else section("Notes", shown)
