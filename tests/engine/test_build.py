"""Tests of the build process: its errors, and its end with the parent process."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import ssdtrt
from ssdtrt.compile import compile_engine
from ssdtrt.errors import CompileError

pytestmark = pytest.mark.usefixtures("separate_builds")
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
        if len(seen) >= 2:  # It has run for a second.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_engine(module, out, backend="torchscript", progress=interrupt)
    assert len(set(seen)) == 1 and command_of(seen[0]) == b""
    assert untouched(out, scratch)


PARENT = """
import sys
from ssdtrt import compile_engine
compile_engine(sys.argv[1], sys.argv[2], backend="torchscript")
"""


@LINUX
@pytest.mark.parametrize("moment", ["as it starts", "while it builds"])
def test_a_building_process_whose_parent_is_killed_dies_too(module, out, scratch, moment):
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(ssdtrt.__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PARENT, str(module), str(out)], env=environment)
    try:
        wait_for(lambda: building(parent.pid))
        (child,) = building(parent.pid)
        if moment == "while it builds":  # By then it has removed Python's handler of Ctrl-C.
            wait_for(lambda: catches_interrupts(child))
            wait_for(lambda: not catches_interrupts(child))
    finally:
        parent.kill()
        parent.wait()
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
