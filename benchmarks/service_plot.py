#!/usr/bin/env python3
"""Draw latency and throughput of the service over the number of clients: python benchmarks/service_plot.py [FILE.svg]

Points are the measured rows of a report of service.py, lines what queue_simulation.py predicts from its first row. By
default it draws the recorded ones to docs/service.svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PERCENTILES = (("p50_ms", "#0072B2", "o"), ("p90_ms", "#009E73", "s"), ("p99_ms", "#D55E00", "^"))
RATE = "pictures_per_second"


def draw(measured: dict[str, Any], predicted: dict[str, Any], path: Path) -> None:
    """Draw both panels.

    Args:
        measured: What service.py wrote.
        predicted: What queue_simulation.py --check wrote of it.
        path: Of the SVG.
    """
    import matplotlib
    from matplotlib import style
    from matplotlib.figure import Figure

    rows, line = measured["rows"], predicted["line"]
    with style.context("default"), matplotlib.rc_context({"svg.hashsalt": "ssdtrt", "font.size": 10}):
        figure = Figure(figsize=(10, 5.4), layout="constrained")
        latency, throughput = figure.subplots(1, 2)
        for name, color, marker in PERCENTILES:
            title = name.removesuffix("_ms")
            latency.plot(*of(rows, name), marker, color=color, markersize=8, label=f"{title}, measured")
            latency.plot(*of(line, name), "-", color=color, label=f"{title}, simulated")
        throughput.plot(*of(rows, RATE), "o", color="black", markersize=8, label="throughput, measured")
        throughput.plot(*of(line, RATE), "-", color="black", label="throughput, simulated")
        panel(latency, rows, "Latency", "ms (lower is better)")
        panel(throughput, rows, "Throughput", "pictures/s (higher is better)")
        throughput.set_yscale("linear")
        throughput.set_ylim(bottom=0)
        machine = measured["machine"]
        figure.suptitle(
            f"ssdtrt serve, a network that costs next to nothing, {machine['cores']} cores of an {machine['cpu']}, Ray {machine['ray']}\n"
            "clients that send one picture after the other; the simulation knows what was measured with one of them",
            fontsize=10,
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None, "Description": described(rows, line)})


def described(measured: list[dict[str, Any]], simulated: list[dict[str, Any]]) -> str:
    """Return the figures of the measured numbers of clients as text, for readers that see no picture."""
    names = [name for name, *_ in PERCENTILES]
    lines = []
    for row in measured:
        (other,) = [one for one in simulated if one["clients"] == row["clients"]]
        figures = [f"{one[RATE]:g} pictures/s, " + " ".join(f"{one[name]:g}" for name in names) for one in (row, other)]
        lines.append(f"{row['clients']} clients: {figures[0]} ms; simulated {figures[1]} ms")
    return ". ".join(["Throughput, p50, p90, p99", *lines])


def of(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the numbers of clients, and a figure of each."""
    return [row["clients"] for row in rows], [row[name] for row in rows]


def panel(axes: Any, rows: list[dict[str, Any]], title: str, unit: str) -> None:
    """Set logarithmic axes with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({1, 2, 5, 10, 20, 50, *(row["clients"] for row in rows)})
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("clients")
    axes.set_ylabel(unit)
    axes.grid(True, which="major", color="0.85", linewidth=0.7)
    axes.set_axisbelow(True)


def main(arguments: list[str] | None = None) -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=HERE.parent / "docs" / "service.svg")
    parser.add_argument("--measured", type=Path, default=HERE / "reports" / "cpu-service.json")
    parser.add_argument("--simulated", type=Path, default=HERE / "reports" / "cpu-service-simulation.json")
    options = parser.parse_args(arguments)
    measured, predicted = (json.loads(path.read_text()) for path in (options.measured, options.simulated))
    draw(measured, predicted, options.file)


if __name__ == "__main__":
    main()
