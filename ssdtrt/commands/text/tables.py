"""Tables and numbers as text for terminals, or lists if the terminal is narrow, and as GitHub's Markdown."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssdtrt import config
from ssdtrt.artifact.parity_report import Repeatability
from ssdtrt.commands.terminal import printable
from ssdtrt.reporting.numbers import match_rate as match_rate
from ssdtrt.reporting.numbers import milliseconds as milliseconds
from ssdtrt.reporting.numbers import scientific as scientific
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from pathlib import Path

    from ssdtrt.artifact.cache_entries import CacheReport, ClearReport
    from ssdtrt.artifact.metadata import EngineMetadata
    from ssdtrt.artifact.quantization import Int8Verdict
    from ssdtrt.detection.results import ImageDetections, Summary
    from ssdtrt.reading.stage_times import StageTime

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""A header, and rows of as many cells."""
LAYER_COLUMNS = 48
"""The columns of a layer's name."""
_SUMMARY = "GITHUB_STEP_SUMMARY"  # set by GitHub Actions: the file whose text is shown with the job
_SPECIAL = re.compile(r"([\\|`*_<>\[\]~$&])")
_COSTS_SHOWN = 5  # layers
_HOLDS = 0.8  # of the time: a stage that is as busy holds the others
_MIN_WIDTH = 20  # columns; narrower terminals are treated as if they had these


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Return a table, the first column aligned left and the others right, or a list if it is wider than `width`."""
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
    """Return one row as its first value and, below it, `name: value` lines."""
    return "\n".join([row[0], *(f"  {name}: {cell}" for name, cell in zip(header[1:], row[1:]))])


def fill(text: str, width: int, indent: str = "", hanging: str | None = None) -> str:
    """Return a text broken at its spaces into lines of at most `width` columns.

    Args:
        text: The text. Words longer than `width` are not broken.
        width: The columns of the terminal.
        indent: The beginning of every line.
        hanging: Another beginning for the lines after the first.
    """
    return textwrap.fill(
        text,
        max(width, _MIN_WIDTH),
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def shorten(name: str, width: int) -> str:
    """Return a name, shortened to at most `width` characters."""
    return name if len(name) <= width else name[: width - 3].rstrip() + "..."


def repeatability_lines(found: Repeatability | None, width: int) -> list[str]:
    """Return a line about the places of a batch and one about a second run; none if they were not measured."""
    if found is None:
        return []
    graph = "" if found.cuda_graph is None else f", as a CUDA graph {found.cuda_graph:.1e}"
    sizes = ", ".join(map(str, found.batch_sizes))
    lines = (
        f"in a batch of {sizes} against alone: {found.in_batch:.1e} (bound {found.batch_bound:.1e})",
        f"run again: {found.again:.1e}{graph} (bound {config.REPEAT_BOUND:.0e})",
    )
    return [fill(line, width) for line in lines]


def detections_text(results: Sequence[ImageDetections], width: int) -> str:
    """Return a line for each picture, with the number of objects and the best one."""
    rows = []
    for found in results:
        best = found.detections[0] if found.detections else None
        rows.append(
            (printable(found.image), str(len(found.detections)), f"{best.label} {best.score:.2f}" if best else "-")
        )
    return table(("picture", "objects", "best"), rows, width) if rows else "no picture was read"


def summary_text(summary: Summary, width: int) -> str:
    """Return a line for each of the first twenty pictures, and the totals with the throughput."""
    lines = [detections_text(summary.first, width)]
    if summary.pictures > len(summary.first):
        lines.append(f"and {summary.pictures - len(summary.first)} more")
    rate = summary.images_per_second
    if summary.pictures:
        found = f"{counted(summary.detections, 'object')} in {counted(summary.pictures, 'picture')}"
        lines.append(fill(f"{found}, {rate:,.1f} images/s", width))
    return "\n".join(lines)


def stages_text(stages: Sequence[StageTime], width: int) -> str:
    """Return a table of how busy each stage was, and a line on the one that holds the rest."""
    rows = [(one.stage, f"{one.seconds:.2f}", f"{100 * one.share:.0f} %") for one in stages]
    shares = {one.stage: one.share for one in stages}
    busiest = max(shares, key=lambda stage: shares[stage])
    # One thread does these.
    turns = ("upload", "results", "write") if shares["decode"] else ("results", "write")
    if sum(shares[stage] for stage in turns) >= max(_HOLDS, shares[busiest]):
        longest = max(turns, key=lambda stage: shares[stage])
        said = (
            f"The others wait for {', '.join(turns[:-1])} and {turns[-1]}, which take turns; the longest is {longest}."
        )
    elif shares[busiest] >= _HOLDS:
        said = f"The others wait for {busiest}."
    else:
        said = f"No stage was busy all the time; the busiest is {busiest}. Start and end weigh in a short run."
    return "\n".join([table(("stage", "busy s", "of the time"), rows, width), fill(said, width)])


def markdown_page(title: str, heading: Sequence[str], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return a title, the paragraphs of a heading, tables and a list of notes, with a line end."""
    parts = [
        f"### {_escape(title)}",
        *map(_escape, heading),
        *(_markdown_table(header, rows) for header, rows in tables),
    ]
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


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column left and the others right."""
    marks = ["---", *["--:"] * (len(header) - 1)]
    lines = [[_escape(cell) for cell in header], marks, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cache_text(report: CacheReport, width: int) -> str:
    """Return a table of what the cache holds, the sum and the limit."""
    from ssdtrt.artifact.cache_folder import size_text

    rows = [
        (entry.short_key, entry.in_words, size_text(entry.bytes), entry.last_used[:10], entry.built_with)
        for entry in report.entries
    ]
    lines = [table(("key", "what", "size", "last used", "built with"), rows, width), ""] if rows else []
    limit = "without a limit" if report.limit is None else f"of at most {size_text(report.limit)}"
    place = f"in {report.folder}" if report.folder else "as the cache is turned off (SSDTRT_CACHE is empty)"
    lines.append(fill(f"{counted(len(report.entries), 'entry')}, {size_text(report.bytes)} {limit}, {place}", width))
    if report.checkpoint:
        lines.append(fill(f"COCO's checkpoint is in torch's cache, not counted: {report.checkpoint}", width))
    return "\n".join(lines)


def cleared_text(report: ClearReport, width: int) -> str:
    """Return how much was removed, and how much was left because it is in use."""
    from ssdtrt.artifact.cache_folder import size_text

    lines = [f"removed {counted(len(report.removed), 'entry')}, {size_text(report.freed)} freed"]
    if report.in_use:
        lines.append(
            f"left {counted(len(report.in_use), 'entry')} that other processes use: {', '.join(report.in_use)}"
        )
    return "\n".join(fill(line, width) for line in lines)


def engine_text(path: Path, metadata: EngineMetadata, width: int) -> str:
    """Return a description of an engine and of its distance to FP32."""
    request, build, parity = metadata.request, metadata.build, metadata.parity
    batch = f"batch {request.batch}" if request.batch else "any batch"
    cached = " before, taken from the cache" if build.cached else ""
    distances = ", ".join(f"{output.name} {scientific(output.relative_l2, 1)}" for output in parity.outputs)
    found = parity.detections
    rate = "none to compare" if found.match_rate is None else f"{match_rate(found)} matched"
    how = (
        f", front end {request.front_end}, {counted(request.streams or 0, 'auxiliary stream')}"
        if request.front_end
        else ""
    )
    lines = (
        f"{path}: {request.computes_in.title} {request.backend}, {batch}{how}, built in {build.seconds:.0f} s{cached}",
        f"relative L2 to FP32 eager: {distances} (bound {parity.bound:.0e})",
        f"detections: {found.reference} FP32, {found.engine} engine, {rate}",
    )
    text = [fill(line, width) for line in lines]
    return "\n".join([*text, *(_int8_lines(metadata.int8, width) if metadata.int8 else [])])


def _int8_lines(verdict: Int8Verdict, width: int) -> list[str]:
    """Return what an INT8 engine was judged by, and the layers that cost most."""
    kept = [one for one in verdict.costs if one.fp16]
    lines = [
        f"INT8: {counted(verdict.int8_layers, 'convolution')}, {100 * verdict.int8_share:.1f} % of the multiplications",
        f"speed: {verdict.int8_ms:.3f} ms at batch {verdict.batch_size}, FP16 {verdict.fp16_ms:.3f} ms"
        f" ({verdict.fp16_ms / verdict.int8_ms:.2f}x)",
        f"agreement with FP32: {100 * verdict.agreement.match_rate:.1f} % of {verdict.agreement.detections:,} detections "
        f"in {counted(verdict.agreement.pictures, 'picture')}",
    ]
    ap = verdict.ap
    if ap is not None:
        ratio = "" if ap.ratio is None else f", {ap.ratio:.4f} of FP32's {ap.fp32:.4f}"
        undecided = "" if ap.decided else ": undecided, too few"
        lines.append(f"AP: {ap.int8:.4f}{ratio} ({counted(ap.pictures, 'picture')}{undecided})")
    text = [fill(line, width) for line in lines]
    if verdict.costs:
        shown = kept or verdict.costs[:_COSTS_SHOWN]
        header = ("kept in FP16" if kept else "most costly layer", "cost", "share")
        cells = [(one.name, scientific(one.cost, 1), f"{100 * one.share:.1f} %") for one in shown]
        text.append(table(header, cells, width))
    return text
