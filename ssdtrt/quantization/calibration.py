"""Calibration: the histograms of the tensors of a network on pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssdtrt.quantization.calibrators import BINS, Histogram
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import QuantizedTensor, quantized_tensors


@torch.no_grad()
def measure_histograms(fused: FusedSSD300, batches: Iterable[Tensor]) -> dict[str, Histogram]:
    """Return the histogram of each tensor of `quantized_tensors` over all images.

    The images are run twice: for the largest values, which are the edges of the histograms, and for the counts.

    Args:
        fused: The fused network in FP32.
        batches: Normalized images [N, 3, 300, 300] on its device, which can be iterated over twice. A count is exact
            below 2**24 in a batch and bin, which holds for 8 images.
    """
    largest: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}

    def find_largest(tensor: QuantizedTensor, x: Tensor) -> None:
        found = x.abs().amax().double()
        largest[tensor.name] = torch.maximum(largest.get(tensor.name, found), found)

    def count(tensor: QuantizedTensor, x: Tensor) -> None:
        x, edge = x.abs(), float(largest[tensor.name])
        if edge > 0:
            found = torch.histc(x[x > 0], BINS, 0, edge).double()
            counts[tensor.name] = counts.get(tensor.name, 0) + found

    for see in (find_largest, count):
        with _Observed(fused, see):
            for images in batches:
                fused(images)
    empty = torch.zeros(BINS)
    return {
        name: Histogram(counts.get(name, empty).cpu().numpy().astype(np.int64), float(edge))
        for name, edge in largest.items()
    }


class _Observed:
    """Calls a function with each tensor of `quantized_tensors` while the network runs."""

    def __init__(self, fused: FusedSSD300, see: Any):
        self.handles = [self._watch(tensor, see) for tensor in quantized_tensors(fused)]

    def _watch(self, tensor: QuantizedTensor, see: Any) -> Any:
        def seen(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
            x = output if tensor.output else inputs[0]
            assert x is not None
            see(tensor, x if tensor.channels is None else x[:, : tensor.channels])

        return (
            tensor.module.register_forward_hook(seen)
            if tensor.output
            else tensor.module.register_forward_pre_hook(seen)
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
