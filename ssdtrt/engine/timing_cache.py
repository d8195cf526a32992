"""The times of TensorRT's kernels, kept beside the engines: the next build of the same layers need not take them."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch

from ssdtrt.system import machine
from ssdtrt.engine.cache import cache_folder
from ssdtrt.system.files import replacing

logger = logging.getLogger(__name__)
DIGEST = hashlib.sha256().digest_size


def file_for(device: torch.device) -> Path | None:
    """Where the times of TensorRT's kernels on this machine with these versions are kept; None for nowhere."""
    folder = cache_folder()
    if folder is None:
        return None
    parts = {"versions": machine.versions(), "machine": machine.machine(device)}
    return folder / f"timings-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}.bin"


def read(path: Path | None) -> bytes:
    """What `keep` wrote there last; nothing where there is none or it is not as it was written."""
    try:
        found = path.read_bytes() if path else b""
    except OSError:
        return b""
    timings = found[DIGEST:]
    return timings if found[:DIGEST] == hashlib.sha256(timings).digest() else b""


def keep(path: Path | None, timings: bytes) -> None:
    """Writes the times, their SHA-256 before them; of two builds at once those of the later one stay.

    A failure is logged and nothing more.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as temporary:
            temporary.write_bytes(hashlib.sha256(timings).digest() + timings)
    except OSError as error:
        logger.warning("the kernels' times are not kept in %s: %s", path, error.strerror or error)
