"""Child processes that run a module of this package: their environment, and their end with the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
# `-m` would first look for every module in the working folder, among pictures that may be a stranger's.
_RUN = "import sys; sys.path[:] = filter(None, sys.path); import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"  # fmt: skip


def child_environment() -> dict[str, str]:
    """Return this process's environment with a PYTHONPATH on which a child finds this copy of the package."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package, and takes no other from the working folder."""
    return [sys.executable, "-c", _RUN, module, *arguments]


def die_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent ends (Linux only), so that no orphan keeps the GPU.

    Args:
        parent: The process id of the parent. If it has ended already, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
