"""The fused network with quantised layers, and the tensors whose ranges they need."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from ssdtrt.rewriting.fused import FusedSSD300, ProjectedBlock
from ssdtrt.rewriting.quantizers import QuantizedConv2d, Quantizer

_Block = TypeVar("_Block", bound=nn.Module)


class QuantizedTensor(NamedTuple):
    """A tensor of the fused network that a quantised layer reads.

    Attributes:
        name: The name of the convolution that reads it, or `<block>.downsample` for the output of a projection that is
            added to its block.
        module: The module that has it.
        output: Whether it is the module's output; otherwise its input.
        channels: How many of its channels count; None for all. Of the concatenation in a `ProjectedBlock`, the second
            part is the input of the block, whose range is that of `conv1`.
    """

    name: str
    module: nn.Module
    output: bool = False
    channels: int | None = None


def quantized_tensors(fused: FusedSSD300) -> Iterator[QuantizedTensor]:
    """Yield the tensors whose ranges a quantised network needs, in the order of the modules."""
    merged = {f"{name}.conv3": module.conv2.out_channels for name, module in _blocks(fused, ProjectedBlock)}
    for name, module in convolutions(fused):
        yield QuantizedTensor(name, module, channels=merged.get(name))
    for name, block in _blocks(fused, Bottleneck):
        if block.downsample is not None:
            yield QuantizedTensor(f"{name}.downsample", block.downsample, output=True)


def convolutions(fused: FusedSSD300) -> list[tuple[str, nn.Conv2d]]:
    """Return the convolutions of a fused network and their names, in the order of the modules."""
    return [(name, module) for name, module in fused.named_modules() if isinstance(module, nn.Conv2d)]


def quantize(fused: FusedSSD300, ranges: Mapping[str, float], keep_fp16: Collection[str] = ()) -> FusedSSD300:
    """Return a copy of a fused network in which convolutions and the terms of additions are quantised.

    A term of an addition is quantised if the convolution of the other term is. In a `ProjectedBlock`, the output of
    conv2 is scaled to the range of the block's input, and conv3 by the inverse: ReLU allows that, and the concatenation
    then has one scale without a loss.

    Args:
        fused: The fused network, in FP32.
        ranges: The absolute value that becomes 127, by the name of each tensor of `quantized_tensors`.
        keep_fp16: The names of the convolutions that are not quantised.
    """
    network = copy.deepcopy(fused)
    for name, projected in _blocks(network, ProjectedBlock):
        _scale_to_input(projected, ranges[f"{name}.conv3"], ranges[f"{name}.conv1"])
    for name, block in list(_blocks(network, Bottleneck)):
        if f"{name}.conv3" not in keep_fp16:
            _quantize_term(name, block, ranges)
    merged = {f"{name}.conv3": f"{name}.conv1" for name, _ in _blocks(network, ProjectedBlock)}
    for name, conv in convolutions(network):
        if name not in keep_fp16:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, QuantizedConv2d(conv, ranges[merged.get(name, name)]))
    return network


def _quantize_term(name: str, block: Bottleneck, ranges: Mapping[str, float]) -> None:
    """Quantise what is added to the last convolution of a block: its input, or that input's projection."""
    if block.downsample is None:
        block.downsample = Quantizer(ranges[f"{name}.conv1"])
    else:
        block.downsample = nn.Sequential(
            OrderedDict([*block.downsample.named_children(), ("term", Quantizer(ranges[f"{name}.downsample"]))])
        )


@torch.no_grad()
def _scale_to_input(block: ProjectedBlock, value_range: float, input_range: float) -> None:
    """Scale the output of conv2 from one range to another, and the weights of conv3 that read it by the inverse."""
    factor, middle = input_range / value_range, block.conv2.out_channels
    for parameter in (block.conv2.weight, block.conv2.bias):
        parameter.mul_(factor)
    block.conv3.weight[:, :middle].div_(factor)


def _blocks(fused: FusedSSD300, kind: type[_Block]) -> Iterator[tuple[str, _Block]]:
    for name, module in fused.named_modules():
        if isinstance(module, kind):
            yield name, module
