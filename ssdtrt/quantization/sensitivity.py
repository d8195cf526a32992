"""What the quantization of each convolution costs, and which of them stay in FP16."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import torch
from torch import Tensor, nn

from ssdtrt import config
from ssdtrt.artifact.quantization import LayerCost
from ssdtrt.images.tensors import normalize
from ssdtrt.quantization.agreement import CONFIDENT
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300
from ssdtrt.rewriting.quantized import convolutions, quantize
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.progress import Progress, silent, tracked


@torch.no_grad()
def measure_costs(
    fused: FusedSSD300, ranges: Mapping[str, float], pictures: Tensor, preprocess: str, progress: Progress = silent
) -> list[LayerCost]:
    """Measure what the quantization of each convolution costs, all others being in FP32.

    Args:
        fused: The fused network in FP32, its channels equalized.
        ranges: The ranges of its tensors.
        pictures: Pictures that the ranges were not measured on, uint8 [N, 3, 300, 300].
        preprocess: `eval` or `hub`.
        progress: Called with lines about how far it is.

    Returns:
        The costs, the most costly for its share of the multiplications first.
    """
    device = next(fused.parameters()).device
    names = [name for name, _ in convolutions(fused)]
    batches = [normalize(part.to(device), preprocess) for part in pictures.split(config.EAGER_BATCH[device.type])]
    with tf32_disabled():
        expected = [_outputs(fused, images) for images in batches]
        shares = _shares(fused, batches[0][:1])
        costs = [
            LayerCost(name, _cost(quantize(fused, ranges, {*names} - {name}), batches, expected), shares[name])
            for name in tracked(names, progress, "measuring what each layer costs", "layer")
        ]
    return sorted(costs, key=lambda one: -one.cost / one.share)


def _outputs(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the offsets [N, 4, A] and the scores [N, C, A]."""
    output = network(images)
    return output[:, :4], output[:, 4:].softmax(1)


def _cost(network: nn.Module, batches: list[Tensor], expected: list[tuple[Tensor, Tensor]]) -> float:
    """Return the cost of a network: see `LayerCost`. Where FP32 sees nothing, all default boxes count."""
    offsets = squares = scores = torch.zeros((), dtype=torch.float64)
    count = 0
    for images, (loc, conf) in zip(batches, expected):
        found_loc, found_conf = _outputs(network, images)
        seen = conf[:, 1:].amax(1) >= CONFIDENT  # [N, A]
        seen = seen if seen.any() else torch.ones_like(seen)
        offsets = offsets + ((found_loc - loc) ** 2).sum(1)[seen].double().sum().cpu()
        squares = squares + (loc**2).sum(1)[seen].double().sum().cpu()
        scores = scores + ((found_conf - conf) ** 2).sum(1)[seen].double().sum().cpu()
        count += int(seen.sum())
    return float(offsets / squares + scores / count)


def _shares(fused: FusedSSD300, image: Tensor) -> dict[str, float]:
    """Return the share of each convolution of the multiplications."""
    counts: dict[str, int] = {}

    def watch(name: str, conv: nn.Conv2d) -> torch.utils.hooks.RemovableHandle:
        def count(_: nn.Module, __: object, output: Tensor) -> None:
            counts[name] = conv.weight.numel() * output.shape[2] * output.shape[3]

        return conv.register_forward_hook(count)

    handles = [watch(name, conv) for name, conv in convolutions(fused)]
    fused(image)
    for handle in handles:
        handle.remove()
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def choose_layers(
    fused: FusedSSD300,
    ranges: Mapping[str, float],
    costs: list[LayerCost],
    agrees: Callable[[FusedNetwork, int], bool],
    at_least: int = 0,
) -> list[LayerCost]:
    """Choose the layers that stay in FP16: the most costly ones, as few as are enough.

    Their number is found by bisection, as though more layers in FP16 always agreed better.

    Args:
        fused: The fused network in FP32, its channels equalized.
        ranges: The ranges of its tensors.
        costs: The costs, from `measure_costs`.
        agrees: Whether a network, of which so many layers stay in FP16, is accurate enough.
        at_least: The smallest number of layers.

    Returns:
        The same costs, with `fp16` set in the chosen ones.
    """

    def enough(count: int) -> bool:
        return agrees(FusedNetwork(quantize(fused, ranges, {one.name for one in costs[:count]})), count)

    low, high = min(at_least, len(costs)), len(costs)  # `high` layers are enough: FP32 agrees with itself.
    if low < high:  # Most often nothing more has to stay.
        low, high = (low, low) if enough(low) else (low + 1, high)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return [msgspec.structs.replace(one, fp16=number < low) for number, one in enumerate(costs)]
