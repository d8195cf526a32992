"""Build, check, measure and run TensorRT engines of the SSD300 ResNet-50 detector.

    build_model      build the FP32 model from weights
    export_module    export a model to a TorchScript module on disk
    export_onnx      export a model to an ONNX file, a module or a detector
    compile_engine   build an engine from a module, and save it if it is accepted
    verify_engine    compare an engine with the FP32 model (ParityReport)
    load_engine      load a saved file as a callable (FileRunner)
    Detector         detect objects in pictures (Detections)
    detect_video     detect objects in the frames of a video or stream
    evaluate_file    compute COCO's AP and AR on annotated pictures
    bench_files      measure the latency, throughput and speed-up of saved files, with an Evaluation their AP too
    benchmark        measure your own callables
    profile_engine   measure each layer of a TensorRT engine
    write_page       make one HTML page of saved reports
    run_job          do all of this in one call
    diagnose         report what this machine lacks for TensorRT engines

From weights to detections::

    from ssdtrt import Detector, bench_files, build_model, compile_engine, export_module, verify_engine

    module = export_module(build_model("coco"), "ssd300.ts")
    engine = compile_engine(module, "ssd300.engine.ts", precision="fp16")
    print(verify_engine(engine).passed)
    print(bench_files([engine]).rows[1].speedup)
    print(Detector(engine)("street.jpg").detections)

Every error that a user can act on is an SsdtrtError. The names are imported on first use, so that importing the package
is fast and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssdtrt.artifact.parity_report import ParityReport as ParityReport
    from ssdtrt.artifact.request import BatchRange as BatchRange
    from ssdtrt.bench import bench_files as bench_files
    from ssdtrt.bench import benchmark as benchmark
    from ssdtrt.compile import compile_engine as compile_engine
    from ssdtrt.detect import Detector as Detector
    from ssdtrt.detection.results import Detections as Detections
    from ssdtrt.doctor import diagnose as diagnose
    from ssdtrt.errors import SsdtrtError as SsdtrtError
    from ssdtrt.evaluate import Evaluation as Evaluation
    from ssdtrt.evaluate import evaluate_file as evaluate_file
    from ssdtrt.export import export_module as export_module
    from ssdtrt.export import export_onnx as export_onnx
    from ssdtrt.model.ssd import SSD300 as SSD300
    from ssdtrt.model.weights import build_model as build_model
    from ssdtrt.profile import profile_engine as profile_engine
    from ssdtrt.quantization.options import Int8Options as Int8Options
    from ssdtrt.report import write_page as write_page
    from ssdtrt.run import run_job as run_job
    from ssdtrt.runners.runner import FileRunner as FileRunner
    from ssdtrt.runners.runner import load_engine as load_engine
    from ssdtrt.verify import verify_engine as verify_engine
    from ssdtrt.video.detection import detect_video as detect_video

__version__ = "0.1.0"

_HOMES = {
    "build_model": "ssdtrt.model.weights",
    "export_module": "ssdtrt.export",
    "export_onnx": "ssdtrt.export",
    "compile_engine": "ssdtrt.compile",
    "verify_engine": "ssdtrt.verify",
    "load_engine": "ssdtrt.runners.runner",
    "Detector": "ssdtrt.detect",
    "Detections": "ssdtrt.detection.results",
    "detect_video": "ssdtrt.video.detection",
    "evaluate_file": "ssdtrt.evaluate",
    "Evaluation": "ssdtrt.evaluate",
    "bench_files": "ssdtrt.bench",
    "benchmark": "ssdtrt.bench",
    "profile_engine": "ssdtrt.profile",
    "write_page": "ssdtrt.report",
    "run_job": "ssdtrt.run",
    "diagnose": "ssdtrt.doctor",
    "BatchRange": "ssdtrt.artifact.request",
    "Int8Options": "ssdtrt.quantization.options",
    "FileRunner": "ssdtrt.runners.runner",
    "ParityReport": "ssdtrt.artifact.parity_report",
    "SSD300": "ssdtrt.model.ssd",
    "SsdtrtError": "ssdtrt.errors",
}
__all__ = ["SSD300", "BatchRange", "Detections", "Detector", "Evaluation", "FileRunner", "Int8Options", "ParityReport", "SsdtrtError",
           "bench_files", "benchmark",
           "build_model", "compile_engine", "detect_video", "diagnose", "evaluate_file", "export_module", "export_onnx", "load_engine",
           "profile_engine", "run_job", "verify_engine", "write_page"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssdtrt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
