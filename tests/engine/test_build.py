"""The building process: what is reported when it fails, and that it ends with whoever asked for it."""

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

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
OTHER = b"what was here before"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where the building process keeps its request and its log."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def out(tmp_path):
    """An output path in a folder of its own, where an older file lies."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.engine.ts").write_bytes(OTHER)
    return folder / "a.engine.ts"


def untouched(out, scratch=None):
    """Whether the older file is as it was, with nothing beside it and no process folder left."""
    return (
        out.read_bytes() == OTHER
        and os.listdir(out.parent) == [out.name]
        and (scratch is None or os.listdir(scratch) == [])
    )


def building(of="self"):
    """The ids of the building processes that a process has started and that still run."""
    found = []
    for children in Path(f"/proc/{of}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            if b"ssdtrt.engine.worker" in command_of(child):
                found.append(child)
    return found


def command_of(process):
    """The command line of a process; empty when it is gone."""
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
        if len(seen) >= 2:  # It has been there for a second.
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
        if moment == "while it builds":  # It has taken Python's handler of Ctrl-C off by then.
            wait_for(lambda: catches_interrupts(child))
            wait_for(lambda: not catches_interrupts(child))
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not command_of(child))
    assert not list(scratch.glob("*/result.json"))  # It ended before it was done.
    assert out.read_bytes() == OTHER


def catches_interrupts(process):
    """Whether a process handles SIGINT itself; False when it is gone."""
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
