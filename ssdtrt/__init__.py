"""SSD300 from a checkpoint to an accepted and measured Torch-TensorRT engine.

    build_model      weights -> the FP32 model
    export_module    model -> TorchScript module, on disk
    compile_engine   module -> engine, on disk only if it is accepted
    verify_engine    engine and FP32 model -> ParityReport
    load_engine      any saved file -> a callable, FileRunner
    Detector         pictures -> detections
    evaluate_file    pictures and annotations -> COCO figures
    bench_files      saved files -> latency, throughput, speed-up
    benchmark        your own callables -> the same
    run_job          all of it in one call
    diagnose         what this machine lacks for TensorRT engines

The whole way::

    from ssdtrt import Detector, bench_files, build_model, compile_engine, export_module, verify_engine

    module = export_module(build_model("coco"), "ssd300.ts")
    engine = compile_engine(module, "ssd300.engine.ts", precision="fp16")
    print(verify_engine(engine).passed)
    print(bench_files([engine]).rows[1].speedup)
    print(Detector(engine)(["street.jpg"])[0].detections)

Errors that a user can act on are all SsdtrtError. The names are imported when they are first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssdtrt.artifact.parity_report import ParityReport as ParityReport
    from ssdtrt.artifact.request import BatchRange as BatchRange
    from ssdtrt.artifact.runner import FileRunner as FileRunner
    from ssdtrt.artifact.runner import load_engine as load_engine
    from ssdtrt.bench import bench_files as bench_files
    from ssdtrt.bench import benchmark as benchmark
    from ssdtrt.compile import compile_engine as compile_engine
    from ssdtrt.detect import Detector as Detector
    from ssdtrt.doctor import diagnose as diagnose
    from ssdtrt.errors import SsdtrtError as SsdtrtError
    from ssdtrt.evaluate import evaluate_file as evaluate_file
    from ssdtrt.export import export_module as export_module
    from ssdtrt.model.ssd import SSD300 as SSD300
    from ssdtrt.model.weights import build_model as build_model
    from ssdtrt.run import run_job as run_job
    from ssdtrt.verify import verify_engine as verify_engine

__version__ = "0.1.0"

_HOMES = {
    "build_model": "ssdtrt.model.weights",
    "export_module": "ssdtrt.export",
    "compile_engine": "ssdtrt.compile",
    "verify_engine": "ssdtrt.verify",
    "load_engine": "ssdtrt.artifact.runner",
    "Detector": "ssdtrt.detect",
    "evaluate_file": "ssdtrt.evaluate",
    "bench_files": "ssdtrt.bench",
    "benchmark": "ssdtrt.bench",
    "run_job": "ssdtrt.run",
    "diagnose": "ssdtrt.doctor",
    "BatchRange": "ssdtrt.artifact.request",
    "FileRunner": "ssdtrt.artifact.runner",
    "ParityReport": "ssdtrt.artifact.parity_report",
    "SSD300": "ssdtrt.model.ssd",
    "SsdtrtError": "ssdtrt.errors",
}
__all__ = ["BatchRange", "Detector", "FileRunner", "ParityReport", "SSD300", "SsdtrtError", "bench_files", "benchmark",
           "build_model", "compile_engine", "diagnose", "evaluate_file", "export_module", "load_engine", "run_job",
           "verify_engine"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssdtrt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
