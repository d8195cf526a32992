"""Resizing on a device: every byte as Pillow has it."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssdtrt.images import gpu_resize as module
from ssdtrt.images.gpu_resize import _pillow_weights, _split_weights, order_of_passes, resize

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
    """Beyond 4500 pixels float32 would not hold the sums."""
    pixels = group(width, height, "extreme", count=1)
    assert np.array_equal(resize(torch.from_numpy(pixels)).numpy(), pillows(pixels))
    assert {_split_weights(length, torch.device("cpu")).dtype for length in (4500, 4501)} == {
        torch.float32,
        torch.float64,
    }


def test_the_right_size_is_left_alone():
    pixels = torch.from_numpy(group(300, 300, "any"))
    assert resize(pixels) is pixels


def test_more_pictures_than_are_done_at_once(monkeypatch):
    monkeypatch.setattr(module.config, "RESIZE_BATCH", 2)
    pixels = group(20, 30, "any", count=5)
    assert np.array_equal(resize(torch.from_numpy(pixels)).numpy(), pillows(pixels))


def test_a_callers_tf32_setting_stays():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        matmul.allow_tf32 = True
        resize(torch.from_numpy(group(20, 30, "any", count=1)))
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before


def test_weights_of_twice_the_length_by_hand():
    """600 to 300: each takes the pixels at 0.25 and 0.75 of its triangle, 1/8, 3/8, 3/8, 1/8; the edges lose one."""
    found = _pillow_weights(600)
    assert found.shape == (300, 600) and np.count_nonzero(found) == 300 * 4 - 2
    assert found[10, 19:23].tolist() == [2**19, 3 * 2**19, 3 * 2**19, 2**19]
    assert found[0, :3].tolist() == [1797559, 1797559, 599186]  # 3/7, 3/7 and 1/7 of 2^22


def test_kept_weights_are_bounded():
    _split_weights.cache_clear()
    for length in range(1, 200):
        _split_weights(length, torch.device("cpu"))
    assert _split_weights.cache_info().currsize == 128
    _split_weights.cache_clear()


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
