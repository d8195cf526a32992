"""Results as text for a terminal: a table where there is room, a list where there is not."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ssdtrt.results import BenchReport, BenchRow, ImageDetections, ParityReport


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


BENCH_HEADER = (
    "runner", "batch", "median ms", "p90", "p99", "images/s", "speed-up", "MiB", "build s", "rel. L2", "matched"
)  # fmt: skip


def bench_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of one benchmark row, as BENCH_HEADER names them."""
    return (
        row.name if row.precision in row.name.lower() else f"{row.name} {row.precision.upper()}",
        str(row.batch_size),
        milliseconds(row.median_ms),
        milliseconds(row.p90_ms),
        milliseconds(row.p99_ms),
        f"{row.images_per_second:,.0f}" if row.images_per_second >= 100 else f"{row.images_per_second:.1f}",
        "-" if row.speedup is None else f"{row.speedup:.2f}x",
        "-" if row.memory_mib is None else f"{row.memory_mib:,.0f}",
        "-" if row.build_seconds is None else f"{row.build_seconds:.0f}",
        *agreement_cells(row),
    )


def agreement_cells(row: BenchRow) -> tuple[str, str]:
    """The distance to FP32 and the share of matched detections of one row."""
    if row.build_seconds is None and row.agreement is None and row.precision == "fp32":
        return "-", "-"
    if row.agreement is None:
        return "not compared", "not compared"
    return f"{row.agreement.distance:.1e}", share(row.agreement)


def share(report: ParityReport) -> str:
    """The share of matched detections in words: never a percentage of nothing."""
    found = report.detections
    return "none to compare" if found.share is None else f"{100 * found.share:.1f} %"


def milliseconds(value: float) -> str:
    """Three significant digits or better."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def bench_text(report: BenchReport, width: int) -> str:
    """The machine, the figures and what their reader must know."""
    lines = [machine_line(report.machine), settings_line(report), ""]
    lines.append(table(BENCH_HEADER, [bench_cells(row) for row in report.rows], width))
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def machine_line(machine: dict) -> str:
    """What the figures were measured on."""
    versions = machine["versions"]
    parts = [machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores", f"torch {versions['torch']}"]
    if machine["gpu"]:
        parts += [
            f"{name} {versions[key]}"
            for key, name in (("torch_tensorrt", "Torch-TensorRT"), ("tensorrt", "TensorRT"), ("driver", "driver"))
            if versions[key]
        ]
    return ", ".join(parts)


def settings_line(report: BenchReport) -> str:
    """How the figures were measured."""
    settings = report.settings
    samples = settings["rounds"] * settings["iterations"]
    return (
        f"{samples} calls a row in {settings['rounds']} interleaved rounds after {settings['warmup']} to warm up, "
        f"{settings['clock']}, TF32 off"
    )


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


def as_json(result) -> str:
    """A result as indented JSON."""
    return json.dumps(result.as_dict(), indent=1)
