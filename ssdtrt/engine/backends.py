"""The table of back ends: who builds the network of a request."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssdtrt.engine import tensorrt_backend, torch_tensorrt_backend, torchscript_backend
from ssdtrt.engine.build import BuildJob

Builder = Callable[[BuildJob], torch.nn.Module]
"""Builds what takes images [N, 3, 300, 300] in float32 and returns (loc [N, 4, A], conf [N, C, A])."""

# By back end and front end; `ssdtrt.artifact.capabilities` says what each back end can do.
BUILDERS: dict[tuple[str, str | None], Builder] = {
    ("tensorrt", "torchscript"): torch_tensorrt_backend.build,
    ("tensorrt", "tensorrt"): tensorrt_backend.build,
    ("torchscript", None): torchscript_backend.build,
}


def build_network(job: BuildJob) -> torch.nn.Module:
    """Build the network of a job with the back end that it names.

    Raises:
        CompileError: Where it cannot be built, with what the library said.
    """
    return BUILDERS[job.request.backend, job.request.front_end](job)
