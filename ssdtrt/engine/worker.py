"""The build process, which `ssdtrt.engine.build` starts: it reads a job, and writes an engine file and a result.

The compiler holds the interpreter lock for minutes, so the progress and Ctrl-C are handled in the parent process.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from ssdtrt.engine.build import BuildFailed, BuildJob, BuildResult, Built, BuiltNetwork
from ssdtrt.engine.modules import DetectorModule
from ssdtrt.errors import BuilderError, SsdtrtError, first_line
from ssdtrt.formats.plan_file import PlanInfo
from ssdtrt.runners import torchscript
from ssdtrt.runners.engine_layers import layers_of
from ssdtrt.runners.tensorrt_engine import TensorRTEngine
from ssdtrt.system.child import die_with_parent
from ssdtrt.system.versions import installed_versions, this_machine

# The module of `ssdtrt.engine` that builds the network, by back end and front end; only the one that is used is imported.
# What each back end can build is in `ssdtrt.artifact.precision`.
_MODULES: dict[tuple[str, str | None], str] = {
    ("tensorrt", "torchscript"): "torch_tensorrt_backend",
    ("tensorrt", "tensorrt"): "tensorrt_backend",
    ("torchscript", None): "torchscript_backend",
}


def build_network(job: BuildJob) -> BuiltNetwork:
    """Build the network of a job with the back end of its request.

    Raises:
        CompileError: If the build fails; the message has the library's first line.
    """
    name = _MODULES[job.request.backend, job.request.front_end]
    build: Callable[[BuildJob], BuiltNetwork] = importlib.import_module(f"ssdtrt.engine.{name}").build
    return build(job)


def _build(job: BuildJob) -> Built:
    """Build the engine of a job, and write it to `job.out`."""
    device = torch.device(job.device)
    started = time.perf_counter()
    engine, plan = build_network(job)
    seconds = round(time.perf_counter() - started, 1)
    if engine is None:
        assert plan is not None
        Path(job.out).write_bytes(plan)
    else:
        _save(engine, job, device)
    return Built(
        seconds=seconds,
        versions=installed_versions(),
        machine=this_machine(device),
        plan=PlanInfo.of(plan) if plan is not None and engine is None else None,
        layers=layers_of(TensorRTEngine(plan, device)) if plan is not None else (),
        merged_projections=job.merged_projections if job.request.front_end else None,
    )


def _save(engine: torch.nn.Module, job: BuildJob, device: torch.device) -> None:
    """Write a network as a TorchScript module, for a detector with what belongs to one around it."""
    if job.request.detector:
        engine = DetectorModule(engine, job.request.preprocess).to(device)
    with torchscript.quiet():
        scripted = torch.jit.script(engine.eval())
    torchscript.save(scripted, job.out)


def main(job_path: str) -> int:
    """Run the job in a file, and write `result.json` to the same folder.

    Returns:
        The exit code: 0 if an engine was built, else 1.
    """
    path = Path(job_path)
    job = msgspec.convert(json.loads(path.read_text(encoding="utf-8")), BuildJob)
    die_with_parent(job.parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # So that Ctrl-C also ends the C++ compiler.
    result: BuildResult
    try:
        result = _build(job)
    except SsdtrtError as error:
        result = BuildFailed(str(error), isinstance(error, BuilderError))
    except Exception as error:  # The parent reports it; the traceback is in the log.
        traceback.print_exc()
        result = BuildFailed(f"The build failed ({type(error).__name__}: {first_line(error, 'no message')}).")
    path.with_name("result.json").write_bytes(msgspec.json.encode(result))
    return 0 if isinstance(result, Built) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
