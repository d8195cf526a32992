"""Run the build of an engine in a child process, and end that process at once on Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
from torch import nn

from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.errors import CompileError
from ssdtrt.formats.plan_file import PlanInfo
from ssdtrt.system.child import child_environment
from ssdtrt.system.progress import Progress
from ssdtrt.system.versions import Machine, Versions

_logger = logging.getLogger(__name__)
_LOG_LINES = 15  # of the child's output, for the message when it ends without a result


class BuildJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the build process is given.

    Attributes:
        request: The build request.
        module: The path of the exported module.
        out: The path of the engine file to write, without metadata.
        device: The device to build on.
        timing_cache: The path of TensorRT's timing cache; None for none.
        parent: The id of the parent process.
    """

    request: BuildRequest
    module: str
    out: str
    device: str
    timing_cache: str | None = None
    parent: int


class Built(msgspec.Struct, frozen=True, kw_only=True, tag="built"):
    """A finished build.

    Attributes:
        seconds: How long it took.
        versions: The installed versions.
        machine: The machine that it ran on.
        plan: The plan, if the file is one.
        layers: Its layers.
    """

    seconds: float
    versions: Versions
    machine: Machine
    plan: PlanInfo | None = None
    layers: tuple[EngineLayer, ...] = ()


class BuildFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A failed build, and the message of the error."""

    message: str


BuildResult = Built | BuildFailed


class BuiltNetwork(NamedTuple):
    """What a back end built.

    Attributes:
        module: The network: images [N, 3, 300, 300], float32 -> (loc [N, 4, A], conf [N, C, A]); None for a plan alone.
        plan: The serialized engine, if it was built through TensorRT's own API.
    """

    module: nn.Module | None
    plan: bytes | None = None


def build_in_child(job: BuildJob, progress: Progress) -> Built:
    """Run `ssdtrt.engine.worker` in a child process, which an interrupt kills.

    Args:
        job: What to build.
        progress: Called every second with one line.

    Raises:
        CompileError: If the build fails, or the process ends without a result.
    """
    with tempfile.TemporaryDirectory(prefix="ssdtrt-build-") as folder:
        job_path, log_path = Path(folder, "job.json"), Path(folder, "log.txt")
        job_path.write_bytes(msgspec.json.encode(job))
        with open(log_path, "wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "ssdtrt.engine.worker", str(job_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(),
            )
            size = f"batch {job.request.batch}" if job.request.batch else "any batch"
            _wait(child, f"building the {job.request.computes_in.title} engine for {size}", progress)
        result_path = job_path.with_name("result.json")
        log_text = log_path.read_text(encoding="utf-8", errors="replace").strip()
        _logger.debug("output of the build process:\n%s", log_text)
        if not result_path.exists():
            last = "\n".join(log_text.splitlines()[-_LOG_LINES:])
            raise CompileError(
                f"The build process ended with exit code {child.returncode} and wrote no engine.\n{last}".rstrip()
            )
        result: BuildResult = msgspec.json.decode(result_path.read_bytes(), type=BuildResult)
    if isinstance(result, BuildFailed):
        raise CompileError(result.message)
    return result


def _wait(child: subprocess.Popen[bytes], step: str, progress: Progress) -> None:
    """Wait for the child and report the elapsed time every second; kill it if the wait is interrupted."""
    started = time.monotonic()
    try:
        while child.poll() is None:
            progress(f"{step}, {time.monotonic() - started:.0f} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
