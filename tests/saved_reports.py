"""Benchmark reports, small and with round figures: as JSON data of every schema, and as records."""

import copy
import json

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.benchmarking.report import BenchReport, BenchRow, BenchSettings, HostTimes
from ssdtrt.system.versions import MeasuredOn, Versions

VERSIONS = {
    "ssdtrt": "0.1.0", "python": "3.11.7", "torch": "2.14.0+cu130", "torchvision": "0.29.0", "torch_tensorrt": "2.14.0",
    "tensorrt": "11.1.0", "cuda": "13.0", "driver": "580.1",
}  # fmt: skip
HOST = {"os": "Linux", "architecture": "x86_64", "cpu": "Some CPU", "cores": 16}
GPU = {**HOST, "gpu": "Some GPU", "sm": "9.0", "versions": VERSIONS}
CPU = {**HOST, "gpu": None, "sm": None, "versions": {**VERSIONS, "torch_tensorrt": None, "tensorrt": None}}
SETTINGS = {
    "rounds": 10, "iterations": 10, "warmup": 10, "tf32": False, "cudnn_benchmark": True, "input_sets": 4,
    "clock": "CUDA events",
}  # fmt: skip


def row(case, median_ms, batch_size=1, file=None, precision="fp16", speedup=2.0, **changes):
    """A row as JSON data; without a time it failed."""
    data = {
        "name": file or case, "precision": precision, "batch_size": batch_size, "case": case, "file": file,
        "status": "ok" if median_ms else "failed", "reason": "" if median_ms else "out of memory", "samples": 100,
        "median_ms": median_ms, "p90_ms": median_ms, "p99_ms": median_ms, "max_ms": median_ms,
        "coefficient_of_variation": 0.01, "images_per_second": median_ms and batch_size / median_ms * 1e3,
        "speedup": median_ms and speedup, "memory_mib": 100.0, "build_seconds": None, "agreement": None,
    }  # fmt: skip
    return {**data, **changes}


def eager(median_ms=8.0, batch_size=1, **changes):
    """The row of the FP32 baseline."""
    return row("eager-fp32", median_ms, batch_size, precision="fp32", speedup=1.0, **changes)


def graph(median_ms=4.0, batch_size=1, **changes):
    """The row that tells whether a machine with a GPU changed."""
    return row("eager-fp16-graph", median_ms, batch_size, **changes)


def engine(median_ms=1.0, batch_size=1, file="work/b1.engine.ts", **changes):
    """The row of an engine file."""
    return row("engine", median_ms, batch_size, file, **changes)


def accuracy(ap, difference=0.0, images=1000):
    """The accuracy of a row."""
    return {"ap": ap, "ap50": 0.9675, "ap75": 0.9222, "difference": difference, "images": images}


def report(*rows, machine=GPU, settings=None, notes=()):
    """A report as JSON data of today's schema."""
    data = {"schema": 4, "kind": "bench", "machine": machine, "settings": settings or SETTINGS}
    return copy.deepcopy({**data, "rows": list(rows), "notes": list(notes)})


def third_schema(data):
    """The same report as schema 3 had it, when engines on a GPU ran without a CUDA graph by default."""
    old = {"engine-plain": "engine", "engine": "engine-graph"} if data["machine"]["gpu"] else {}
    return {**data, "schema": 3, "rows": [{**row, "case": old.get(row["case"], row["case"])} for row in data["rows"]]}


def second_schema(data):
    """The same report as schema 2 had it."""
    data = third_schema(data)
    old = {"case": "peer", "max_ms": "worst_ms", "coefficient_of_variation": "variation"}
    rows = [{old.get(name, name): value for name, value in row.items()} for row in data["rows"]]
    for row in rows:
        row["name"] = "eager FP32" if row["peer"] == "eager-fp32" else row["name"]
        if row.get("host"):
            row["host"] = {old.get(name, name): value for name, value in row["host"].items()}
    return {**data, "schema": 2, "rows": rows}


def first_schema(data):
    """The same report as the first version wrote it."""
    new = ("peer", "file", "status", "reason", "worst_ms", "variation")
    rows = []
    for row in second_schema(data)["rows"]:
        name = "eager FP32" if row["peer"] == "eager-fp32" else row["file"]
        rows.append({**{key: value for key, value in row.items() if key not in new}, "name": name})
    return {"machine": data["machine"], "settings": data["settings"], "rows": rows, "notes": data["notes"]}


def save(path, data):
    """Writes JSON data, and returns the path."""
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


_MEASURED_WITH = {"torch": "2.9.0", "torch_tensorrt": "2.9.1", "tensorrt": "10.1", "driver": "550.54"}
ON_CPU = MeasuredOn(cpu="Some CPU", cores=2, versions=Versions(**{**_MEASURED_WITH, "torch_tensorrt": None}))
ON_GPU = MeasuredOn(cpu="Some CPU", cores=2, gpu="Some GPU", sm="9.0", versions=Versions(**_MEASURED_WITH))
BRIEF = BenchSettings(rounds=10, iterations=4, warmup=3, clock="host monotonic clock")


def parity(reference=40, engine=39, matched=38, change=0.0123, loc=1.23e-3, conf=4.56e-4, finite=True):
    """A comparison with FP32 that passes."""
    outputs = (OutputDistance("loc", loc, 0.5, finite), OutputDistance("conf", conf, 0.25, True))
    agreement = DetectionAgreement(reference, engine, matched, change)
    return ParityReport("fp16", 8, (1, 8), 2e-2, 1e-4, outputs, agreement)


def bench_row(name, precision, agreement=None, **changes):
    """A row as a record, with figures of 8 images."""
    values = {
        "batch_size": 8, "samples": 40, "median_ms": 14.123, "p90_ms": 14.5, "p99_ms": 120.44, "max_ms": 121.0,
        "images_per_second": 566.4, "speedup": 1.0, "coefficient_of_variation": 0.0123,
        "host": HostTimes(14.2, 14.6, 121.0, 122.0),
    }  # fmt: skip
    return BenchRow(name=name, precision=precision, agreement=agreement, **{**values, **changes})


BASELINE_ROW = bench_row("eager-fp32", "fp32", case="eager-fp32", first_call_ms=1234.5)
ENGINE_ROW = bench_row(
    "ssd300.engine.ts", "fp16", parity(), case="engine", file="ssd300.engine.ts", median_ms=1.7654, p90_ms=1.8,
    p99_ms=9.9994, max_ms=12.345, images_per_second=4531.6, speedup=8.004, speedup_low=7.514, speedup_high=8.126,
    memory_mib=1234.5, build_seconds=119.6, host=HostTimes(1.9, 2.0, 10.1, 13.0, 0.2), first_call_ms=2.0,
)  # fmt: skip
FAILED_ROW = BenchRow("compile", "fp16", 8, case="compile", status="failed", reason="no Triton")


def bench_report(*rows, machine=ON_CPU, notes=(), parts=(), settings=BRIEF):
    """A report as a record."""
    return BenchReport(machine, settings, rows, notes, parts)
