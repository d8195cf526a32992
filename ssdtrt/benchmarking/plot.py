"""Benchmark reports as a picture: latency and throughput over the batch size, a line for each runner. No torch here."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

from ssdtrt.benchmarking.report_file import Record, Row
from ssdtrt.commands.report_text import fill, machine_line, version_parts
from ssdtrt.errors import ReportError
from ssdtrt.system.files import check_writable, replacing

SUFFIXES = (".png", ".svg")
# Okabe and Ito's colors, which most color-blind readers tell apart, from dark to light; in gray print the dashes and
# markers tell them apart too.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
NAMES = {
    "eager-fp32": "eager FP32",
    "eager-tf32": "eager TF32",
    "eager-fp16": "eager FP16",
    "eager-fp16-graph": "eager FP16, CUDA graph",
    "eager-bf16": "eager BF16",
    "torchscript": "TorchScript",
    "compile": "torch.compile",
    "engine": "engine",
    "engine-graph": "engine, CUDA graph",
}
INCHES = (10, 5.2)
LEGEND_CHARACTERS = 125  # that fit beside each other, about
DPI = 150
STEPS = (1, 2, 5)  # of a decade, that are numbered
FINE_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # where all figures are within a decade
TICK_ROOM = 0.07  # of the axis, for a batch size


def check_plot(path: str | Path) -> None:
    """Raises ReportError where no picture can be drawn to `path`, before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ReportError(f"{path} names no kind of picture; expected a name that ends with {' or '.join(SUFFIXES)}.")
    if reason := check_writable(path):
        raise ReportError(f"{path} cannot be written: {reason}. Give another path.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ReportError("Drawing needs matplotlib, which is not installed: pip install 'ssdtrt[plot]'")


def plot_reports(found: Sequence[Record], path: str | Path) -> Path:
    """Draws the measured rows of all reports to a PNG or SVG file.

    Raises ReportError where that cannot be done, or where the reports hold no measured row.
    """
    check_plot(path)
    lines = lines_of(found)
    if not lines:
        raise ReportError("The reports hold no measured row; expected at least one. Measure again.")
    import matplotlib
    from matplotlib import style
    from matplotlib.figure import Figure

    # The figure looks the same whatever the user's own matplotlibrc says, and an SVG is the same in every run.
    with style.context("default"), matplotlib.rc_context({"svg.hashsalt": "ssdtrt", "font.size": 10}):
        figure = Figure(figsize=INCHES, dpi=DPI)
        draw(figure, found, lines)
        with replacing(path) as temporary:
            kind = Path(path).suffix.lower()[1:]
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return Path(path)


def lines_of(found: Sequence[Record]) -> dict[str, list[Row]]:
    """The measured rows by what their line is called, each by batch size.

    A peer is one line, also where each batch size has a file of its own; where two files share a batch size each is a
    line. Of several reports each line says what sets its report apart.
    """
    lines: dict[str, list[Row]] = {}
    for record, apart in zip(found, set_apart(found)):
        rows = [row for row in record.rows if row.median_ms is not None and row.images_per_second is not None]
        sizes = [(row.peer, row.precision, row.batch_size) for row in rows]
        crowded = {size[:2] for size in sizes if sizes.count(size) > 1}
        for row in sorted(rows, key=lambda row: row.batch_size):
            name = row.runner if (row.peer, row.precision) in crowded else name_of(row)
            lines.setdefault(", ".join(filter(None, [name, apart])), []).append(row)
    return lines


def name_of(row: Row) -> str:
    """What a row's line is called: the peer in words, with the precision where it does not say it."""
    peer, *more = NAMES.get(row.peer, row.peer).split(", ")
    if peer == "engine" and not row.built:
        peer = "module"
    if not any(name in peer.lower() for name in (row.precision, "tf32")):
        peer = f"{peer} {row.precision.upper()}"
    return ", ".join([peer, *more])


def set_apart(found: Sequence[Record]) -> list[str]:
    """What sets each report apart from the others: its machine, a version, or else its name; "" for a single one."""
    if len(found) == 1:
        return [""]
    machines = [[record.machine["gpu"] or record.machine["cpu"], *version_parts(record.machine)] for record in found]
    for parts in zip(*machines):
        short = [part.split("+")[0] for part in parts]  # torch 2.14.0+cu130
        if len(set(short)) == len(found):
            return short
    return [Path(record.source).stem for record in found]


def draw(figure, found: Sequence[Record], lines: dict[str, list[Row]]) -> None:
    """Both panels, the title and the legend."""
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)  # inches
    latency, throughput = figure.subplots(1, 2)
    sizes = sorted({row.batch_size for rows in lines.values() for row in rows})
    slowest_first = sorted(lines, key=lambda name: -lines[name][-1].median_ms / lines[name][-1].batch_size)
    for index, name in enumerate(slowest_first):
        rows = lines[name]
        look = {
            "color": COLORS[index % len(COLORS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)],
            "linewidth": 1.6,
            "markersize": 7,
            "markerfacecolor": COLORS[index % len(COLORS)] if index % 2 else "white",
        }
        batches = [row.batch_size for row in rows]
        latency.plot(batches, [row.median_ms for row in rows], label=name, **look)
        throughput.plot(batches, [row.images_per_second for row in rows], **look)
    panel(latency, sizes, "Latency of a batch", "median, ms (lower is better)")
    panel(throughput, sizes, "Throughput", "images/s (higher is better)")
    machines = list(dict.fromkeys(machine_line(record.machine) for record in found))
    clocks = sorted({str(record.settings["clock"]) for record in found})
    title = [fill(line, 110) for line in machines] + [f"SSD300, {' or '.join(clocks)}, logarithmic axes"]
    figure.suptitle("\n".join(title), fontsize=10)
    longest = max(map(len, lines))
    columns = max(1, min(3, len(lines), LEGEND_CHARACTERS // (longest + 8)))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handlelength=4)


def panel(axes, sizes: Sequence[int], title: str, unit: str) -> None:
    """Logarithmic axes with plain numbers: the batch sizes that were measured, and round ones of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = with_room(sizes)
    axes.set_xticks(ticks, labels=[str(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    values = [value for line in axes.lines for value in line.get_ydata()]
    low, high = min(values) / 1.05, max(values) * 1.05
    steps = STEPS if high > 10 * low else FINE_STEPS
    axes.set_ylim(*reach(low, high, steps))
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("batch size, images")
    axes.set_ylabel(unit)
    axes.grid(True, which="major", color="0.85", linewidth=0.7)
    axes.set_axisbelow(True)


def with_room(sizes: Sequence[int]) -> list[int]:
    """The batch sizes whose numbers fit beside each other on the axis: the largest, and those far enough below."""
    span = math.log(sizes[-1] / sizes[0])
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) >= TICK_ROOM * span:
            kept.append(size)
    return kept[::-1]


def reach(low: float, high: float, steps: Sequence[float]) -> tuple[float, float]:
    """The nearest of these steps of a decade at or below `low`, and at or above `high`."""
    first, last = (10.0 ** math.floor(math.log10(value)) for value in (low, high))
    below = [step * first for step in steps if step * first <= low]
    above = [step * last for step in (*steps, 10) if step * last >= high]
    return max(below, default=first), min(above)
