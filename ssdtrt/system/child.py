"""Processes that run a part of this package: what they need to find it, and their end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path


def child_environment() -> dict[str, str]:
    """Return this process's environment with the way to this very package, for a child that runs a part of it."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def die_with_parent(parent: int) -> None:
    """End this process when the one that waits for it is gone (Linux), so that no orphan keeps the GPU.

    Args:
        parent: The process that waits.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # It was gone before.
            os.kill(os.getpid(), signal.SIGKILL)
