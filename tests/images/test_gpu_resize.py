"""Resizing on a device: every byte as Pillow has it."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssdtrt.images import gpu_resize
from ssdtrt.images.gpu_resize import _pillow_weights, _weights, order_of_passes, resize

KINDS = ("any", "extreme", "white")


def group(width, height, kind, count=2, seed=0):
    """Pictures [count, H, W, 3] of random bytes, of random 0 and 255, or of 255 alone."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return {"any": pixels, "extreme": (pixels > 127) * np.uint8(255), "white": pixels | np.uint8(255)}[kind]


def pillows(pixels):
    return np.stack([np.asarray(Image.fromarray(one).resize((300, 300), Image.Resampling.BILINEAR)) for one in pixels])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(KINDS), st.integers(0, 99))
@example(1, 640, "any", 0)
@example(640, 1, "extreme", 0)
@example(299, 301, "any", 0)
@example(640, 480, "extreme", 0)
@example(480, 640, "any", 0)
@example(333, 500, "any", 0)
@example(340, 380, "any", 0)  # Exactly twice as much off the height.
@example(340, 381, "any", 0)
def test_every_byte_is_pillows(width, height, kind, seed):
    pixels = group(width, height, kind, seed=seed)
    found = resize(torch.from_numpy(pixels))
    assert found.dtype == torch.uint8 and found.is_contiguous()
    assert np.array_equal(found.numpy(), pillows(pixels))


@pytest.mark.parametrize("width, height", [(4600, 3), (7, 4400)])
def test_long_sides(width, height):
    pixels = group(width, height, "extreme", count=1)
    assert np.array_equal(resize(torch.from_numpy(pixels)).numpy(), pillows(pixels))


def test_the_right_size_is_left_alone():
    pixels = torch.from_numpy(group(300, 300, "any"))
    assert resize(pixels) is pixels


def test_pictures_need_not_lie_in_one_piece():
    pixels = group(40, 30, "any", count=3)
    turned = torch.from_numpy(pixels).transpose(1, 2)
    assert np.array_equal(resize(turned).numpy(), pillows(np.ascontiguousarray(turned.numpy())))


def test_weights_of_twice_the_length_by_hand():
    """600 to 300: each takes the pixels at 0.25 and 0.75 of its triangle, 1/8, 3/8, 3/8, 1/8; the edges lose one."""
    first, weights = _pillow_weights(600)
    assert (
        (first.dtype, weights.dtype) == (np.int32, np.int32) and first[:3].tolist() == [0, 1, 3] and first[299] == 597
    )
    assert weights.shape == (300, 4) and np.count_nonzero(weights) == 300 * 4 - 2
    assert weights[10].tolist() == [2**19, 3 * 2**19, 3 * 2**19, 2**19] and first[10] == 19
    assert weights[0].tolist() == [1797559, 1797559, 599186, 0]  # 3/7, 3/7 and 1/7 of 2^22


def test_kept_weights_are_bounded():
    _weights.cache_clear()
    for length in range(1, 200):
        _weights(length, torch.device("cpu"))
    assert _weights.cache_info().currsize == 128
    _weights.cache_clear()


@pytest.mark.parametrize("shift, known", [(0, True), (1, False)])
def test_a_pillow_that_resizes_otherwise_is_noticed(monkeypatch, shift, known):
    plain = Image.Image.resize

    def shifted(self, *given, **named):
        return plain(self, *given, **named).point(lambda value: min(value + shift, 255))

    monkeypatch.setattr(Image.Image, "resize", shifted)
    order_of_passes.cache_clear()
    try:
        assert order_of_passes() in ({"tall", "width"} if known else {None})
    finally:
        order_of_passes.cache_clear()


def test_weights_are_in_use_on_the_current_stream(monkeypatch):
    """So that their memory is not given away while they are read there (see tests/test_gpu_decoding.py)."""
    used = []

    class Part:
        def record_stream(self, stream):
            used.append(stream)

    weights = Part(), Part()
    monkeypatch.setattr(gpu_resize, "_weights", lambda *_: weights)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    assert gpu_resize._weights_in_use(640, torch.device("cuda", 1)) is weights
    assert used == ["the stream of cuda:1"] * 2
    assert gpu_resize._weights_in_use(640, torch.device("cpu")) is weights and len(used) == 2
