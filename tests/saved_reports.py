"""Benchmark reports as JSON data, small and with round figures, for the tests of what is done with them."""

import copy
import json

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


def row(peer, median_ms, batch_size=1, file=None, precision="fp16", speedup=2.0, **changes):
    """A row of the second schema; without a time it failed."""
    data = {
        "name": file or peer, "precision": precision, "batch_size": batch_size, "samples": 100, "median_ms": median_ms,
        "p90_ms": median_ms, "p99_ms": median_ms, "images_per_second": median_ms and batch_size / median_ms * 1e3,
        "speedup": median_ms and speedup, "memory_mib": 100.0, "build_seconds": None, "agreement": None, "peer": peer,
        "file": file, "status": "ok" if median_ms else "failed", "reason": "" if median_ms else "out of memory",
    }  # fmt: skip
    return {**data, **changes}


def eager(median_ms=8.0, batch_size=1):
    """The row of FP32 eager."""
    return row("eager-fp32", median_ms, batch_size, precision="fp32", speedup=1.0)


def engine(median_ms=1.0, batch_size=1, file="work/b1.engine.ts", **changes):
    """The row of an engine file."""
    return row("engine", median_ms, batch_size, file, **changes)


def report(*rows, machine=GPU, settings=None, notes=()):
    """A report of the second schema."""
    data = {"schema": 2, "kind": "bench", "machine": machine, "settings": settings or SETTINGS}
    return copy.deepcopy({**data, "rows": list(rows), "notes": list(notes)})


def first_schema(data):
    """The same report as the first version wrote it."""
    new = ("peer", "file", "status", "reason")
    rows = []
    for row in data["rows"]:
        name = "eager FP32" if row["peer"] == "eager-fp32" else row["file"]
        rows.append({**{key: value for key, value in row.items() if key not in new}, "name": name})
    return {"machine": data["machine"], "settings": data["settings"], "rows": rows, "notes": data["notes"]}


def save(path, data):
    """Writes JSON data, and returns the path."""
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
