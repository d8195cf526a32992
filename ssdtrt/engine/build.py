"""Run the build of an engine in a child process, and end that process at once on Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from torch import nn

from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.errors import BuilderError, CompileError, ParityError, first_line
from ssdtrt.formats.plan_file import PlanInfo
from ssdtrt.system.child import child_environment, python_command
from ssdtrt.system.progress import Progress
from ssdtrt.system.versions import Machine, Versions

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_SHOWN = 400  # characters of an error in a note about it
_LOG_LINES = 15  # of the child's output, for the message when it ends without a result


class BuildJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the build process is given.

    Attributes:
        request: The build request.
        module: The path of the exported module.
        out: The path of the engine file to write, without metadata.
        device: The device to build on.
        timing_cache: The path of TensorRT's timing cache; None for none.
        merged_projections: Whether TensorRT gets the projections of residual blocks as parts of the blocks' last
            convolutions. Other back ends take the module as it is.
        parent: The id of the parent process.
    """

    request: BuildRequest
    module: str
    out: str
    device: str
    timing_cache: str | None = None
    merged_projections: bool = True
    parent: int


class Built(msgspec.Struct, frozen=True, kw_only=True, tag="built"):
    """A finished build.

    Attributes:
        seconds: How long it took.
        versions: The installed versions.
        machine: The machine that it ran on.
        plan: The plan, if the file is one.
        layers: Its layers.
        merged_projections: As in the job; None for a back end other than TensorRT.
    """

    seconds: float
    versions: Versions
    machine: Machine
    plan: PlanInfo | None = None
    layers: tuple[EngineLayer, ...] = ()
    merged_projections: bool | None = None


class BuildFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A failed build, the message of the error, and whether it was TensorRT's builder that failed."""

    message: str
    in_builder: bool = False


BuildResult = Built | BuildFailed


class BuiltNetwork(NamedTuple):
    """What a back end built.

    Attributes:
        module: The network: images [N, 3, 300, 300], float32 -> (loc [N, 4, A], conf [N, C, A]); None for a plan alone.
        plan: The serialized engine, if it was built through TensorRT's own API.
    """

    module: nn.Module | None
    plan: bytes | None = None


def build_in_either_layout(job: BuildJob, build: Callable[[BuildJob], _T], note: Progress) -> _T:
    """Build and accept an engine; once more with the projections apart where their layout may be what is at fault.

    TensorRT 11 has wrong results for convolutions that read a part of a concatenation, as the merged ones do. Another
    precision than the wanted one, and what has nothing to do with the network, would be the same in the other layout.

    Args:
        job: What to build.
        build: Builds the engine of a job and accepts it.
        note: Called with one line if the engine is built once more.

    Returns:
        What `build` returns.

    Raises:
        CompileError: If the engine cannot be built.
        ParityError: If it is refused.
    """
    try:
        return build(job)
    except (BuilderError, ParityError) as error:
        if job.request.front_end is None or (isinstance(error, ParityError) and not error.wrong_values):
            raise
        traceback.clear_frames(error.__traceback__)  # They hold the refused engine in the GPU's memory.
        first = error
    note(f"TensorRT gets the network once more, with the projections apart: {first_line(first, limit=_SHOWN)}")
    try:
        return build(msgspec.structs.replace(job, merged_projections=False))
    except (CompileError, ParityError) as second:
        message = f"{first} With the projections apart it was refused too: {first_line(second, limit=_SHOWN)}"
        if isinstance(first, ParityError):
            raise ParityError(message, first.report) from second
        raise BuilderError(message) from second


def build_in_child(job: BuildJob, progress: Progress) -> Built:
    """Run `ssdtrt.engine.worker` in a child process, which an interrupt kills.

    Args:
        job: What to build.
        progress: Called every second with one line.

    Raises:
        BuilderError: If TensorRT's builder fails.
        CompileError: If the build fails otherwise, or the process ends without a result.
    """
    with tempfile.TemporaryDirectory(prefix="ssdtrt-build-") as folder:
        job_path, log_path = Path(folder, "job.json"), Path(folder, "log.txt")
        # msgspec writes no path that is no text.
        job_path.write_text(json.dumps(msgspec.to_builtins(job)), encoding="utf-8")
        with open(log_path, "wb") as log:
            child = subprocess.Popen(
                python_command("ssdtrt.engine.worker", str(job_path)),
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
        raise (BuilderError if result.in_builder else CompileError)(result.message)
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
