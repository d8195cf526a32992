"""Pictures prepared as NVIDIA's utilities do, which region the network sees, and boxes back in the picture's pixels."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nvidia_utilities import nvidias_crop
from PIL import Image

from ssdtrt.images import preprocess
from ssdtrt.images.preprocess import center_crop, region, resize_image, to_pixels


def test_region_literal():
    assert region(640, 480) == region(640, 480, "eval") == (0, 0, 640, 480)
    assert region(640, 480, "hub") == (80, 0, 560, 480)
    assert region(480, 640, "hub") == (0, 80, 480, 560)
    assert region(7, 7, "hub") == (0, 0, 7, 7)
    assert region(1, 20000, "hub") == (0, 9999.5, 1, 10000.5)
    # 449.65 is truncated to 449, of which the crop begins at 449 // 2 - 150 = 74.
    assert region(427, 640, "hub") == (0, 74 * 640 / 449, 427, 374 * 640 / 449)
    assert region(640, 427, "hub") == (74 * 640 / 449, 0, 374 * 640 / 449, 427)
    # 300 / (825 / 1122) is 407.99999999999994 in floating point, and 408 in truth.
    assert region(825, 1122, "hub") == (0, 53 * 1122 / 407, 825, 353 * 1122 / 407)


def test_to_pixels_literal():
    boxes = np.float32([[0.25, 0.5, 0.75, 1.0], [-0.5, -0.01, 1.01, 2.0], [0.0, 0.0, 0.0, 0.0]])
    before = boxes.copy()
    found = to_pixels(boxes, 640, 480)
    assert found.tolist() == [[160, 240, 480, 480], [0, 0, 640, 480], [0, 0, 0, 0]]
    assert np.array_equal(boxes, before)


@settings(max_examples=60, deadline=None)
@given(
    boxes=hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4)), elements=st.floats(-2, 3, width=32)),
    width=st.integers(1, 20000),
    height=st.integers(1, 20000),
)
def test_to_pixels_maps_and_clips(boxes, width, height):
    found = to_pixels(boxes, width, height)
    size = np.array([width, height, width, height])
    assert (found >= 0).all() and (found <= size).all()
    assert np.allclose(found / size, boxes.clip(0, 1), atol=1e-6)


def test_to_pixels_hub_literal():
    boxes = np.float32([[0, 0, 1, 1], [0.5, 0.25, 0.75, 1], [-0.1, -0.1, 1.1, 1.1], [-1, -1, 2, 2]])
    found = to_pixels(boxes, 640, 480, "hub")
    expected = [[80, 0, 560, 480], [320, 120, 440, 480], [32, 0, 608, 480], [0, 0, 640, 480]]
    assert found.tolist() == [pytest.approx(box, abs=1e-3) for box in expected]
    assert to_pixels(boxes[:1], 480, 640, "hub").tolist() == [[0, 80, 480, 560]]


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 20000), height=st.integers(1, 20000), place=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_to_pixels_hub_undoes_the_crop(width, height, place):
    """A point of the picture, scaled and cropped as the definition says, comes back to where it was."""
    ratio = width / height
    scaled = [int(ratio * 300), 300] if ratio > 1 else [300, int(300 / ratio)]
    corner = [length // 2 - 150 for length in scaled]
    seen = [(corner[i] + place[i] * 300) * (width, height)[i] / scaled[i] for i in (0, 1)]  # in the picture's pixels
    back = [(seen[i] * scaled[i] / (width, height)[i] - corner[i]) / 300 for i in (0, 1)]
    found = to_pixels(np.array([back * 2]), width, height, "hub")[0].tolist()
    assert found == pytest.approx(seen * 2, abs=1e-6 * max(width, height))


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 10**6), height=st.integers(1, 10**6))
def test_hub_region_is_a_square_in_the_middle(width, height):
    left, top, right, bottom = region(width, height, "hub")
    shorter = min(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert (right - left, bottom - top) == pytest.approx((shorter, shorter), rel=0.004)  # The longer side is truncated.
    pixel = shorter / 300
    assert abs(left + right - width) <= 1.01 * pixel and abs(top + bottom - height) <= 1.01 * pixel


def test_to_pixels_of_none():
    assert to_pixels(np.zeros((0, 4), np.float32), 640, 480).shape == (0, 4)


# Pictures beside NVIDIA's preparation

SIZES = [(300, 300), (301, 300), (427, 640), (640, 427), (640, 480), (480, 640), (500, 333), (375, 500), (825, 1122),
         (400, 300), (1000, 700), (1200, 500)]  # fmt: skip


def picture(width, height, kind="noise", seed=0):
    """Random bytes, the hardest picture for a filter, or a photograph's colors with hard edges."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "edges":
        pixels[:] = (np.indices((height, width)).sum(axis=0)[..., None] // (7, 19, 40) % 2) * (255, 200, 90)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["noise", "edges"])
@pytest.mark.parametrize("size", SIZES)
def test_hub_is_nvidias_preparation(size, kind):
    image = picture(*size, kind)
    expected = nvidias_crop(np.asarray(image))
    found = resize_image(image, "hub")
    assert found.shape == (300, 300, 3) and found.dtype == np.uint8
    difference = np.abs(found / 255 - expected)
    assert difference.mean() <= 1e-3 and difference.max() <= 1e-2
    assert difference.max() <= 0.5001 / 255  # Only the rounding to bytes is left.
    assert np.abs(center_crop(image) / 255 - expected).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 99))
@example(1, 1, 0)
@example(5, 1, 0)
@example(2, 3, 0)
@example(900, 300, 0)
@example(899, 900, 0)
def test_hub_of_any_size_is_nvidias(width, height, seed):
    assume(max(width, height) <= 12 * min(width, height))  # NVIDIA's resizes all of it before it crops.
    image = picture(width, height, seed=seed)
    assert np.abs(center_crop(image) / 255 - nvidias_crop(np.asarray(image))).max() < 1e-6


@pytest.mark.parametrize("limit", [1, 1000, 10**9])
def test_the_crop_does_not_depend_on_how_products_are_divided(monkeypatch, limit):
    image = picture(64, 48)
    expected = center_crop(image)
    monkeypatch.setattr(preprocess, "_ONE_THREAD", limit)
    assert np.abs(center_crop(image) - expected).max() < 1e-3


def test_weights_of_half_the_length_by_hand():
    """600 to 300: a blur of sigma 0.5 and radius 2, halfway between the pixels 2 i and 2 i + 1; the edge is mirrored."""
    blur = np.exp(-2.0 * np.arange(-2, 3) ** 2) / np.exp(-2.0 * np.arange(-2, 3) ** 2).sum()
    both = (np.append(blur, 0) + np.append(0, blur)) / 2
    lines = np.zeros((600, 600, 3), np.uint8)
    lines[:, 20] = 200
    lines[:, 1] = 100
    found = center_crop(Image.fromarray(lines))[7, :, 0]
    assert found[8:12].tolist() == pytest.approx([0, 200 * both[4], 200 * both[2], 200 * both[0]], abs=1e-4)
    # The first reads the pixels -2 to 3, of which -1 and 1 are the second pixel.
    assert found[0] == pytest.approx(100 * (both[3] + both[1]), abs=1e-4)
