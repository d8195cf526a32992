"""What is installed here, told without importing it, and what a child process needs to find the same."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def tensorrt_version() -> str | None:
    """TensorRT's version, under whichever of its names it is installed, or None."""
    return installed("tensorrt") or installed("tensorrt-cu13") or installed("tensorrt-cu12")


def child_environment() -> dict[str, str]:
    """This process's environment, and in it the way to this very package, for a child that runs a part of it."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
