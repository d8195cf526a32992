"""Write the fused network with the layers of TensorRT's API."""

from __future__ import annotations

import collections
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.artifact.tensors import INPUT_NAME, OUTPUT_NAME
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.rewriting.fused import FusedSSD300, ProjectedBlock
from ssdtrt.rewriting.quantizers import QuantizedConv2d, Quantizer


def image_shape(batch_size: int) -> tuple[int, ...]:
    """Return the shape of the input; the batch size -1 is any of a range."""
    return batch_size, 3, config.IMAGE_SIZE, config.IMAGE_SIZE


class NetworkWriter:
    """Add the layers of a FusedSSD300 to a TensorRT network, in the dtype of its weights.

    Args:
        tensorrt: The module `tensorrt`, or another with its API.
        network: An empty `INetworkDefinition`.
        strongly_typed: Whether layers compute in the types that the network has.
    """

    def __init__(self, tensorrt: ModuleType, network: Any, strongly_typed: bool = False) -> None:
        self.tensorrt, self.network, self.strongly_typed = tensorrt, network, strongly_typed
        self._kept_half = False  # whether the convolutions that are not quantized get FP16 by casts
        self.weights: list[np.ndarray] = []
        self._names: dict[int, str] = {}  # of the modules, by id
        self._used: collections.Counter[str] = collections.Counter()
        # Tensors that were quantized and dequantized, by name and scale.
        self._quantized: dict[tuple[str, float], Any] = {}

    def write(self, fused: FusedSSD300, batch: BatchRange) -> None:
        """Add the whole network: input [N, 3, 300, 300], output [N, 4 + C, A], both float32."""
        size = batch.opt if batch.static else -1
        self._names = {id(module): name for name, module in fused.named_modules()}
        half = fused.compute_dtype == torch.float16
        self._kept_half = fused.quantized and self.strongly_typed
        images = self.network.add_input(INPUT_NAME, self.tensorrt.float32, image_shape(size))
        features = self._add(
            self._cast(images, self.tensorrt.float16, "to_fp16") if half else images, fused.feature_extractor
        )
        maps = [self._add(features, fused.heads[0])]
        for block, head in zip(fused.additional_blocks, fused.heads[1:]):
            features = self._add(features, block)
            maps.append(self._add(features, head))
        rows = [self._reshape(x, (size, fused.channels, k), "rows") for x, k in zip(maps, fused.boxes_per_map)]
        output = self._concatenate(rows, 2, "rows.concatenated")
        if half:
            output = self._cast(output, self.tensorrt.float32, "to_fp32")
        output.name = OUTPUT_NAME
        self.network.mark_output(output)

    def _add(self, x: Any, module: nn.Module) -> Any:
        """Add the layers of a module, and return its output for `x`."""
        tensorrt = self.tensorrt
        if isinstance(module, nn.Sequential):
            for child in module:
                x = self._add(x, child)
            return x
        if isinstance(module, nn.Identity):
            return x
        if isinstance(module, Quantizer):
            return self._add_quantizer(x, module)
        if isinstance(module, QuantizedConv2d):
            return self._add_quantized_convolution(x, module)
        if isinstance(module, nn.Conv2d):
            return self._add_convolution(x, module)
        if isinstance(module, nn.ReLU):
            return self._finish(self.network.add_activation(x, tensorrt.ActivationType.RELU), self._name_of(module))
        if isinstance(module, nn.MaxPool2d):
            layer = self.network.add_pooling_nd(x, tensorrt.PoolingType.MAX, _pair(module.kernel_size))
            layer.stride_nd, layer.padding_nd = _pair(module.stride), _pair(module.padding)
            return self._finish(layer, self._name_of(module))
        if isinstance(module, (Bottleneck, ProjectedBlock)):
            return self._add_block(x, module)
        raise TypeError(f"{type(module).__name__} is not a layer of FusedSSD300")

    def _add_block(self, x: Any, block: Bottleneck | ProjectedBlock) -> Any:
        """Add a bottleneck block, whose projection may be folded."""
        y = self._add(self._add(x, block.conv1), block.relu)
        y = self._add(self._add(y, block.conv2), block.relu)
        if isinstance(block, ProjectedBlock):
            y = self._add(self._concatenate([y, x], 1, f"{self._name_of(block)}.concatenated"), block.conv3)
        else:
            x = x if block.downsample is None else self._add(x, block.downsample)
            addition = self.tensorrt.ElementWiseOperation.SUM
            layer = self.network.add_elementwise(self._add(y, block.conv3), x, addition)
            y = self._finish(layer, f"{self._name_of(block)}.added")
        return self._add(y, block.relu)

    def _add_convolution(self, x: Any, module: nn.Conv2d) -> Any:
        name, dtype = self._name_of(module), module.weight.dtype
        if self._kept_half:
            x, dtype = self._cast(x, self.tensorrt.float16, f"{name}.to_fp16"), torch.float16
        weight, bias = (self._weights_of(part, dtype) for part in (module.weight, module.bias))
        layer = self.network.add_convolution_nd(x, module.out_channels, module.kernel_size, weight, bias)
        layer.stride_nd, layer.padding_nd = module.stride, module.padding
        y = self._finish(layer, name)
        return self._cast(y, self.tensorrt.float32, f"{name}.to_fp32") if self._kept_half else y

    def _add_quantized_convolution(self, x: Any, module: QuantizedConv2d) -> Any:
        name = self._name_of(module)
        x = self._add_quantizer(x, module.input)
        weight = self._add_constant(module.weight, f"{name}.weight")
        weight = self._quantize(weight, module.weight_scale, f"{name}.weight", axis=0)
        empty = self.tensorrt.Weights()
        layer = self.network.add_convolution_nd(
            x, module.out_channels, module.kernel_size, empty, self._weights_of(module.bias)
        )
        layer.set_input(1, weight)
        layer.stride_nd, layer.padding_nd = module.stride, module.padding
        return self._finish(layer, name)

    def _add_quantizer(self, x: Any, module: Quantizer) -> Any:
        """Quantize and dequantize a tensor, once for each scale, however many layers read it."""
        key = x.name, float(module.scale)
        if key not in self._quantized:
            self._quantized[key] = self._quantize(x, module.scale, self._name_of(module))
        return self._quantized[key]

    def _quantize(self, x: Any, scale: torch.Tensor, name: str, axis: int | None = None) -> Any:
        """Add the layers Quantize and Dequantize of one scale, or of one for each index of an axis."""
        scale = self._add_constant(scale, f"{name}.scale")
        int8, float32 = (self.tensorrt.int8,), (self.tensorrt.float32,)
        for add, dtype, suffix in (
            (self.network.add_quantize, int8, "quantize"),
            (self.network.add_dequantize, float32, "dequantize"),
        ):
            layer = add(x, scale, *(dtype if self.strongly_typed else ()))  # TensorRT 8.6 takes no types.
            if axis is not None:
                layer.axis = axis
            x = self._finish(layer, f"{name}.{suffix}")
        return x

    def _add_constant(self, tensor: torch.Tensor, name: str) -> Any:
        return self._finish(self.network.add_constant(tuple(tensor.shape), self._weights_of(tensor)), name)

    def _weights_of(self, tensor: torch.Tensor | None, dtype: torch.dtype | None = None) -> Any:
        """Return a tensor as TensorRT weights, and keep its array, which TensorRT reads during the build."""
        assert tensor is not None
        self.weights.append(np.ascontiguousarray(tensor.detach().to(dtype or tensor.dtype).cpu().numpy()))
        return self.tensorrt.Weights(self.weights[-1])

    def _cast(self, x: Any, dtype: Any, name: str) -> Any:
        return self._finish(self.network.add_cast(x, dtype), name)

    def _reshape(self, x: Any, shape: tuple[int, ...], name: str) -> Any:
        layer = self.network.add_shuffle(x)
        layer.reshape_dims = shape
        return self._finish(layer, name)

    def _concatenate(self, parts: list[Any], axis: int, name: str) -> Any:
        layer = self.network.add_concatenation(parts)
        layer.axis = axis
        return self._finish(layer, name)

    def _name_of(self, module: nn.Module) -> str:
        return self._names[id(module)]

    def _finish(self, layer: Any, name: str) -> Any:
        """Name a layer, which TensorRT wants to be unique, and return its output."""
        self._used[name] += 1
        layer.name = name if self._used[name] == 1 else f"{name}.{self._used[name]}"
        return layer.get_output(0)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width)."""
    return (size, size) if isinstance(size, int) else size
