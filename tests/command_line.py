"""What the tests of the command line share: its environment, how it refuses, and a terminal to run it on."""

import json
import os
from pathlib import Path

import pytest
import torch

import forks
import ssdtrt
from ssdtrt.cli import main

TRUST = () if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6) else ("--trust-weights",)
COMMANDS = sorted(main.commands)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ssdtrt.__file__).parent.parent), "PYTHONWARNINGS": "ignore"}
ENVIRONMENT.pop("COLUMNS", None)
INTERRUPTED = "interrupted; finished files are whole, nothing half-written is left"


def strict(text):
    """JSON as the standard has it: NaN and Infinity are refused."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def pictures_in(folder):
    """The pictures of the detections.json in a folder."""
    found = strict((Path(folder) / "detections.json").read_text(encoding="utf-8"))
    assert list(found) == ["schema", "kind", "note", "pictures"] and (found["schema"], found["kind"]) == (
        2,
        "detections",
    )
    return found["pictures"]


def lines_of(text):
    """The pictures of JSON lines, without the schema and the kind that each begins with."""
    found = [strict(line) for line in text.splitlines()]
    assert all(list(one)[:2] == ["schema", "kind"] for one in found)
    assert all((one.pop("schema"), one.pop("kind")) == (2, "picture") for one in found)
    return found


def assert_refused(done, message):
    """One line on stderr, nothing on stdout, exit code 1, and no traceback behind it."""
    assert done.stderr == f"Error: {message}\n"
    assert (done.exit_code, done.stdout) == (1, "")
    assert isinstance(done.exception, SystemExit)


def on_a_terminal(arguments, folder, columns=80, typed=b"", **environment):
    """Runs a command on a pseudo-terminal, where this is typed: its exit code and all that was shown there."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = forks.begin(folder, arguments, terminal=slave, **environment)
    os.close(slave)
    os.write(master, typed)
    shown = b""
    try:
        while block := os.read(master, 4096):
            shown += block
    except OSError:  # Linux: the last one on the other side has left.
        pass
    finally:
        os.close(master)
    return forks.end(child), shown.decode()
