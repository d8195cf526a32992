"""The fused network with quantized layers, and the tensors whose ranges they need."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from ssdtrt.artifact.quantization import Quantization
from ssdtrt.errors import CalibrationError
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.model.ssd import SSD300
from ssdtrt.rewriting.equalized import equalize
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300, ProjectedBlock
from ssdtrt.rewriting.quantizers import QuantizedConv2d, Quantizer

_Block = TypeVar("_Block", bound=nn.Module)


class QuantizedTensor(NamedTuple):
    """A tensor of the fused network that a quantized layer reads.

    Attributes:
        name: The name of the convolution that reads it, or `<block>.downsample` for the projection that is added in a block.
        module: The module that has it.
        output: Whether it is the module's output; otherwise its input.
    """

    name: str
    module: nn.Module
    output: bool = False


def quantized_tensors(fused: FusedSSD300) -> Iterator[QuantizedTensor]:
    """Yield the tensors whose ranges a quantized network needs, in either layout of the projections.

    Args:
        fused: The fused network. With its projections apart it has the tensors of both layouts.
    """
    for name, conv in convolutions(fused):
        yield QuantizedTensor(name, conv)
    for name, block in _blocks(fused, Bottleneck):
        if block.downsample is not None:
            yield QuantizedTensor(f"{name}.downsample", block.downsample, output=True)


def convolutions(fused: FusedSSD300) -> list[tuple[str, nn.Conv2d]]:
    """Return the convolutions of a fused network and their names, in the order of the modules."""
    return list(_blocks(fused, nn.Conv2d))


def quantized_model(model: SSD300, quantization: Quantization) -> FusedNetwork:
    """Return a model with the arithmetic of an INT8 engine, in PyTorch: images [N, 3, 300, 300] -> (loc, conf).

    The layers that stay in FP16 compute in FP32 here.

    Args:
        model: The FP32 model.
        quantization: How it is quantized.
    """
    return FusedNetwork(quantize_as(FusedSSD300(model), quantization))


def quantize_as(fused: FusedSSD300, quantization: Quantization) -> FusedSSD300:
    """Return a copy of a fused network, in FP32, that is equalized and quantized (see `quantize`)."""
    network = equalize(fused, quantization.exponents)
    return quantize(network, quantization.ranges, quantization.keep_fp16)


def quantize(fused: FusedSSD300, ranges: Mapping[str, float], keep_fp16: Collection[str] = ()) -> FusedSSD300:
    """Return a copy of a fused network in which convolutions and the terms of additions are quantized.

    What is added to a convolution is quantized if the convolution is. In a `ProjectedBlock`, the output of conv2 is scaled
    to the range of the block's input, and conv3 by the inverse: ReLU allows that, and the concatenation then has one scale
    without a loss.

    Args:
        fused: The fused network, in FP32.
        ranges: The absolute value that becomes 127, by the name of each tensor of `quantized_tensors`.
        keep_fp16: The names of the convolutions that are not quantized.

    Raises:
        CalibrationError: If a range is missing, or there is no such convolution.
    """
    network = copy.deepcopy(fused)
    _check_names(network, ranges, keep_fp16)
    inputs = {name: name for name, _ in convolutions(network)}  # the range of each convolution's input
    for name, projected in _blocks(network, ProjectedBlock):
        _scale_to_input(projected, ranges[f"{name}.conv3"], ranges[f"{name}.conv1"])
        inputs[f"{name}.conv3"] = f"{name}.conv1"
    for name, block in list(_blocks(network, Bottleneck)):
        if f"{name}.conv3" not in keep_fp16:
            _quantize_term(name, block, ranges)
    for name, conv in convolutions(network):
        if name not in keep_fp16:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, QuantizedConv2d(conv, ranges[inputs[name]]))
    network.quantized = True
    return network


def _check_names(network: FusedSSD300, ranges: Mapping[str, float], keep_fp16: Collection[str]) -> None:
    missing = sorted({tensor.name for tensor in quantized_tensors(network)} - set(ranges))
    if missing:
        raise CalibrationError(f"The calibration table has no range of {missing[0]}. Calibrate again.")
    names = {name for name, _ in convolutions(network)}
    folded = {f"{name}.downsample.0" for name, _ in _blocks(network, ProjectedBlock)}  # Part of conv3 in this layout.
    unknown = sorted(set(keep_fp16) - names - folded)
    if unknown:
        raise CalibrationError(
            f"The network has no convolution {unknown[0]!r} to keep in FP16; ssdtrt inspect --layers lists those of an engine."
        )


def _quantize_term(name: str, block: Bottleneck, ranges: Mapping[str, float]) -> None:
    """Quantize what is added to the last convolution of a block: its input, or that input's projection."""
    if block.downsample is None:
        block.downsample = Quantizer(ranges[f"{name}.conv1"])
    else:
        term = Quantizer(ranges[f"{name}.downsample"])
        block.downsample = nn.Sequential(OrderedDict([*block.downsample.named_children(), ("term", term)]))


@torch.no_grad()
def _scale_to_input(block: ProjectedBlock, value_range: float, input_range: float) -> None:
    """Scale the output of conv2 from one range to another, and the weights of conv3 that read it by the inverse."""
    factor, middle = input_range / value_range, block.conv2.out_channels
    assert block.conv2.bias is not None
    block.conv2.weight.mul_(factor)
    block.conv2.bias.mul_(factor)
    block.conv3.weight[:, :middle].div_(factor)


def _blocks(fused: FusedSSD300, kind: type[_Block]) -> Iterator[tuple[str, _Block]]:
    """Yield the modules of a kind, and their names."""
    for name, module in fused.named_modules():
        if isinstance(module, kind):
            yield name, module
