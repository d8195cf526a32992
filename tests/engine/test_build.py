"""Tests of the build process: its errors, and its end with the parent process."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import msgspec
import pytest
from forked_builds import fork

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.compile import compile_engine
from ssdtrt.engine.build import BuildFailed, BuildJob, build_in_child, build_in_either_layout
from ssdtrt.errors import BuilderError, CompileError, ParityError
from ssdtrt.system.progress import silent

pytestmark = pytest.mark.usefixtures("separate_builds")
FIRST, SECOND = "TensorRT could not build the engine (no kernel).", "The engine is too far."
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
OTHER = b"what was here before"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return the folder in which the build process has its job and its log."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def out(tmp_path):
    """Return an output path in a separate folder, with an older file there."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.engine.ts").write_bytes(OTHER)
    return folder / "a.engine.ts"


def untouched(out, scratch=None):
    """Return whether only the unchanged older file is left, and no folder of the process."""
    return (
        out.read_bytes() == OTHER
        and os.listdir(out.parent) == [out.name]
        and (scratch is None or os.listdir(scratch) == [])
    )


def building(of="self"):
    """Return the ids of the running build processes that a process has started."""
    found = []
    for children in Path(f"/proc/{of}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            if b"ssdtrt.engine.worker" in command_of(child):
                found.append(child)
    return found


def command_of(process):
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_building_process_that_cannot_start_shows_the_end_of_its_log(module, out, scratch, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(out.parent / "nowhere"))
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out, backend="torchscript")
    lines = str(caught.value).split("\n")
    assert lines[0] == "The build process ended with exit code 1 and wrote no engine."
    assert any("No module named 'encodings'" in line for line in lines[1:]) and len(lines) <= 16
    assert untouched(out, scratch)


@LINUX
def test_a_building_process_that_is_killed_is_reported(module, out, scratch):
    def kill(text):
        for child in building():
            os.kill(child, signal.SIGKILL)

    with pytest.raises(CompileError, match="The build process ended with exit code -9 and wrote no engine."):
        compile_engine(module, out, backend="torchscript", progress=kill)
    assert untouched(out, scratch)


@LINUX
def test_breaking_off_ends_the_building_process_at_once_and_leaves_nothing(module, out, scratch):
    seen = []

    def interrupt(text):
        seen.extend(building())
        if not text.endswith(", 0 s"):  # As it starts, its command line may still be empty.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_engine(module, out, backend="torchscript", progress=interrupt)
    assert len(set(seen)) == 1 and command_of(seen[0]) == b""
    assert untouched(out, scratch)


@LINUX
@pytest.mark.parametrize("moment", ["as it starts", "while it builds"])
def test_a_building_process_whose_parent_is_killed_dies_too(module, out, scratch, moment):
    parent = fork(lambda: compile_engine(module, out, backend="torchscript") and 0)
    try:
        wait_for(lambda: building(parent))
        (child,) = building(parent)
        if moment == "while it builds":  # By then it has removed Python's handler of Ctrl-C.
            wait_for(lambda: catches_interrupts(child))
            wait_for(lambda: not catches_interrupts(child))
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    wait_for(lambda: not command_of(child))
    assert not list(scratch.glob("*/result.json"))  # It ended before it wrote a result.
    assert out.read_bytes() == OTHER


def catches_interrupts(process):
    """Return whether a process handles SIGINT; False if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGINT - 1) & 1)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.parametrize("in_builder, kind", [(True, BuilderError), (False, CompileError)])
def test_a_failure_of_tensorrts_builder_is_an_error_of_its_own(monkeypatch, in_builder, kind):
    class Failing:
        returncode = 1

        def __init__(self, command, **_):
            result = BuildFailed(FIRST, in_builder=in_builder)
            Path(command[-1]).with_name("result.json").write_bytes(msgspec.json.encode(result))

        def poll(self):
            return 1

        def wait(self, timeout=None):
            return 1

    monkeypatch.setattr(subprocess, "Popen", Failing)
    with pytest.raises(CompileError) as caught:
        build_in_child(job_for("tensorrt"), silent)
    assert type(caught.value) is kind and str(caught.value) == FIRST


# In either layout


def job_for(front_end):
    backend = {"backend": "tensorrt", "precision": "fp16", "batch": "8"} if front_end else {"backend": "torchscript"}
    request = BuildRequest(
        **{"weights": "0" * 64, "graph": "1" * 64, "preprocess": "eval", "precision": "fp32", **backend},
        front_end=front_end,
    )
    return BuildJob(request=request, module="m.ts", out="a.ts", device="cpu", parent=1)


def report(distance=1.0, floor=1e-3):
    outputs = (OutputDistance("loc", distance),)
    return ParityReport("fp16", 8, (8,), 2e-2, floor, outputs, DetectionAgreement(10, 10))


def attempts(*answers, front_end="tensorrt"):
    """Build with these answers, or errors, one after another; return the result, the layouts asked for, and the notes."""
    asked, notes, left = [], [], list(answers)

    def build(job):
        asked.append(job.merged_projections)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        return build_in_either_layout(job_for(front_end), build, notes.append), asked, notes
    except (CompileError, ParityError) as error:
        return error, asked, notes


def test_an_engine_that_is_accepted_is_built_once():
    assert attempts("built") == ("built", [True], [])


@pytest.mark.parametrize("front_end", ["tensorrt", "torchscript"])
@pytest.mark.parametrize(
    "refusal", [BuilderError(FIRST), ParityError(FIRST, report()), ParityError(FIRST, report(None))]
)
def test_a_layout_that_is_refused_is_left_once_and_that_is_said(front_end, refusal):
    result, asked, notes = attempts(refusal, "built", front_end=front_end)
    assert (result, asked) == ("built", [True, False])
    assert notes == [f"TensorRT gets the network once more, with the projections apart: {FIRST}"]


@pytest.mark.parametrize(
    "refusal, front_end",
    [
        (CompileError("The build process ended with exit code -9."), "tensorrt"),
        (ParityError("The engine is not FP16: its size."), "tensorrt"),
        (ParityError("The engine is not FP16: its distance.", report(1e-5)), "tensorrt"),
        (BuilderError(FIRST), None),
        (ParityError(SECOND, report()), None),
    ],
)
def test_what_the_layout_does_not_change_is_not_built_again(refusal, front_end):
    assert attempts(refusal, "built", front_end=front_end) == (refusal, [True], [])


@pytest.mark.parametrize(
    "second", [ParityError(SECOND, report()), CompileError(SECOND), BuilderError(SECOND + "\nmore")]
)
def test_the_first_refusal_is_the_error_where_both_layouts_are_refused(second):
    for first in (BuilderError(FIRST), ParityError(FIRST, report(0.5))):
        error, asked, notes = attempts(first, second)
        assert asked == [True, False] and len(notes) == 1 and type(error) is type(first)
        assert str(error) == f"{FIRST} With the projections apart it was refused too: {SECOND}"
        assert getattr(error, "report", None) == getattr(first, "report", None)


def test_a_refused_engine_is_freed_before_the_next_is_built():
    class Engine:
        pass

    held = []

    def build(job):
        if not job.merged_projections:
            return held[0]() is None
        engine = Engine()
        held.append(weakref.ref(engine))
        raise ParityError(FIRST, report())

    assert build_in_either_layout(job_for("tensorrt"), build, lambda text: None)
