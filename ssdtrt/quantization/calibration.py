"""Calibration: the ranges of the tensors of a network, from their histograms on pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ssdtrt.images.tensors import normalize
from ssdtrt.model.ssd import SSD300
from ssdtrt.quantization.calibrators import BINS, Histogram, range_of
from ssdtrt.rewriting.equalized import choose_exponents, equalize
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import QuantizedTensor, quantized_tensors
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.progress import Progress, ProgressBar, silent

_BATCH = 8  # images at once: torch.histc counts exactly below 2**24 values of a bin
_See = Callable[[QuantizedTensor, Tensor], None]


class Calibration(NamedTuple):
    """The ranges of all tensors that INT8 needs, and the exponents of the channels (see `CalibrationTable`)."""

    ranges: dict[str, float]
    exponents: dict[str, tuple[int, ...]]


def calibrate(
    model: SSD300, pictures: Tensor, calibrator: str, preprocess: str, progress: Progress = silent
) -> Calibration:
    """Choose the exponents that equalize the channels of a network, and measure the ranges of its tensors with them.

    Args:
        model: The FP32 model.
        pictures: uint8 [N, 3, 300, 300], on any device.
        calibrator: A name of config.CALIBRATORS.
        preprocess: `eval` or `hub`.
        progress: Called with lines about how far it is.
    """
    device = next(model.parameters()).device
    batches = [part.to(device) for part in pictures.split(_BATCH)]
    fused = FusedSSD300(model, fold_projections=False)
    exponents = choose_exponents(fused, measure_channels(fused, batches, preprocess, progress))
    histograms = measure_histograms(equalize(fused, exponents), batches, preprocess, progress)
    progress(f"finding ranges ({calibrator})")
    return Calibration({name: range_of(histogram, calibrator) for name, histogram in histograms.items()}, exponents)


@torch.no_grad()
def measure_channels(
    fused: FusedSSD300, batches: Sequence[Tensor], preprocess: str, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the largest absolute value of each channel [C] of each tensor of `quantized_tensors` over all pictures.

    Args:
        fused: The fused network in FP32, with its projections apart.
        batches: Pictures on its device, uint8 [N, 3, 300, 300].
        preprocess: `eval` or `hub`.
        progress: Called with lines about how far it is.
    """
    largest: dict[str, Tensor] = {}

    def find(tensor: QuantizedTensor, x: Tensor) -> None:
        found = x.abs().amax((0, 2, 3))
        largest[tensor.name] = torch.maximum(largest.get(tensor.name, found), found)

    _run(fused, find, batches, preprocess, ProgressBar(progress, "measuring channels", sum(map(len, batches))))
    return largest


@torch.no_grad()
def measure_histograms(
    fused: FusedSSD300, batches: Sequence[Tensor], preprocess: str, progress: Progress = silent
) -> dict[str, Histogram]:
    """Return the histogram of each tensor of `quantized_tensors` over all pictures.

    They are run twice: for the largest values, which are the edges of the histograms, and for the counts.

    Args:
        fused: The fused network in FP32, with its projections apart.
        batches: Pictures on its device, uint8 [N, 3, 300, 300]. A count is exact below 2**24 in a batch and bin.
        preprocess: `eval` or `hub`.
        progress: Called with lines about how far it is.
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
            counts[tensor.name] = counts.get(tensor.name, torch.zeros_like(found)) + found

    bar = ProgressBar(progress, "calibrating", 2 * sum(map(len, batches)))
    for see in (find_largest, count):
        _run(fused, see, batches, preprocess, bar)
    empty = torch.zeros(BINS)
    return {
        name: Histogram(counts.get(name, empty).cpu().numpy().astype(np.int64), float(edge))
        for name, edge in largest.items()
    }


def _run(fused: FusedSSD300, see: _See, batches: Sequence[Tensor], preprocess: str, bar: ProgressBar) -> None:
    """Run a network on all pictures, and call a function with each tensor of `quantized_tensors` on the way."""
    handles = [_watch(tensor, see) for tensor in quantized_tensors(fused)]
    try:
        with tf32_disabled():
            for images in batches:
                fused(normalize(images, preprocess))
                bar.add(len(images))
    finally:
        for handle in handles:
            handle.remove()


def _watch(tensor: QuantizedTensor, see: _See) -> torch.utils.hooks.RemovableHandle:
    def seen(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(tensor, output if tensor.output else inputs[0])

    return tensor.module.register_forward_hook(seen)
