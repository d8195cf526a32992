"""The building process as its parent sees it: given a job, waited for, and ended at once when interrupted."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from ssdtrt.artifact.request import BuildRequest
from ssdtrt.errors import CompileError
from ssdtrt.system.child import child_environment
from ssdtrt.system.progress import Progress
from ssdtrt.system.versions import Machine, Versions

logger = logging.getLogger(__name__)
_LOG_LINES = 15


class BuildJob(msgspec.Struct, frozen=True, kw_only=True):
    """A request with what the building process needs besides.

    Attributes:
        request: What to build.
        module: The exported module's path.
        out: Where to write the engine file, without metadata.
        device: The device to build on.
        timing_cache: Where the times of TensorRT's kernels are kept; None for nowhere.
        parent: The process that waits.
    """

    request: BuildRequest
    module: str
    out: str
    device: str
    timing_cache: str | None = None
    parent: int


class Built(msgspec.Struct, frozen=True, kw_only=True, tag="built"):
    """A finished build: how long it took, with which versions, on which machine."""

    seconds: float
    versions: Versions
    machine: Machine


class BuildFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A build that failed, and why, in one message."""

    message: str


BuildResult = Built | BuildFailed


def build_in_child(job: BuildJob, progress: Progress) -> Built:
    """Run `ssdtrt.engine.worker` in a process of its own. Interrupting ends that process at once.

    Raises:
        CompileError: Where the build failed, or the process ended without a result.
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
        logger.debug("output of the building process:\n%s", log_text)
        if not result_path.exists():
            last = "\n".join(log_text.splitlines()[-_LOG_LINES:])
            raise CompileError(f"The building process ended with {child.returncode} and no engine.\n{last}".rstrip())
        result: BuildResult = msgspec.json.decode(result_path.read_bytes(), type=BuildResult)
    if isinstance(result, BuildFailed):
        raise CompileError(result.message)
    return result


def _wait(child: subprocess.Popen, doing: str, progress: Progress) -> None:
    """Wait for the child, showing every second how long it has been; kill it when the wait is broken off."""
    started = time.monotonic()
    try:
        while child.poll() is None:
            progress(f"{doing}, {time.monotonic() - started:.0f} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
