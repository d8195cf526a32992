"""Connect to Ray, or start it on this machine, and keep its messages from the user."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import re
import socket
import time
from urllib.parse import urlsplit

from ssdtrt import config
from ssdtrt.clusters import session
from ssdtrt.errors import SsdtrtError
from ssdtrt.system.versions import pip_install

START_ONE = "Start one: ssdtrt serve FILE"
_POLL_SECONDS = 0.1


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
    ray = session.connect(address or session.LOCAL, object_store_memory=config.SERVE_STORE_BYTES)
    for name in ("ray", "ray.serve"):  # Serve sets its logger's level anew.
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
    found: str = ray.get_runtime_context().gcs_address
    return found


def connect_to_running(address: str | None) -> str:
    """Connect to the cluster of a service that runs.

    Args:
        address: As for `connect`; None for the one that runs on this machine.

    Returns:
        Its address.

    Raises:
        SsdtrtError: Where there is none.
    """
    try:
        return connect(address or "auto")
    except SsdtrtError as error:
        if address:
            raise
        raise SsdtrtError(f"No service runs on this machine, because no Ray cluster does. {START_ONE}") from error


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends."""
    import ray

    ray.shutdown()


def wait_for_port(url: str, seconds: float) -> None:
    """Wait until nothing listens at the address of a service whose cluster ends, so that the next one can.

    Raises:
        SsdtrtError: Where that takes longer.
    """
    place = urlsplit(url)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(SsdtrtError):
            return check_port(place.hostname or "", place.port or 0)
        time.sleep(_POLL_SECONDS)
    raise SsdtrtError(
        f"The service was asked to end, and still listens at {url} after {seconds:g} s. Look at `ray status`."
    )


def start_failure(text: str) -> str:
    """Return why a service does not start, out of the text of Serve's error: our own one, or HAProxy's first, or the last line."""
    ours, of_haproxy = (re.findall(form, text) for form in (r"ssdtrt\.errors\.\w+: (.+)", r"\[ALERT\] .*? : (.+)"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    why = next(iter(of_haproxy), lines[-1] if lines else "no reason is known")
    return ours[-1] if ours else f"The service does not start ({why})."


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
    except (OSError, UnicodeError) as error:  # The latter for a name that cannot be one.
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            raise SsdtrtError(f"{host}:{port} is not free ({reason}). Give another --port.") from error
        raise SsdtrtError(f"{host!r} is no address of this machine ({reason}). Give another --host.") from error
