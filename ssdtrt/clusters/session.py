"""The connection to a Ray cluster: a local one that is started, or one at an address. Ray's messages stay in its files. No torch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType

from ssdtrt import config
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.system.versions import available_cores, pip_install

LOCAL = "local"
_HOST_AND_PORT = re.compile(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d{1,5})")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Variables that Ray reads when it is imported and when a cluster starts: no statistics to its authors, errors of its C++ core
in its files alone, nothing of its machines on stdout, no advice on GPUs that stay visible to tasks which ask for none."""


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
        with quietly():
            import ray
            import ray.data

        warnings.simplefilter("ignore")  # It has added filters of its own.
        was_connected = ray.is_initialized()
        if not was_connected:
            _connect(ray, address)
        _silence(ray)
        try:
            yield ray
        finally:
            if not was_connected:
                ray.shutdown()


def _connect(ray: ModuleType, address: str) -> None:
    own = {"num_cpus": max(config.RAY_CPUS, available_cores()), "include_dashboard": False} if address == LOCAL else {}
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _check_answers(address)
        with quietly():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, OSError, as the address is.
        raise SsdtrtError(
            f"No Ray cluster answers at {address} ({first_line(error)}). Start one with `ray start --head` and give its "
            "address, such as 10.0.0.1:6379, or `local` for a cluster of this machine."
        ) from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)  # Ray's own would hide that the command was terminated.


def _check_answers(address: str) -> None:
    """Raise an OSError where nothing listens at a host and port, for which Ray would wait minutes."""
    if match := _HOST_AND_PORT.fullmatch(address):
        socket.create_connection((match[1], int(match[2])), timeout=config.RAY_CONNECT_SECONDS).close()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Set the variables, and drop what the C++ core writes to stderr in the block: at which level it will write."""
    for name, value in QUIET.items():
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
