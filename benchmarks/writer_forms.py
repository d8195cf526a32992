"""Build FP16 engines of batch 1 through TensorRT's API in other forms than `compile` does, and record their times.

    python benchmarks/writer_forms.py ssd300.ts --json forms.json

Each form is built on the GPU, compared with the first and measured as a CUDA graph, in interleaved rounds. With
`--timings FILE` kernels that were timed in an earlier build are not timed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import torch
from torch import nn

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine import parity, tensorrt_backend
from ssdtrt.engine.network_writer import NetworkWriter
from ssdtrt.engine.tensorrt_backend import BuildLimits, build_plan
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.runners.tensorrt_engine import load_plan
from ssdtrt.runners.timing import time_calls
from ssdtrt.system.devices import pick_device
from ssdtrt.system.versions import this_machine

BATCH = BatchRange.parse(1)


class InputFirst(NetworkWriter):
    """A block's addition has the block's input first."""

    def _add_block(self, x: Any, block: nn.Module) -> Any:
        add = self.network.add_elementwise

        class Swapped:
            """The network, with the terms of additions exchanged."""

            def __getattr__(self, name: str) -> Any:
                return getattr(network, name)

            def add_elementwise(self, y: Any, x: Any, operation: Any) -> Any:
                return add(x, y, operation)

        network = self.network
        self.network = Swapped()
        try:
            return super()._add_block(x, block)
        finally:
            self.network = network


class FlatLast(NetworkWriter):
    """The convolution of a whole map to a single pixel is one of a single pixel with nine times the channels."""

    def _add_convolution(self, x: Any, module: nn.Conv2d) -> Any:
        count, channels, height, width = x.shape
        if tuple(module.kernel_size) != (height, width) or (height, width) == (1, 1) or module.padding != (0, 0):
            return super()._add_convolution(x, module)
        flat = nn.Conv2d(channels * height * width, module.out_channels, 1)
        assert module.bias is not None
        flat.weight = nn.Parameter(module.weight.detach().reshape(module.out_channels, -1, 1, 1), requires_grad=False)
        flat.bias = nn.Parameter(module.bias.detach(), requires_grad=False)
        self._names[id(flat)] = self._name_of(module)
        self.flat = flat  # Its id must stay its own.
        return super()._add_convolution(self._reshape(x, (count, channels * height * width, 1, 1), "flat"), flat)


FORMS = {
    "4 streams, as compiled": (NetworkWriter, 4),
    "no streams": (NetworkWriter, 0),
    "2 streams": (NetworkWriter, 2),
    "6 streams": (NetworkWriter, 6),
    "input first in additions": (InputFirst, 4),
    "last block as matrix product": (FlatLast, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--timings", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    device = pick_device("cuda")
    fused = FusedSSD300(eager_model(options.module, device), torch.float16)
    images = synthetic_images(1).to(device)
    runners: dict[str, CudaGraphRunner] = {}
    report: dict[str, Any] = {"machine": msgspec.to_builtins(this_machine(device)), "forms": []}
    for name, (writer, streams) in FORMS.items():
        with mock.patch.object(tensorrt_backend, "NetworkWriter", writer):
            plan = build_plan(fused, BATCH, BuildLimits(streams), options.timings)
        runners[name] = CudaGraphRunner(load_plan(plan, device, 1), device)
        print(name, "built", flush=True)
    first = next(iter(runners.values()))
    expected = [part.clone() for part in first(images)]
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            samples[name] += time_calls(runner, [images], 25)
    for name, runner in runners.items():
        distance = max(parity.relative_l2(*pair) for pair in zip(runner(images), expected))
        row = {"form": name, "median_ms": statistics.median(samples[name]), "relative_l2": distance}
        report["forms"].append(row)
        print(f"{name:30} {row['median_ms']:.4f} ms  {distance:.1e}", flush=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
