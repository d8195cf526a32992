"""The speed: bars for one batch size, lines for several, and all rows in a table."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from msgspec.structs import replace

from ssdtrt.benchmarking.compare import differences
from ssdtrt.benchmarking.plot import lines_of
from ssdtrt.benchmarking.report import BenchReport, BenchRow
from ssdtrt.reporting.charts import Bar, bars, legend, lines
from ssdtrt.reporting.elements import Content, bullets, element, section, table
from ssdtrt.reporting.numbers import difference, fraction, milliseconds, throughput
from ssdtrt.reporting.sources import Reports
from ssdtrt.system.report import counted

_HEADER = ("runner", "batch", "median ms", "speed-up", "95 % of it", "images/s", "p99 ms", "memory MiB", "build s")
_ACCURACY = ("runner", "batch", "images/s", "AP", "against FP32", "AP50", "AP75")
_LAYERS = 15  # that are shown of a profile


def grouped(benches: Sequence[tuple[str, BenchReport]]) -> list[tuple[list[str], BenchReport]]:
    """Return the reports, those joined that are comparable and have no row in common, each with the names of its files."""
    groups: list[tuple[list[str], BenchReport]] = []
    for name, bench in benches:
        bench = bench.with_file_names
        for at, (names, joined) in enumerate(groups):
            common = {row.key for row in joined.rows} & {row.key for row in bench.rows}
            if not common and joined.machine == bench.machine and not differences(joined, bench):
                notes = tuple(dict.fromkeys((*joined.notes, *bench.notes)))
                both = replace(joined, rows=joined.rows + bench.rows, notes=notes, parts=joined.parts + bench.parts)
                groups[at] = [*names, name], both
                break
        else:
            groups.append(([name], bench))
    return groups


def speed_section(reports: Reports, missing: list[str]) -> ElementTree.Element | None:
    """Return all benchmarks, and the profiles; None without either."""
    if not reports.benches:
        missing.append("Speed: none of the files is a benchmark. ssdtrt bench --json writes one.")
    parts: list[Content] = []
    for names, bench in grouped(reports.benches):
        source = ", ".join(names)
        parts += [element("h3", f"{bench.machine.line} ({source})"), *_bench_parts(source, bench)]
        missing += [f"{row.label}: {row.reason} ({source})" for row in bench.rows if not row.ok]
        measured = [row for row in bench.rows if row.ok]
        if measured and all(row.speedup_low is None for row in measured):
            missing.append(f"The confidence intervals of the speed-ups, which take three rounds ({source}).")
        if measured and all(row.memory_mib is None for row in measured):
            missing.append(f"The memory that each takes, which is measured on a GPU ({source}).")
        if not bench.parts:
            missing.append(
                "The time of reading, preparing, decoding and NMS: the speed is that of the network alone "
                f"({source}). ssdtrt bench --parts times the rest."
            )
    for name, profile in reports.profiles:
        rows = [
            (one.layer.name, one.layer.dtype or "-", milliseconds(one.median_ms), f"{100 * one.share:.1f} %")
            for one in profile.layers[:_LAYERS]
        ]
        sums = (
            f"Sum {milliseconds(profile.sum_ms)} ms, with waits between layers; a call takes "
            f"{milliseconds(profile.call_ms)} ms. The longest are shown: {len(rows)} of "
            f"{counted(len(profile.layers), 'layer')}."
        )
        parts += [element("h3", f"Layers of {profile.file}, batch {profile.batch_size} ({name})"), element("p", sums)]
        parts.append(table(f"Time of each layer ({name})", ("layer", "type", "ms", "of the sum"), rows, texts=2))
    return section("Speed", *parts) if parts else None


def _bench_parts(source: str, bench: BenchReport) -> list[Content]:
    """The charts, the table, how it was measured, and the notes."""
    series = lines_of({"": bench})
    sizes = {row.batch_size for rows in series.values() for row in rows}
    parts: list[Content] = []
    if len(sizes) == 1:
        parts.append(_bars(series, *sizes))
    elif sizes:
        rates = {
            name: [(row.batch_size, row.images_per_second or 0.0) for row in rows] for name, rows in series.items()
        }
        times = {name: [(row.batch_size, row.median_ms or 0.0) for row in rows] for name, rows in series.items()}
        charts = (
            lines("Throughput, images/s (higher is better)", rates, lambda rate: f"{throughput(rate)} images/s"),
            lines("Time of a batch, ms (lower is better)", times, lambda time: f"{milliseconds(time)} ms"),
        )
        parts += [element("div", *charts, class_="columns"), legend(list(series))]
    parts.append(table(f"Every measured row ({source})", _HEADER, [_cells(row) for row in bench.rows]))
    if accurate := [row for row in bench.rows if row.accuracy]:
        title = f"Speed and accuracy ({source})"
        parts.append(table(title, _ACCURACY, [_accuracy_cells(row) for row in accurate]))
    parts.append(element("p", _how(bench), class_="how"))
    if bench.parts:
        rows = [
            (part.name, str(part.batch_size), milliseconds(part.median_ms), milliseconds(part.p90_ms))
            for part in bench.parts
        ]
        parts.append(
            table(f"From pictures to detections, host time ({source})", ("part", "batch", "median ms", "p90 ms"), rows)
        )
    return [*parts, bullets(bench.notes, "notes")]


def _bars(series: dict[str, list[BenchRow]], size: int) -> ElementTree.Element:
    """Bars of the throughput, the slowest first."""
    rows = sorted(
        ((name, row) for name, rows in series.items() for row in rows), key=lambda one: -(one[1].median_ms or 0)
    )
    return bars(
        f"Images a second, batch {size} (longer is better)",
        [
            Bar(name, row.images_per_second or 0.0, ", ".join(_summary(row)), row.is_file and row.built)
            for name, row in rows
        ],
    )


def _summary(row: BenchRow) -> list[str]:
    """The throughput, the time and the speed-up of a measured row."""
    assert row.images_per_second is not None and row.median_ms is not None
    parts = [f"{throughput(row.images_per_second)} images/s", f"{milliseconds(row.median_ms)} ms"]
    return parts if row.speedup is None else [*parts, f"{row.speedup:.2f}x"]


def _cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of _HEADER."""
    size = str(row.batch_size)
    if row.median_ms is None or not row.ok:
        return (row.runner, size, "failed", *["-"] * (len(_HEADER) - 3))
    interval = "-" if row.speedup_low is None else f"{row.speedup_low:.2f} to {row.speedup_high or 0:.2f}"
    return (
        row.runner,
        size,
        milliseconds(row.median_ms),
        "-" if row.speedup is None else f"{row.speedup:.2f}x",
        interval,
        "-" if row.images_per_second is None else throughput(row.images_per_second),
        "-" if row.p99_ms is None else milliseconds(row.p99_ms),
        "-" if row.memory_mib is None else f"{row.memory_mib:,.0f}",
        "-" if row.build_seconds is None else f"{row.build_seconds:.0f}",
    )


def _accuracy_cells(row: BenchRow) -> tuple[str, ...]:
    """The cells of _ACCURACY."""
    found = row.accuracy
    assert found is not None
    rate = "-" if row.images_per_second is None else throughput(row.images_per_second)
    values = fraction(found.ap), difference(found.difference), fraction(found.ap50), fraction(found.ap75)
    return (row.runner, str(row.batch_size), rate, *values)


def _how(bench: BenchReport) -> str:
    """How it was measured."""
    settings = bench.settings
    warmup = "" if settings.warmup is None else f" after {settings.warmup} to warm up"
    tf32 = "" if settings.tf32 is None else f", TF32 {'enabled' if settings.tf32 else 'disabled'}"
    count = next((row.accuracy.images for row in bench.rows if row.accuracy), 0)
    pictures = (
        f" AP is on {counted(count, 'picture')} ({settings.evaluation.annotations})." if settings.evaluation else ""
    )
    return f"{settings.calls}{warmup}; {settings.clock}{tf32}. Speed-ups are over FP32 eager at the same batch size.{pictures}"
