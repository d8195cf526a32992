"""The table of back ends: the function that builds the network for each of them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssdtrt.engine import tensorrt_backend, torch_tensorrt_backend, torchscript_backend
from ssdtrt.engine.build import BuildJob

# Returns a module: images [N, 3, 300, 300], float32 -> (loc [N, 4, A], conf [N, C, A]).
_Builder = Callable[[BuildJob], torch.nn.Module]

# By back end and front end; what each back end can build is in `ssdtrt.artifact.precision`.
_BUILDERS: dict[tuple[str, str | None], _Builder] = {
    ("tensorrt", "torchscript"): torch_tensorrt_backend.build,
    ("tensorrt", "tensorrt"): tensorrt_backend.build,
    ("torchscript", None): torchscript_backend.build,
}


def build_network(job: BuildJob) -> torch.nn.Module:
    """Build the network of a job with the back end of its request.

    Raises:
        CompileError: If the build fails; the message has the library's first line.
    """
    return _BUILDERS[job.request.backend, job.request.front_end](job)
