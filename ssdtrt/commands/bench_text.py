"""A benchmark as text for a terminal: what was fast, what stands behind it, and what could not be measured."""

from __future__ import annotations

from collections.abc import Sequence

from ssdtrt.benchmarking.report import BenchReport, BenchRow, PartTime
from ssdtrt.commands.report_text import fill, machine_line, milliseconds, share, stacked, table

NAME = ("runner", "batch")
SPEED = ("median ms", "p90", "p99", "worst", "images/s", "speed-up", "95 % of it")
BEHIND = ("varies", "host ms", "first ms", "compile s", "build s", "MiB", "rel. L2", "matched")
PARTS = ("part, host time", "batch", "median ms", "p90")
SHORTEST = 12  # characters of a runner's name, below which a list is easier to read than a table


def bench_text(report: BenchReport, width: int) -> str:
    """The machine, the figures and what their reader must know."""
    blocks = ["\n".join(head_lines(report)), *figures(report.rows, width)]
    if report.parts:
        blocks.append(parts_text(report.parts, width))
    if lines := said(report):
        blocks.append("\n".join(fill(line, width) for line in lines))
    return "\n\n".join(blocks)


def said(report: BenchReport) -> list[str]:
    """What failed, and the notes, a line each."""
    failed = [f"failed: {label(row)}, batch {row.batch_size}: {row.reason}" for row in report.rows if not row.ok]
    return failed + [f"note: {note}" for note in report.notes]


def figures(rows: Sequence[BenchRow], width: int) -> list[str]:
    """Two tables, the speed and what stands behind it, or where they are too wide a list of both."""
    measured = [row for row in rows if row.ok]
    speed = [(*name_cells(row), *speed_cells(row)) for row in rows]
    behind = [(*name_cells(row), *behind_cells(row)) for row in measured]
    tables = [(NAME + SPEED, speed), filled((*NAME, *BEHIND), behind)]
    texts = [narrowed(header, cells, width) for header, cells in tables if len(header) > len(NAME) and cells]
    if all(texts):
        return texts
    return [listed((*name_cells(row), *speed_cells(row), *behind_cells(row))) for row in rows]


def listed(cells: Sequence[str]) -> str:
    """One row as a list of what it has."""
    header, (kept,) = filled(NAME + SPEED + BEHIND, [cells])
    return stacked(header, kept)


def filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns in which some row has a value."""
    kept = [i for i in range(len(header)) if any(row[i] != "-" for row in rows)]
    return tuple(header[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def narrowed(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A table whose first column is cut at the front where it is too wide; "" where that is not enough."""
    others = sum(2 + max(map(len, column)) for column in list(zip(header, *rows))[1:])
    room = width - others
    if room < SHORTEST:
        return ""
    cut = [(row[0] if len(row[0]) <= room else "..." + row[0][3 - room :], *row[1:]) for row in rows]
    return table(header, cut, width)


def label(row: BenchRow) -> str:
    """The runner's name and its precision, which is named once."""
    return row.name if row.precision in row.name.lower() else f"{row.name} {row.precision.upper()}"


def name_cells(row: BenchRow) -> tuple[str, str]:
    """The cells that every table begins with, as NAME says."""
    return label(row), str(row.batch_size)


def speed_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of the first table, as SPEED says."""
    if not row.ok:
        return ("failed", *["-"] * (len(SPEED) - 1))
    times = (row.median_ms, row.p90_ms, row.p99_ms, row.worst_ms)
    between = None if row.speedup_low is None else f"{row.speedup_low:.2f}-{row.speedup_high:.2f}"
    return (
        *(number(value, milliseconds) for value in times),
        f"{row.images_per_second:,.0f}" if row.images_per_second >= 100 else f"{row.images_per_second:.1f}",
        number(row.speedup, "{:.2f}x".format),
        between or "-",
    )


def behind_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of the second table, as BEHIND says."""
    return (
        "-" if row.variation is None else f"{100 * row.variation:.1f} %",
        number(row.host and row.host.median_ms, milliseconds),
        number(row.first_call_ms, milliseconds),
        number(row.compile_seconds, "{:.1f}".format),
        number(row.build_seconds, "{:.0f}".format),
        number(row.memory_mib, "{:,.0f}".format),
        *agreement_cells(row),
    )


def number(value: float | None, form) -> str:
    """A value in its form, or a dash."""
    return "-" if value is None else form(value)


def agreement_cells(row: BenchRow) -> tuple[str, str]:
    """The distance to FP32 and the share of matched detections of one row."""
    if row.agreement is not None:
        return f"{row.agreement.distance:.1e}", share(row.agreement)
    itself = row.build_seconds is None and row.precision == "fp32"
    return ("-", "-") if itself or not row.ok else ("not compared", "-")


def parts_text(parts: Sequence[PartTime], width: int) -> str:
    """The parts of the whole way, timed apart."""
    return table(PARTS, list(map(part_cells, parts)), width)


def part_cells(part: PartTime) -> tuple[str, ...]:
    """The cells of one part, as PARTS says."""
    return part.name, str(part.batch_size), milliseconds(part.median_ms), milliseconds(part.p90_ms)


def head_lines(report: BenchReport) -> list[str]:
    """On what, and how, the figures were measured."""
    settings = report.settings
    samples = settings["rounds"] * settings["iterations"]
    lines = [
        machine_line(report.machine),
        f"{samples} calls a row in {settings['rounds']} interleaved rounds after {settings['warmup']} to warm up, "
        f"{settings['clock']}, TF32 off",
    ]
    state = (settings.get("gpu_state") or [{}])[-1].get("after")
    return lines if not state else [*lines, state_line(state)]


def state_line(state: dict) -> str:
    """What the GPU said of itself while it was busy."""
    forms = {
        "sm_mhz": "SM {:,.0f} MHz",
        "memory_mhz": "memory {:,.0f} MHz",
        "temperature_c": "{:.0f} C",
        "power_w": "{:.0f} W",
    }
    known = [form.format(state[key]) for key, form in forms.items() if state.get(key) is not None]
    return f"the GPU at the end: {', '.join(known) or 'clocks, temperature and power are not known'}"
