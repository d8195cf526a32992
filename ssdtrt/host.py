"""What is installed here, told without importing it."""

from __future__ import annotations

import importlib.metadata


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def tensorrt_version() -> str | None:
    """TensorRT's version, under whichever of its names it is installed, or None."""
    return installed("tensorrt") or installed("tensorrt-cu13") or installed("tensorrt-cu12")
