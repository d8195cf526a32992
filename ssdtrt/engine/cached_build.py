"""Take an engine from the cache, or build it, accept it and add it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ssdtrt.artifact.cache_folder import keep_cache_limit
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.acceptance import accept, check_types
from ssdtrt.engine.build import BuildJob, Built, build_in_child, build_in_either_layout
from ssdtrt.engine.cache import add_to_cache, cache_key, copy_from_cache, timing_cache_file
from ssdtrt.system.progress import Progress, silent


class BuiltEngine(NamedTuple):
    """An accepted engine: its build, its comparison with FP32, and whether it came from the cache."""

    built: Built
    parity: ParityReport
    cached: bool


@dataclass(frozen=True)
class EngineBuilder:
    """Builds engines of one module on one device.

    Attributes:
        module: The exported module.
        device: The device to build on.
        cache: Whether the cache of engines is used.
        progress: Called with lines about how far a build is.
        note: Called with one line for a second build, and for engines that are removed from the cache.
    """

    module: Path
    device: torch.device
    cache: bool = True
    progress: Progress = silent
    note: Progress = silent

    def build(self, request: BuildRequest, out: Path) -> BuiltEngine:
        """Write the accepted engine of a request to `out`, without metadata.

        Raises:
            CompileError: If it cannot be built.
            ParityError: If it is refused.
        """
        key = cache_key(request, self.device) if self.cache else ""
        entry = copy_from_cache(key, out) if self.cache else None
        if entry is not None:
            return BuiltEngine(entry.built, entry.parity, True)
        timings = timing_cache_file(self.device) if self.cache and request.front_end == "tensorrt" else None
        job = BuildJob(
            request=request,
            module=str(self.module.resolve()),
            out=str(out.resolve()),
            device=str(self.device),
            timing_cache=str(timings) if timings else None,
            parent=os.getpid(),
        )
        built, parity = build_in_either_layout(job, self._build, self.note)
        if self.cache:
            add_to_cache(key, out, built, parity, request)
            keep_cache_limit({key, timings.stem if timings else ""}, self.note)
        return BuiltEngine(built, parity, False)

    def _build(self, job: BuildJob) -> tuple[Built, ParityReport]:
        """Build the engine of a job, and return its build and its parity; raise ParityError if it is refused."""
        built = build_in_child(job, self.progress)
        check_types(built.layers, job.request)
        return built, accept(Path(job.out), Path(job.module), job.request, self.device, self.progress)
