"""The back end for engines on the CPU: the frozen module in FP32 or BF16."""

from __future__ import annotations

from ssdtrt.engine.build import BuildJob, BuiltNetwork
from ssdtrt.engine.modules import EngineModule
from ssdtrt.runners import torchscript


def build(job: BuildJob) -> BuiltNetwork:
    """Freeze the module of a job in the precision of its request, in channels-last format, for any batch size."""
    dtype = job.request.computes_in.dtype
    network = torchscript.reload(torchscript.freeze(torchscript.load(job.module).to(dtype)))
    return BuiltNetwork(EngineModule(network, dtype, None, channels_last=True))
