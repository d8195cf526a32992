#!/usr/bin/env python3
"""Write the tables of docs/performance.md from the recorded reports: python benchmarks/table.py [--check]

They stand between two marker lines. With --check nothing is written, and the exit code is 1 when the page does not hold
the tables that the reports give.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.report import BenchReport, BenchRow

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
STATIC, RANGE, DEFAULT = "h200-static.json", "h200-range.json", "h200-static-front-end.json"
NEWER = "h200-eager-torch2.11.json"
BEGIN, END = "<!-- table: benchmarks/table.py -->", "<!-- end of table -->"
HEADER = (
    "| Runner | Batch | Median ms | p90 | p99 | Images/s | Over FP32 eager | GPU MiB | Relative L2 | Detections matched |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)
COMPARED = (
    "| Batch | TensorRT FP16, CUDA graph | torch.compile FP16 | FP32 eager | Over torch.compile | Over FP32 eager |\n"
    "|--:|--:|--:|--:|--:|--:|"
)
BOTH = "| Batch | plain call | plain call, 4 streams | CUDA graph | CUDA graph, 4 streams |\n|--:|--:|--:|--:|--:|"

TITLES = {"eager-fp32": "FP32 eager", "eager-fp16-graph": "FP16 eager, CUDA graph", "compile": "torch.compile FP16"}


def title(row: BenchRow) -> str:
    """Return what was measured, from the case's and the file's name."""
    if row.case in TITLES:
        return TITLES[row.case]
    kind = "range 1:8:32" if "range" in row.name else "4 streams"
    graph = ", CUDA graph" if row.case == "engine" else ""
    return f"TensorRT {row.precision.upper()}, {kind}{graph}"


def line(row: BenchRow) -> str:
    """Return one row in Markdown: speed and agreement together."""
    distance = matched = "-"
    if row.agreement:
        distance, matched = f"{row.agreement.distance:.1e}", f"{100 * row.agreement.detections.match_rate:.1f} %"
    return markdown(
        title(row),
        row.batch_size,
        f"{row.median_ms:.3f}",
        f"{row.p90_ms:.3f}",
        f"{row.p99_ms:.3f}",
        f"{row.images_per_second:,.0f}",
        f"{row.speedup:.1f}x",
        f"{row.memory_mib:,.0f}",
        distance,
        matched,
    )


def markdown(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table() -> str:
    """Return the machine, how it was measured, and the rows of the static engines and of the range."""
    reports = [read(file) for file in (STATIC, RANGE)]
    machine, settings = reports[0].machine, reports[0].settings
    versions = machine.versions
    heading = (
        f"{machine.gpu}, driver {versions.driver}; torch {versions.torch}, Torch-TensorRT "
        f"{versions.torch_tensorrt}, TensorRT {versions.tensorrt}; {settings.rounds} interleaved rounds of "
        f"{settings.iterations} calls after {settings.warmup} to warm up, {settings.clock}, TF32 off."
    )
    return "\n".join([heading, "", HEADER, *(line(row) for report in reports for row in report.rows if row.ok)])


def compared() -> str:
    """Return the static engines as CUDA graphs against a newer torch, by batch size."""
    newer = read(NEWER)
    engines, others = medians(read(STATIC)), medians(newer)
    lines = []
    for size in sizes(engines):
        engine = engines["engine", size]
        times = [others[case, size] for case in ("compile", "eager-fp32")]
        cells = [*(f"{time:.3f} ms" for time in (engine, *times)), *(f"{time / engine:.2f}x" for time in times)]
        lines.append(markdown(size, *cells))
    heading = f"The static engines, and torch {newer.machine.versions.torch} on the same GPU in the same hour:"
    return "\n".join([heading, "", COMPARED, *lines])


def both() -> str:
    """Return the static engines with streams and without, plain and as CUDA graphs, by batch size."""
    builds = [medians(read(file)) for file in (DEFAULT, STATIC)]
    lines = []
    for size in sizes(builds[0]):
        times = [found[case, size] for case in ("engine-plain", "engine") for found in builds]
        lines.append(markdown(size, *(f"{time:.3f} ms" for time in times)))
    return "\n".join(["Built with and without `--streams 4`, each on an H200 of its own:", "", BOTH, *lines])


def medians(report: BenchReport) -> dict[tuple[str, int], float]:
    """Return the medians by case and batch size."""
    return {(row.case, row.batch_size): row.median_ms for row in report.rows if row.median_ms is not None}


def sizes(found: dict[tuple[str, int], float]) -> list[int]:
    """Return the batch sizes, ascending."""
    return sorted({size for _, size in found})


def read(file: str) -> BenchReport:
    """Return a recorded report."""
    return report_file.read(HERE / "reports" / file)


def main(check: bool) -> int:
    """Write the tables into the page, or with `check` only compare."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}\n{table()}\n\n{compared()}\n\n{both()}\n{END}{after}"
    if check:
        return int(wanted != text)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
