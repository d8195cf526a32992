"""Which region of a picture the network sees, and boxes back in the picture's pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssdtrt.images.preprocess import region, to_pixels


def test_region_literal():
    assert region(640, 480) == region(640, 480, "eval") == (0, 0, 640, 480)
    assert region(640, 480, "hub") == (80, 0, 560, 480)
    assert region(480, 640, "hub") == (0, 80, 480, 560)
    assert region(7, 7, "hub") == (0, 0, 7, 7)
    assert region(1, 20000, "hub") == (0, 9999.5, 1, 10000.5)


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
    shorter = min(width, height)
    scaled = [round(length * 300 / shorter) for length in (width, height)]
    corner = [(length - 300) // 2 for length in scaled]
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
    assert (right - left, bottom - top) == pytest.approx((shorter, shorter), rel=0.002)  # The longer side is rounded.
    pixel = shorter / 300
    assert abs(left + right - width) <= 1.01 * pixel and abs(top + bottom - height) <= 1.01 * pixel


def test_to_pixels_of_none():
    assert to_pixels(np.zeros((0, 4), np.float32), 640, 480).shape == (0, 4)
