"""Connect to Ray, or start it on this machine, and keep its messages from the user."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssdtrt import config
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.system.versions import available_cores, pip_install

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Nothing is reported to anybody.
    "RAY_ENABLE_AUTO_CONNECT": "0",  # Serve's threads would connect to another cluster when this one has ended.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Else it warns of GPUs that a process does not use.
}
_TOKEN = Path(".ray", "auth_token")  # in a user's home: what Ray's own ports ask for


def check_ray() -> None:
    """Check that Ray is installed, with Serve, without importing it.

    Raises:
        SsdtrtError: Where it is not.
    """
    if not all(map(importlib.util.find_spec, ("ray", "fastapi", "uvicorn"))):
        raise SsdtrtError(f"The service needs Ray, with Serve: {pip_install('ray')}")


def connect(address: str | None) -> str:
    """Connect to a Ray cluster, or start one of this machine alone.

    Args:
        address: The cluster's HOST:PORT, or `auto` for the one that runs here; None to start one.

    Returns:
        Its address.

    Raises:
        SsdtrtError: Where Ray is missing, or does not start or answer.
    """
    check_ray()
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    if address and _is_here(address) and Path.home().joinpath(_TOKEN).exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray gives it by itself to `auto` alone.
    import ray

    own: dict[str, Any] = {
        "num_cpus": max(config.SERVE_CPUS, available_cores()),
        "object_store_memory": config.SERVE_STORE_BYTES,
        "include_dashboard": False,
    }
    try:
        with _same_signals():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else own),
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"at {address}" if address else "here"
        raise SsdtrtError(
            f"There is no Ray cluster {where}, or it asks for a token, which RAY_AUTH_MODE=token sends "
            f"({first_line(error)})."
        ) from error
    for name in ("ray", "ray.serve"):  # Serve sets its logger's level anew.
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
    return ray.get_runtime_context().gcs_address


def _is_here(address: str) -> bool:
    """Whether the host of an address is this machine."""
    try:
        with socket.create_server((address.rpartition(":")[0], 0)):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Undo what Ray makes of SIGTERM, which ends a command as Ctrl-C does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # What Ray makes of it.
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        with contextlib.suppress(ValueError):  # Not in the main thread, where Ray changes nothing either.
            signal.signal(signal.SIGTERM, before)


def check_port(host: str, port: int) -> None:
    """Check that this machine can listen at an address, because Ray Serve only logs that it cannot.

    Raises:
        SsdtrtError: Where it cannot.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
    except OSError as error:
        raise SsdtrtError(f"{host}:{port} is not free ({error.strerror}). Give another --port.") from error
