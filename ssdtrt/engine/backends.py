"""The table of back ends: the module of `ssdtrt.engine` that builds the network for each of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from ssdtrt.engine.build import BuildJob

# By back end and front end; what each back end can build is in `ssdtrt.artifact.precision`. Only the one that is used
# is imported.
_MODULES: dict[tuple[str, str | None], str] = {
    ("tensorrt", "torchscript"): "torch_tensorrt_backend",
    ("tensorrt", "tensorrt"): "tensorrt_backend",
    ("torchscript", None): "torchscript_backend",
}


def build_network(job: BuildJob) -> torch.nn.Module:
    """Build the network of a job with the back end of its request.

    Returns:
        A module: images [N, 3, 300, 300], float32 -> (loc [N, 4, A], conf [N, C, A]).

    Raises:
        CompileError: If the build fails; the message has the library's first line.
    """
    name = _MODULES[job.request.backend, job.request.front_end]
    build: Callable[[BuildJob], torch.nn.Module] = importlib.import_module(f"ssdtrt.engine.{name}").build
    return build(job)
