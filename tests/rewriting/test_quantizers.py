"""The arithmetic of INT8, to the bit: whole numbers computed apart, and scales that are powers of two."""

import numpy as np
import pytest
import torch
from torch import nn

from ssdtrt.rewriting.quantizers import QuantizedConv2d, Quantizer, fake_quantize

QUARTER = 127 / 4  # the range whose scale is a quarter


def test_a_value_becomes_the_nearest_multiple_ties_to_even_and_is_clipped():
    values = torch.tensor([0.0, 0.3, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 127.4, 127.6, 1e6, -127.6, -128.4, -1e6])
    wanted = [0.0, 0.0, 0.0, 2.0, 2.0, 0.0, -2.0, -2.0, 126.0, 127.0, 127.0, 127.0, -128.0, -128.0, -128.0]
    assert Quantizer(127.0)(values).tolist() == wanted
    assert Quantizer(QUARTER)(values / 4).tolist() == [value / 4 for value in wanted]


def test_the_range_becomes_127_and_beyond_it_there_is_one_more_step_below():
    quantizer = Quantizer(6.0)
    step = float(np.float32(6.0 / 127))
    assert float(quantizer.scale) == step
    found = quantizer(torch.tensor([6.0, -6.0, 7.0, -7.0]))
    assert found.tolist() == pytest.approx([127 * step, -127 * step, 127 * step, -128 * step], rel=1e-7)


def test_what_is_quantized_stays_as_it_is():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    once = Quantizer(2.0)(values)
    assert torch.equal(Quantizer(2.0)(once), once)


def whole_numbers(values, scale):
    """Numbers as INT8 has them, by numpy, whose rounding is to even too."""
    return np.clip(np.rint(np.asarray(values, np.float64) / scale), -128, 127).astype(np.int64)


def convolved(x, w, stride, padding):
    """The sums of a convolution in whole numbers, by loops over the places of the output."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = w.shape[2]
    rows, columns = ((side - size) // stride + 1 for side in x.shape[2:])
    sums = np.zeros((len(x), len(w), rows, columns), np.int64)
    for row in range(rows):
        for column in range(columns):
            part = x[:, :, row * stride : row * stride + size, column * stride : column * stride + size]
            sums[:, :, row, column] = np.tensordot(part, w, ((1, 2, 3), (1, 2, 3)))
    return sums


@pytest.mark.parametrize("size, stride, padding", [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
def test_a_convolution_is_the_sum_of_whole_numbers_times_the_scales(size, stride, padding):
    random = torch.Generator().manual_seed(size + stride)
    conv = nn.Conv2d(5, 4, size, stride, padding)
    weight_scales = np.array([2.0**-7, 2.0**-9, 2.0**-6, 1 / 127])  # The last channel is zero.
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([0.5, -0.25, 3.0, 1.0]))
        for channel, scale in enumerate(weight_scales):
            channel_weight = (torch.rand(5, size, size, generator=random) * 2 - 1) * 126 * scale * (channel < 3)
            channel_weight[0, 0, 0] = -127 * scale * (channel < 3)  # The largest, so that the scale is known.
            conv.weight[channel] = channel_weight
    x = torch.randn(2, 5, 7, 7, generator=random) * 20  # Some are beyond the range.
    assert (x.abs() > QUARTER).any()
    quantized = QuantizedConv2d(conv, QUARTER).double()
    assert quantized.weight_scale.tolist() == [*weight_scales[:3], float(np.float32(1) / np.float32(127))]
    sums = convolved(
        whole_numbers(x, 0.25), whole_numbers(conv.weight.detach(), weight_scales[:, None, None, None]), stride, padding
    )
    wanted = sums * 0.25 * weight_scales[:, None, None] + conv.bias.detach().numpy()[:, None, None]
    assert sums.any() and np.array_equal(quantized(x.double()).detach().numpy(), wanted)


def test_the_weights_are_those_of_the_convolution_and_fill_the_range():
    conv = nn.Conv2d(3, 6, 3)
    quantized = QuantizedConv2d(conv, 1.0)
    assert quantized.weight is conv.weight and quantized.bias is conv.bias
    levels = (
        fake_quantize(conv.weight, quantized.weight_scale[:, None, None, None])
        / quantized.weight_scale[:, None, None, None]
    )
    assert levels.abs().amax((1, 2, 3)).tolist() == pytest.approx([127.0] * 6)
