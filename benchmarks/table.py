#!/usr/bin/env python3
"""Writes the README's tables of measurements from the recorded reports: python benchmarks/table.py [--check]

They stand between two marker lines in README.md. With --check nothing is written, and the exit code is 1 when the
README does not hold the tables that the reports give.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "reports"
README = HERE.parent / "README.md"
REPORTS = ("h200-static.json", "h200-range.json")
DEFAULT = "h200-static-front-end.json"
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

PEERS = {"eager-fp32": "FP32 eager", "eager-fp16-graph": "FP16 eager, CUDA graph", "compile": "torch.compile FP16"}


def name(row):
    """What was measured, from the peer's and the file's name."""
    peer = row.get("peer", "engine" if row["agreement"] else "eager-fp32")  # Reports of the first schema do not say.
    if peer in PEERS:
        return PEERS[peer]
    kind = "range 1:8:32" if "range" in row["name"] else "4 streams"
    graph = ", CUDA graph" if peer == "engine-graph" else ""
    return f"TensorRT {row['precision'].upper()}, {kind}{graph}"


def line(row):
    """One row in Markdown: speed and agreement together."""
    agreement = row["agreement"]
    distance = f"{max(output['relative_l2'] for output in agreement['outputs']):.1e}" if agreement else "-"
    matched = f"{100 * agreement['detections']['share']:.1f} %" if agreement else "-"
    cells = (
        name(row),
        row["batch_size"],
        f"{row['median_ms']:.3f}",
        f"{row['p90_ms']:.3f}",
        f"{row['p99_ms']:.3f}",
        f"{row['images_per_second']:,.0f}",
        f"{row['speedup']:.1f}x",
        f"{row['memory_mib']:,.0f}",
        distance,
        matched,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def table():
    """The machine, how it was measured, and the rows of every report."""
    reports = [read(file) for file in REPORTS]
    machine, settings = reports[0]["machine"], reports[0]["settings"]
    versions = machine["versions"]
    said = (
        f"{machine['gpu']}, driver {versions['driver']}; torch {versions['torch']}, Torch-TensorRT "
        f"{versions['torch_tensorrt']}, TensorRT {versions['tensorrt']}; {settings['rounds']} interleaved rounds of "
        f"{settings['iterations']} calls after {settings['warmup']} to warm up, {settings['clock']}, TF32 off."
    )
    rows = [row for report in reports for row in report["rows"] if row.get("status", "ok") == "ok"]
    return "\n".join([said, "", HEADER, *map(line, rows)])


def compared():
    """The static engines as CUDA graphs against a newer torch, by batch size."""
    static, newer = read(REPORTS[0]), read(NEWER)
    engines = {row["batch_size"]: row["median_ms"] for row in static["rows"] if row["peer"] == "engine-graph"}
    peers = {(row["peer"], row["batch_size"]): row["median_ms"] for row in newer["rows"]}
    lines = []
    for size, engine in engines.items():
        times = [peers[peer, size] for peer in ("compile", "eager-fp32")]
        cells = [size, *(f"{time:.3f} ms" for time in (engine, *times)), *(f"{time / engine:.2f}x" for time in times)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    said = f"The static engines, and torch {newer['machine']['versions']['torch']} on the same GPU in the same hour:"
    return "\n".join([said, "", COMPARED, *lines])


def both():
    """The static engines with streams and without, plain and as CUDA graphs, by batch size."""
    reports = [read(file) for file in (DEFAULT, REPORTS[0])]
    ways = [{(row["peer"], row["batch_size"]): row["median_ms"] for row in report["rows"]} for report in reports]
    lines = []
    for size in sorted({size for _, size in ways[0]}):
        times = [found[peer, size] for peer in ("engine", "engine-graph") for found in ways]
        lines.append("| " + " | ".join([str(size), *(f"{time:.3f} ms" for time in times)]) + " |")
    return "\n".join(["Built with and without `--streams 4`, each on an H200 of its own:", "", BOTH, *lines])


def read(file):
    """A recorded report."""
    return json.loads((RECORDED / file).read_text(encoding="utf-8"))


def main(check):
    """Writes the tables into the README, or with `check` says whether they are there."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}\n{table()}\n\n{compared()}\n\n{both()}\n{END}{after}"
    if check:
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
