"""The building process as its parent sees it: started with a job, waited for, and ended at once when interrupted."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from ssdtrt.engine.job import BuildFailed, BuildJob, BuildResult, Built
from ssdtrt.errors import CompileError
from ssdtrt.system.child import child_environment
from ssdtrt.system.progress import Progress

logger = logging.getLogger(__name__)
_LOG_LINES = 15


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
