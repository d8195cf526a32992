"""SSD300 from a checkpoint to a proven and measured Torch-TensorRT engine.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "BatchRange": "ssdtrt.artifact.request",
    "Detector": "ssdtrt.detect",
    "SsdtrtError": "ssdtrt.errors",
    "bench_files": "ssdtrt.bench",
    "benchmark": "ssdtrt.bench",
    "build_model": "ssdtrt.model",
    "compile_engine": "ssdtrt.compile",
    "doctor": "ssdtrt.diagnosis.checks",
    "evaluate_file": "ssdtrt.evaluate",
    "export_module": "ssdtrt.export",
    "load_engine": "ssdtrt.artifact.runner",
    "run_job": "ssdtrt.run",
    "verify_engine": "ssdtrt.verify",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'ssdtrt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted(__all__)
