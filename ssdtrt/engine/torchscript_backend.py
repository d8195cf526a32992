"""The back end for machines without a GPU: the exported module frozen, in FP32 or BF16."""

from __future__ import annotations

import torch

from ssdtrt.artifact import torchscript
from ssdtrt.engine.build import BuildJob
from ssdtrt.engine.modules import EngineModule


def build(job: BuildJob) -> torch.nn.Module:
    """Return the frozen module in the request's precision, channels last, for any batch size."""
    dtype = job.request.computes_in.dtype
    network = torchscript.reload(torchscript.freeze(torchscript.load(job.module).to(dtype)))
    return EngineModule(network, dtype, None, channels_last=True)
