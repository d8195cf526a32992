"""A benchmark and a comparison of two, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ssdtrt import config
from ssdtrt.benchmarking.compare import ComparedRow, CompareReport
from ssdtrt.benchmarking.report import BenchReport, BenchRow
from ssdtrt.commands.text.tables import Table, fill, markdown_page, match_rate, milliseconds, stacked, table
from ssdtrt.reporting.numbers import difference, fraction
from ssdtrt.system.gpu_state import GpuState
from ssdtrt.system.report import counted

_NAME = ("runner", "batch")
_SPEED = ("median ms", "p90", "p99", "max", "images/s", "speed-up", "95 % of it")
_DETAILS = ("CV", "host ms", "first ms", "compile s", "build s", "MiB", "rel. L2", "matched")
_ACCURACY = ("runner", "batch", "images/s", "AP", "vs FP32", "AP50", "AP75")
_PARTS = ("part, host time", "batch", "median ms", "p90")
_COMPARED = ("runner", "batch", "old ms", "new ms", "change")
_IN_WORDS = {"missing": "only in old", "new": "only in new", "failed": "failed in new"}
_JUDGED = {"slower": " SLOWER", "not comparable": " NOT COMPARABLE"}
_SHORTEST = 12  # characters of a runner's name, below which a list is easier to read than a table


def bench_text(report: BenchReport, width: int) -> str:
    """Return the machine, the figures and what their reader must know."""
    speed, *others = bench_tables(report)
    details = others[:1] if any(row.ok for row in report.rows) else []
    texts = [_narrowed(*one, width) for one in (speed, *details)]
    if not all(texts):  # Too narrow for tables.
        texts = [_listed(row) for row in report.rows]
    blocks = ["\n".join(bench_heading(report)), *texts]
    for one in others[len(details) :]:
        narrowed = _narrowed(*one, width) if one[0] == _ACCURACY else ""
        blocks.append(narrowed or table(*one, width))
    if lines := bench_notes(report):
        blocks.append("\n".join(fill(line, width) for line in lines))
    return "\n\n".join(blocks)


def bench_markdown(report: BenchReport) -> str:
    """Return what the terminal shows of a benchmark."""
    return markdown_page("ssdtrt bench", bench_heading(report), bench_tables(report), bench_notes(report))


def bench_heading(report: BenchReport) -> list[str]:
    """Return on what, and how, the figures were measured."""
    settings = report.settings
    lines = [
        report.machine.line,
        f"{settings.calls} after {settings.warmup} to warm up, {settings.clock}, TF32 disabled",
    ]
    state = settings.gpu_state[-1].after if settings.gpu_state else None
    lines += [] if state is None else [_state_line(state)]
    count = next((row.accuracy.images for row in report.rows if row.accuracy), 0)
    if settings.evaluation and count:
        lines.append(f"AP on {counted(count, 'picture')} of {settings.evaluation.annotations}")
    return lines


def bench_tables(report: BenchReport) -> list[Table]:
    """Return the speed, its details where something was measured, the accuracy and the parts where they were too."""
    measured = [(*_name_cells(row), *_detail_cells(row)) for row in report.rows if row.ok]
    tables: list[Table] = [((*_NAME, *_SPEED), [(*_name_cells(row), *_speed_cells(row)) for row in report.rows])]
    if measured:
        tables.append(_filled((*_NAME, *_DETAILS), measured))
    if accurate := [row for row in report.rows if row.accuracy is not None]:
        tables.append((_ACCURACY, [(*_name_cells(row), *_accuracy_cells(row)) for row in accurate]))
    if report.parts:
        times = [(milliseconds(part.median_ms), milliseconds(part.p90_ms)) for part in report.parts]
        tables.append((_PARTS, [(part.name, str(part.batch_size), *cells) for part, cells in zip(report.parts, times)]))
    return tables


def bench_notes(report: BenchReport) -> list[str]:
    """Return what failed, and the notes, a line each."""
    failed = [f"failed: {_label(row)}, batch {row.batch_size}: {row.reason}" for row in report.rows if not row.ok]
    return failed + [f"note: {note}" for note in report.notes]


def compare_text(report: CompareReport, width: int) -> str:
    """Return the machine, both reports, the rows, what a reader must know, and the verdict."""
    lines = [report.machine.line, f"{report.old} -> {report.new}, median ms of a batch", ""]
    lines.append(table(*compare_table(report), width))
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join([*lines, *compare_verdict(report)])


def compare_markdown(report: CompareReport) -> str:
    """Return what the terminal shows of a comparison, with the failures."""
    heading = [report.machine.line, f"{report.old} to {report.new}, median ms of a batch"]
    notes = [*report.notes, *compare_verdict(report), *report.failures, *report.not_comparable]
    return markdown_page("ssdtrt compare", heading, [compare_table(report)], notes)


def compare_table(report: CompareReport) -> Table:
    """Return a row for each row of both reports."""
    return _COMPARED, [
        (
            row.runner,
            str(row.batch_size),
            _cell(row.old_ms, milliseconds),
            _cell(row.new_ms, milliseconds),
            _change(row),
        )
        for row in report.rows
    ]


def compare_verdict(report: CompareReport) -> list[str]:
    """Return a line on whether the limit holds; none where there is no limit."""
    if report.limit is None:
        return []
    judged = [row.verdict for row in report.rows if row.judged and row.verdict not in ("new", "not judged")]
    limit, rows, lines = f"{100 * report.limit:g} %", counted(len(judged), "judged row"), []
    if report.failures:
        lines.append(f"FAILED: {len(report.failures)} of {rows} broke the limit of {limit}")
    if count := judged.count("not comparable"):
        lines.append(f"NOT COMPARABLE: {count} of {rows}: the machine changed, or times vary, by more than {limit}")
    return lines or [f"passed: {len(judged)} of {rows} kept the limit of {limit}"]


def _change(row: ComparedRow) -> str:
    """How much slower the new one is, and what was made of it; or which of the two there is."""
    if row.change is None:
        return _IN_WORDS.get(row.verdict, "not measured")
    return f"{100 * row.change:+.1f} %" + _JUDGED.get(row.verdict, "")


def _listed(row: BenchRow) -> str:
    """One row as a list of what it has."""
    cells = (*_name_cells(row), *_speed_cells(row), *_detail_cells(row))
    header, (kept,) = _filled((*_NAME, *_SPEED, *_DETAILS), [cells])
    return stacked(header, kept)


def _filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The columns in which some row has a value."""
    kept = [i for i in range(len(header)) if any(row[i] != "-" for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _narrowed(header: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> str:
    """A table whose first column is cut at the front where it is too wide; "" where that is not enough."""
    others = sum(2 + max(map(len, column)) for column in list(zip(header, *rows))[1:])
    room = width - others
    if room < _SHORTEST:
        return ""
    cut = [(row[0] if len(row[0]) <= room else "..." + row[0][3 - room :], *row[1:]) for row in rows]
    return table(header, cut, width)


def _label(row: BenchRow) -> str:
    """The row's name and its precision, which is named once."""
    return row.name if row.precision in row.name.lower() else f"{row.name} {row.precision.upper()}"


def _name_cells(row: BenchRow) -> tuple[str, str]:
    """The cells of _NAME."""
    return _label(row), str(row.batch_size)


def _speed_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of _SPEED."""
    if not row.ok:
        return ("failed", *["-"] * (len(_SPEED) - 1))
    times = (row.median_ms, row.p90_ms, row.p99_ms, row.max_ms)
    interval = None if row.speedup_low is None else f"{row.speedup_low:.2f}-{row.speedup_high:.2f}"
    return (
        *(_cell(value, milliseconds) for value in times),
        _rate_cell(row),
        _cell(row.speedup, "{:.2f}x".format),
        interval or "-",
    )


def _detail_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of _DETAILS."""
    return (
        _cell(row.coefficient_of_variation, "{:.1%}".format).replace("%", " %"),
        _cell(row.host.median_ms if row.host else None, milliseconds),
        _cell(row.first_call_ms, milliseconds),
        _cell(row.compile_seconds, "{:.1f}".format),
        _cell(row.build_seconds, "{:.0f}".format),
        _cell(row.memory_mib, "{:,.0f}".format),
        *_agreement_cells(row),
    )


def _rate_cell(row: BenchRow) -> str:
    return _cell(row.images_per_second, lambda rate: f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}")


def _accuracy_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of _ACCURACY behind the name."""
    found = row.accuracy
    assert found is not None
    return _rate_cell(row), fraction(found.ap), difference(found.difference), fraction(found.ap50), fraction(found.ap75)


def _cell(value: float | None, form: Callable[[float], str]) -> str:
    """A value in its form, or a dash."""
    return "-" if value is None else form(value)


def _agreement_cells(row: BenchRow) -> tuple[str, str]:
    """The distance to FP32, and the share of matched detections."""
    if row.agreement is not None:
        distance = row.agreement.distance
        return "not finite" if distance is None else f"{distance:.1e}", match_rate(row.agreement.detections)
    return ("-" if row.case == config.BENCH_CASES[0] or not row.ok else "not compared"), "-"


def _state_line(state: GpuState) -> str:
    """The GPU's state at the end of the last round."""
    values = (
        _cell(state.sm_mhz, "SM {:,.0f} MHz".format),
        _cell(state.memory_mhz, "memory {:,.0f} MHz".format),
        _cell(state.temperature_c, "{:.0f} C".format),
        _cell(state.power_w, "{:.0f} W".format),
    )
    known = [value for value in values if value != "-"]
    return f"the GPU at the end: {', '.join(known) or 'clocks, temperature and power are not known'}"
