"""The connection to a Ray cluster: a local one that is started, or one at an address. Ray's messages stay in its files. No torch."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ssdtrt import config
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.system.versions import available_cores, pip_install

LOCAL = "local"
_HOST_AND_PORT = re.compile(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d{1,5})")
_TOKEN = Path(".ray", "auth_token")  # in a user's home: what Ray's own ports ask for
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Nothing is reported to anybody.
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Errors of the C++ core are in its files alone.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Else it warns of GPUs that a process does not use.
    "RAY_ENABLE_AUTO_CONNECT": "0",  # Serve's threads would connect to another cluster when this one has ended.
}
"""Variables that Ray reads when it is imported and when a cluster starts."""


def check_installed() -> None:
    """Check that Ray Data is installed, without importing it.

    Raises:
        SsdtrtError: Where it is not.
    """
    if not all(importlib.util.find_spec(name) for name in ("ray", "pyarrow", "pandas")):
        raise SsdtrtError(f"--ray needs Ray Data: {pip_install('ray')}")


def attempts_before() -> int:
    """Return how often this task of Ray was tried before, at least as often as its process died; 0 outside of a task."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_task_id() is None:
        return 0
    # Ray counts for itself alone, and tries without end.
    count = getattr(ray._private.worker.global_worker.core_worker, "get_current_task_attempt_number", lambda: 0)
    return int(count())


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Yield the module `ray`, connected to a cluster, and leave it at the end; one that was connected before stays so.

    Args:
        address: `local` for a cluster of this machine alone, which ends with the block; otherwise what `ray.init` takes.

    Raises:
        SsdtrtError: Where Ray is missing or no cluster answers.
    """
    check_installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's, of what is deprecated in itself.
        ray = sys.modules.get("ray")
        was_connected = ray is not None and ray.is_initialized()
        if ray is None or not was_connected:
            ray = connect(address)
        with quietly():
            importlib.import_module("ray.data")
        warnings.simplefilter("ignore")  # It has added filters of its own.
        _silence(ray)
        try:
            yield ray
        finally:
            if not was_connected:
                ray.shutdown()


def connect(address: str, **own: Any) -> ModuleType:
    """Connect this process to a cluster, and return the module `ray`. Its SIGTERM stays what it is.

    Args:
        address: `local` to start one of this machine alone; otherwise what `ray.init` takes.
        own: More options of `ray.init` for one that is started.

    Raises:
        SsdtrtError: Where no cluster answers, or none starts.
    """
    here = address == LOCAL
    if here:
        own = {"num_cpus": max(config.RAY_CPUS, available_cores()), "include_dashboard": False, **own}
    else:
        _give_token(address)
    with quietly():
        import ray
    try:
        if not here:
            _check_answers(address)
        with _same_sigterm(), quietly():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **(own if here else {}))
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, OSError, as the address is.
        if here:
            raise SsdtrtError(
                f"Ray does not start on this machine ({first_line(error)}). Its files say more: /tmp/ray"
            ) from error
        raise SsdtrtError(
            f"No Ray cluster answers at {address} ({first_line(error)}). Start one with `ray start --head` and give its "
            "address, such as 10.0.0.1:6379; one that asks for a token gets it with RAY_AUTH_MODE=token."
        ) from error
    return ray


def _check_answers(address: str) -> None:
    """Raise an OSError where nothing listens at a host and port, for which Ray would wait minutes."""
    if match := _HOST_AND_PORT.fullmatch(address):
        socket.create_connection((match[1], int(match[2])), timeout=config.RAY_CONNECT_SECONDS).close()


def _give_token(address: str) -> None:
    """Send this user's token to a cluster of this machine, as Ray does by itself for `auto` alone."""
    match = _HOST_AND_PORT.fullmatch(address)
    with contextlib.suppress(OSError, RuntimeError):  # It is another machine's address; there is no home.
        if Path.home().joinpath(_TOKEN).exists():
            socket.create_server((match[1] if match else "", 0)).close()
            os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """Undo what Ray makes of SIGTERM, which would hide that the command was terminated."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # What Ray makes of one that comes now.
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        with contextlib.suppress(ValueError):  # Not in the main thread, where Ray changes nothing either.
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Set the variables, and drop what the C++ core writes to stderr in the block: at which level it will write."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _silence(ray: ModuleType) -> None:
    """Keep the messages of Ray Data in its files, in the folder of its session."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if "File" not in type(handler).__name__:
            handler.setLevel(logging.CRITICAL + 1)
