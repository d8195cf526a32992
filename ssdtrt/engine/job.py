"""What the parent process and the one that builds tell each other, as JSON."""

from __future__ import annotations

import msgspec

from ssdtrt.artifact.request import BuildRequest
from ssdtrt.system.versions import Machine, Versions


class BuildJob(msgspec.Struct, frozen=True, kw_only=True):
    """A request with what the building process needs besides.

    Attributes:
        request: What to build.
        module: The exported module's path.
        out: Where to write the engine file, without metadata.
        device: The device to build on.
        timing_cache: Where the times of TensorRT's kernels are kept; None for nowhere.
        parent: The process that waits.
    """

    request: BuildRequest
    module: str
    out: str
    device: str
    timing_cache: str | None = None
    parent: int


class Built(msgspec.Struct, frozen=True, kw_only=True, tag="built"):
    """A finished build: how long it took, with which versions, on which machine."""

    seconds: float
    versions: Versions
    machine: Machine


class BuildFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A build that failed, and why, in one message."""

    message: str


BuildResult = Built | BuildFailed
