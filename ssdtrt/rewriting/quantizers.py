"""Modules that quantize: what TensorRT does in INT8, in PyTorch.

A value x of scale s becomes q = clamp(round(x / s), -128, 127), with ties rounded to even, and stands for q * s. This is
the arithmetic of TensorRT's layers Quantize and Dequantize (TensorRT operators, "Quantize").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssdtrt import config


def fake_quantize(x: Tensor, scale: Tensor) -> Tensor:
    """Quantize and dequantize values: the nearest multiples of the scale from -128 to 127 times it."""
    return (x / scale).round().clamp(-config.INT8_LEVELS - 1, config.INT8_LEVELS) * scale


class Quantizer(nn.Module):
    """Quantize and dequantize a tensor.

    Args:
        value_range: The absolute value that becomes 127.
    """

    scale: Tensor

    def __init__(self, value_range: float):
        super().__init__()
        self.register_buffer("scale", torch.tensor(value_range / config.INT8_LEVELS))

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values of INT8, of the shape and dtype of `x`."""
        return fake_quantize(x, self.scale)


class QuantizedConv2d(nn.Conv2d):
    """A convolution of a quantized input and quantized weights.

    The input has one scale. The weights have one for each output channel, its largest absolute weight divided by 127.

    Args:
        conv: The convolution; its weights and bias are shared, not copied.
        value_range: The absolute value of the input that becomes 127.
    """

    weight_scale: Tensor

    def __init__(self, conv: nn.Conv2d, value_range: float):
        with torch.device("meta"):
            super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        self.input = Quantizer(value_range).to(conv.weight.device)
        largest = conv.weight.detach().abs().amax((1, 2, 3))
        self.register_buffer(
            "weight_scale", torch.where(largest > 0, largest, torch.ones_like(largest)) / config.INT8_LEVELS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for images or features [N, I, H, W]."""
        weight = fake_quantize(self.weight, self.weight_scale[:, None, None, None])
        return self._conv_forward(self.input(x), weight, self.bias)
