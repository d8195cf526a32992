"""Draw benchmark reports: latency and throughput over the batch size, and AP over throughput. No torch here."""

from __future__ import annotations

import importlib.util
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdtrt import config
from ssdtrt.benchmarking.report import BenchReport, BenchRow
from ssdtrt.errors import ReportError
from ssdtrt.system.files import check_writable, replacing
from ssdtrt.system.versions import pip_install

_SUFFIXES = (".png", ".svg")
# Okabe and Ito's colors, which most color-blind readers tell apart, from dark to light; in gray print the dashes and
# markers tell them apart too.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p", "h")
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_TITLES = {  # of the cases
    "eager-fp32": "eager FP32",
    "eager-tf32": "eager TF32",
    "eager-fp16": "eager FP16",
    "eager-fp16-graph": "eager FP16, CUDA graph",
    "eager-bf16": "eager BF16",
    "torchscript": "TorchScript",
    "onnxruntime": "ONNX Runtime",
    "compile": "torch.compile",
    "engine": "engine",
    "engine-plain": "engine, no CUDA graph",
}
_INCHES = (10, 5.2)
_AP_INCHES = 3.6  # by which it is higher with the panel of AP
_LEAST_AP = 0.01  # that its axis spans, so that rounding does not look like a loss
_TITLE_CHARACTERS, _LEGEND_CHARACTERS = 110, 125  # that fit in a line, about
_DPI = 150
_STEPS = (1, 2, 5)  # of a decade, that are numbered
_FINE_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # where all figures are within a decade
_TICK_ROOM = 0.07  # of the axis, for a batch size


def check_plot(path: str | Path) -> None:
    """Raise ReportError where no picture can be drawn to `path`, before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ReportError(f"{path} names no kind of picture; expected a name that ends with {' or '.join(_SUFFIXES)}.")
    if reason := check_writable(path):
        raise ReportError(f"{path} cannot be written: {reason}. Give another path.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ReportError(f"Drawing needs matplotlib, which is not installed: {pip_install('plot')}")


def plot_reports(reports: Mapping[str, BenchReport], path: str | Path) -> Path:
    """Draw the measured rows of all reports to a file.

    Args:
        reports: The reports by the file that each is from, which names its lines where nothing else tells them apart.
        path: A path that ends with `.png` or `.svg`.

    Returns:
        The path.

    Raises:
        ReportError: Where it cannot be drawn, or where the reports hold no measured row.
    """
    check_plot(path)
    lines = lines_of(reports)
    if not lines:
        raise ReportError("The reports hold no measured row; expected at least one. Measure again.")
    import matplotlib
    from matplotlib import style
    from matplotlib.figure import Figure

    # The figure looks the same whatever the user's own matplotlibrc sets, and an SVG is the same in every run.
    with style.context("default"), matplotlib.rc_context({"svg.hashsalt": "ssdtrt", "font.size": 10}):
        figure = Figure(figsize=_INCHES, dpi=_DPI)
        _draw(figure, list(reports.values()), lines)
        with replacing(path) as temporary:
            kind = Path(path).suffix.lower()[1:]
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return Path(path)


def lines_of(reports: Mapping[str, BenchReport]) -> dict[str, list[BenchRow]]:
    """Return the measured rows by the name of their line, each by batch size.

    A case is one line, also where each batch size has a file of its own; where two files share a batch size each is a
    line. Of several reports each line names what tells its report apart.
    """
    lines: dict[str, list[BenchRow]] = {}
    for report, suffix in zip(reports.values(), _suffixes(reports)):
        rows = [row for row in report.with_file_names.rows if row.ok and row.images_per_second is not None]
        sizes = [(row.key[0], row.precision, row.batch_size) for row in rows]
        crowded = {size[:2] for size in sizes if sizes.count(size) > 1}
        for row in sorted(rows, key=lambda row: row.batch_size):
            name = row.runner if (row.key[0], row.precision) in crowded else _title(row)
            lines.setdefault(", ".join(filter(None, [name, suffix])), []).append(row)
    return lines


def _title(row: BenchRow) -> str:
    """The name of a row's line: the case in words, with the precision where that does not name it."""
    case, *more = _TITLES.get(row.case, row.key[0]).split(", ")
    if case == "engine" and not row.built:
        case = "module"
    if not any(name in case.lower() for name in (row.precision, "tf32")):
        case = f"{case} {row.precision.upper()}"
    return ", ".join([case, *more])


def _suffixes(reports: Mapping[str, BenchReport]) -> list[str]:
    """What tells each report apart: its machine, a version, or else its file's name; "" for a single one."""
    if len(reports) == 1:
        return [""]
    machines = [report.machine for report in reports.values()]
    for parts in zip(*([machine.gpu or str(machine.cpu), *machine.version_parts] for machine in machines)):
        short = [part.split("+")[0] for part in parts]  # torch 2.14.0+cu130
        if len(set(short)) == len(reports):
            return short
    return [Path(source).stem for source in reports]


def _draw(figure: Any, reports: Sequence[BenchReport], lines: Mapping[str, list[BenchRow]]) -> None:
    """Draw the panels, the title and the legend."""
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)  # inches
    accurate = any(_ap(row) is not None for rows in lines.values() for row in rows)
    if accurate:
        figure.set_size_inches(_INCHES[0], _INCHES[1] + _AP_INCHES)
    panels = [["latency", "throughput"], *([["accuracy", "accuracy"]] if accurate else [])]
    axes = figure.subplot_mosaic(panels, height_ratios=[_INCHES[1], _AP_INCHES][: len(panels)])
    latency, throughput = axes["latency"], axes["throughput"]
    sizes = sorted({row.batch_size for rows in lines.values() for row in rows})
    slowest_first = sorted(lines, key=lambda name: -_ms_per_image(lines[name][-1]))
    for index, name in enumerate(slowest_first):
        rows = lines[name]
        look = {
            "color": _COLORS[index % len(_COLORS)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "linestyle": _DASHES[index % len(_DASHES)],
            "linewidth": 1.6,
            "markersize": 7,
            "markerfacecolor": _COLORS[index % len(_COLORS)] if index % 2 else "white",
        }
        batches = [row.batch_size for row in rows]
        latency.plot(batches, [row.median_ms for row in rows], label=name, **look)
        throughput.plot(batches, [row.images_per_second for row in rows], **look)
        if accurate:
            _plot_accuracy(axes["accuracy"], rows, index, look)
    if accurate:
        _accuracy_panel(axes["accuracy"], [row for rows in lines.values() for row in rows])
    _panel(latency, sizes, "Latency of a batch", "median, ms (lower is better)")
    _panel(throughput, sizes, "Throughput", "images/s (higher is better)")
    machines = dict.fromkeys(report.machine.line for report in reports)
    clocks = sorted({report.settings.clock for report in reports})
    title = [textwrap.fill(line, _TITLE_CHARACTERS, break_on_hyphens=False) for line in machines]
    figure.suptitle(
        "\n".join([*title, f"SSD300, {' or '.join(clocks)}, logarithmic axes{' but for AP' if accurate else ''}"]),
        fontsize=10,
    )
    longest = max(map(len, lines))
    columns = max(1, min(3, len(lines), _LEGEND_CHARACTERS // (longest + 8)))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handlelength=4)


def _ap(row: BenchRow) -> float | None:
    return row.accuracy.ap if row.accuracy else None


def _plot_accuracy(axes: Any, rows: Sequence[BenchRow], index: int, look: Mapping[str, Any]) -> None:
    """Draw a point for each evaluated row of a line, labelled with the batch size: above or, on every other line, below."""
    points = [(row.images_per_second, ap, row.batch_size) for row in rows if (ap := _ap(row)) is not None]
    if not points:
        return
    axes.plot([rate for rate, _, _ in points], [ap for _, ap, _ in points], **{**look, "linewidth": 0.8})
    for place, (rate, ap, size) in enumerate(points):
        away = 7 + 9 * (place % 2)  # points; neighbours are at two heights, as their numbers may be wider than the gap
        axes.annotate(
            str(size), (rate, ap), (0, -away if index % 2 else away), textcoords="offset points", ha="center",
            va="top" if index % 2 else "bottom", fontsize=8, color=look["color"],
        )  # fmt: skip


def _accuracy_panel(axes: Any, rows: Sequence[BenchRow]) -> None:
    """Set the axes of AP over throughput, with a line where FP32 eager is."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for ap in sorted({ap for row in rows if row.case == config.BENCH_CASES[0] and (ap := _ap(row)) is not None}):
        axes.axhline(ap, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"FP32\n{ap:.3f}", (1, ap), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=8, color="0.35",
        )  # fmt: skip
    found = [(row.images_per_second or 0.0, ap) for row in rows if (ap := _ap(row)) is not None]
    rates, values = [rate for rate, _ in found], [ap for _, ap in found]
    axes.set_xscale("log")
    low, high = min(rates) / 1.05, max(rates) * 1.05
    steps = _STEPS if high > 10 * low else _FINE_STEPS
    axes.set_xlim(*_reach(low, high, steps))
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    middle, half = (max(values) + min(values)) / 2, max(max(values) - min(values), _LEAST_AP) / 2
    axes.set_ylim(middle - 1.5 * half, middle + 1.5 * half)
    axes.set_title("Accuracy over throughput, labelled with the batch size", fontsize=11)
    axes.set_xlabel("images/s (higher is better)")
    axes.set_ylabel("AP (higher is better)")
    axes.grid(True, which="major", color="0.85", linewidth=0.7)
    axes.set_axisbelow(True)


def _ms_per_image(row: BenchRow) -> float:
    return (row.median_ms or 0) / row.batch_size


def _panel(axes: Any, sizes: Sequence[int], title: str, unit: str) -> None:
    """Set logarithmic axes with plain numbers: the batch sizes that were measured, and round ones of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = _with_room(sizes)
    axes.set_xticks(ticks, labels=[str(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    values = [value for line in axes.lines for value in line.get_ydata()]
    low, high = min(values) / 1.05, max(values) * 1.05
    steps = _STEPS if high > 10 * low else _FINE_STEPS
    axes.set_ylim(*_reach(low, high, steps))
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("batch size, images")
    axes.set_ylabel(unit)
    axes.grid(True, which="major", color="0.85", linewidth=0.7)
    axes.set_axisbelow(True)


def _with_room(sizes: Sequence[int]) -> list[int]:
    """The batch sizes whose numbers fit beside each other on the axis: the largest, and those far enough below."""
    span = math.log(sizes[-1] / sizes[0])
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) >= _TICK_ROOM * span:
            kept.append(size)
    return kept[::-1]


def _reach(low: float, high: float, steps: Sequence[float]) -> tuple[float, float]:
    """The nearest of these steps of a decade at or below `low`, and at or above `high`."""
    first, last = (10.0 ** math.floor(math.log10(value)) for value in (low, high))
    below = [step * first for step in steps if step * first <= low]
    above = [step * last for step in (*steps, 10) if step * last >= high]
    return max(below, default=first), min(above)
