"""The connection to a cluster: addresses where none answers, and a local one, which ends with the command."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import ENVIRONMENT
from PIL import Image

from known import Few, known_file
from ssdtrt.clusters import session
from ssdtrt.clusters.session import connected
from ssdtrt.errors import SsdtrtError

pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="needs the extra ray")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "[::1]:9", "localhost:9"])
def test_where_nothing_listens_is_said_at_once(address):
    with pytest.raises(SsdtrtError) as error, connected(address):  # Ray itself would wait for minutes.
        pass
    assert str(error.value).startswith(f"No Ray cluster answers at {address} (")
    assert str(error.value).endswith("one that asks for a token gets it with RAY_AUTH_MODE=token.")


@pytest.mark.parametrize(("address", "sent"), [
    ("127.0.0.1:9", True), ("localhost:9", True), ("ray://127.0.0.1:9", True), ("auto", True), ("192.0.2.1:9", False),
])  # fmt: skip
def test_a_users_token_goes_to_clusters_of_this_machine(tmp_path, monkeypatch, address, sent):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # So that what is set is undone.
    monkeypatch.delenv("RAY_AUTH_MODE")
    session._give_token(address)
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    session._give_token(address)
    assert os.environ.get("RAY_AUTH_MODE") == ("token" if sent else None)


def processes_of(first):
    """The processes that belong to a session of POSIX, by the number of its first one."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getsid(int(folder.name)) == first:
                found.append((folder / "cmdline").read_bytes())
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_sigterm_ends_the_command_and_its_cluster(tmp_path):
    known_file(tmp_path / "few.ts", network=Few)
    (tmp_path / "in").mkdir()
    for n in range(1000):
        Image.new("RGB", (60, 40), (n % 200, 10, 10)).save(tmp_path / "in" / f"{n:04}.png")
    command = [sys.executable, "-m", "ssdtrt", "detect", "few.ts", "in", "--ray", "local", "-o", "out"]
    with open(tmp_path / "stdout", "wb") as stdout, open(tmp_path / "stderr", "wb") as stderr:
        child = subprocess.Popen([*command, "--block-size", "5"], cwd=tmp_path, env=ENVIRONMENT, stdout=stdout,
                                 stderr=stderr, start_new_session=True)  # fmt: skip
    until = time.monotonic() + 300
    shown = lambda: "detecting [" in (tmp_path / "stderr").read_text()  # noqa: E731
    while not shown() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 143
    lines = (tmp_path / "stderr").read_text().splitlines()
    assert lines[:3] == ["listing", "starting Ray", "asking the machines"]
    assert lines[3].startswith("plan: 1,000 pictures in 200 blocks; ")
    assert any(line.startswith("detecting [") for line in lines[4:-1])  # Ray itself may say something of its end.
    assert lines[-1] == "terminated; finished files are whole, nothing half-written is left"
    assert (tmp_path / "stdout").read_bytes() == b""
    while processes_of(child.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of(child.pid) == []
