"""Pictures of more than 8 bits a channel: which values become black and white."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import png, tiff
from PIL import Image

from ssdtrt.images.decode import load_image
from ssdtrt.images.levels import channels_to_levels

NOTE = "its values of more than 8 bits are read as {}, the range that they fill; --range (value_range) gives another"


def levels(picture, value_range=None):
    """The gray levels of a picture, and the notes."""
    notes = []
    found = np.asarray(load_image(picture, value_range=value_range, note=notes.append))
    assert (found == found[..., :1]).all()
    return found[..., 0].tolist(), notes


@pytest.mark.parametrize(
    "most, top",
    [(0, 255), (255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4095, 4095), (4096, 16383), (16384, 65535)],
)
def test_sixteen_bits_hold_fewer(tmp_path, most, top):
    half = most // 2
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(np.array([[0, half, most]], np.uint16)).save(tmp_path / name)
        expected = [[0, round(half * 255 / top), round(most * 255 / top)]]
        assert levels(tmp_path / name) == (expected, [NOTE.format(f"0..{top}")] * (top < 65535))


def test_twelve_bits_of_a_camera_are_not_black(tmp_path):
    Image.fromarray(np.array([[0, 1000, 2000, 4000]], np.uint16)).save(tmp_path / "camera.png")
    assert levels(tmp_path / "camera.png") == ([[0, 62, 125, 249]], [NOTE.format("0..4095")])


def test_a_range_may_be_given(tmp_path):
    Image.fromarray(np.array([[0, 1000, 2000, 3000]], np.uint16)).save(tmp_path / "deep.png")
    assert levels(tmp_path / "deep.png", (1000, 2000)) == ([[0, 0, 255, 255]], [])
    assert levels(tmp_path / "deep.png", (0, 65535)) == ([[0, 4, 8, 12]], [])
    image = Image.fromarray(np.array([[0.0, 0.5, 2.0]], np.float32))
    assert levels(image, (0, 2)) == ([[0, 64, 255]], [])


@pytest.mark.parametrize(
    "values, expected, found",
    [
        ([0.0, 0.2, 1.0], [0, 51, 255], "0..1"),
        ([-0.1, 0.2, 1.2], [0, 51, 255], "0..1"),  # A filter passes the edges a little.
        ([0.0, 51.0, 255.0], [0, 51, 255], "0..255"),
        ([0.0, 100.0, 300.0], [0, 100, 255], "0..255"),
        ([0.0, 1000.0, 4000.0], [0, 62, 249], "0..4095"),
        ([0.0, 6553.5, 65535.0], [0, 26, 255], "0..65535"),
        ([-1.0, 0.0, 1.0], [0, 128, 255], "-1..1"),
        ([-0.2, 0.0, 0.5], [0, 73, 255], "-0.2..0.5"),
        ([-5000.0, 0.0, 100000.0], [0, 12, 255], "-5000..100000"),
        ([float("nan"), float("-inf"), 1.0], [0, 0, 255], "0..1"),
        ([float("inf"), 0.5, 1.0], [255, 128, 255], "0..1"),
        ([float("nan")] * 3, [0, 0, 0], "0..1"),
        ([0.0] * 3, [0, 0, 0], "0..1"),
        ([0.0, 1.0, 2.0], [0, 128, 255], "0..2"),  # Nearly black as a picture of 0..255.
        ([0.0, 0.005, 0.01], [0, 128, 255], "0..0.01"),
    ],
)
def test_floats(tmp_path, values, expected, found):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "floats.tif")
    assert levels(tmp_path / "floats.tif") == ([expected], [NOTE.format(found)])


@pytest.mark.parametrize(
    "values, expected, found",
    [
        ([0, 25700, 65535], [0, 100, 255], None),
        ([0, 1000, 4000], [0, 62, 249], "0..4095"),
        ([-1024, 0, 3072], [0, 64, 255], "-1024..3072"),
        ([70000, 80000, 90000], [0, 128, 255], "70000..90000"),
        ([70000] * 3, [255] * 3, "0..70000"),
        ([-5] * 3, [0] * 3, "-5..0"),
    ],
)
def test_thirty_two_bits(values, expected, found):
    image = Image.fromarray(np.array([values], np.int32))
    assert levels(image) == ([expected], [NOTE.format(found)] * (found is not None))


@given(st.lists(st.floats(width=32), min_size=1, max_size=9))
def test_any_floats_become_levels_in_their_order(values):
    """The largest number is the brightest, and nothing raises."""
    found, notes = levels(Image.fromarray(np.array([values], np.float32)))
    assert len(notes) == 1
    pairs = sorted((value, level) for value, level in zip(values, found[0]) if value == value)
    assert [level for _, level in pairs] == sorted(level for _, level in pairs)


# Several channels


def deep_files(pixels):
    """Files with these values [H, W, 3 | 4]: a PNG, and a TIFF of each byte order."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return [png(width, height, 16, 2 if channels == 3 else 6, rows), tiff(pixels, "<"), tiff(pixels, ">")]


COLORS = np.array([[[4095, 0, 1000], [2000, 3000, 16]]], np.uint16)


@pytest.mark.parametrize("place", range(3))
def test_colors_of_twelve_bits(tmp_path, place):
    (tmp_path / "deep").write_bytes(deep_files(COLORS)[place])
    expected = [[[255, 0, 62], [125, 187, 1]]]
    content = (tmp_path / "deep").read_bytes()
    for picture in (tmp_path / "deep", io.BytesIO(content), Image.open(io.BytesIO(content))):
        notes = []
        assert np.asarray(load_image(picture, note=notes.append)).tolist() == expected
        assert notes == [NOTE.format("0..4095")]
    found = load_image(tmp_path / "deep", value_range=(0, 2000), note=pytest.fail)
    assert np.asarray(found).tolist() == [[[255, 0, 128], [255, 255, 2]]]


def test_colors_of_sixteen_bits_are_as_pillow_reads_them():
    for content in deep_files(COLORS * 16):
        found = load_image(io.BytesIO(content), note=pytest.fail)
        assert np.asarray(found).tolist() == [[[255, 0, 62], [125, 187, 1]]]


@pytest.mark.parametrize("alpha", [4095, 65535])
def test_alpha_may_fill_another_range(alpha):
    clear = np.dstack([COLORS, np.array([[alpha, 0]], np.uint16)])
    found = load_image(io.BytesIO(deep_files(clear)[0]))
    assert np.asarray(found).tolist() == [[[255, 0, 62], [255, 255, 255]]]


def test_gray_with_alpha_has_its_high_bytes_alone():
    """Pillow gives no others."""
    row = struct.pack(">B4H", 0, 4095, 65535, 0, 65535)
    assert levels(io.BytesIO(png(2, 1, 16, 4, row))) == ([[239, 0]], [NOTE.format("0..4095")])


def test_the_orientation_of_deep_colors_is_kept():
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    row = b"\0" + COLORS[0].astype(">u2").tobytes()
    found = load_image(io.BytesIO(png(2, 1, 16, 2, row, (b"eXIf", exif))))
    assert found.size == (1, 2) and np.asarray(found)[:, 0].tolist() == [[255, 0, 62], [125, 187, 1]]


def test_eight_bits_are_left_alone():
    image = Image.fromarray(np.array([[0, 1, 3]], np.uint8))
    assert levels(image, (0, 3)) == ([[0, 1, 3]], [])


def test_sixteen_bits_of_cmyk_have_one_range_for_all_four():
    values = np.full((1, 2, 4), 3000, np.uint16)
    values[..., 3] = 20000
    found = channels_to_levels(values, None, lambda line: None, alpha=False)
    assert found is None  # 16 bits, which Pillow converts.
    values[..., 3] = 4000
    assert channels_to_levels(values, None, lambda line: None, alpha=False).tolist() == [[[187, 187, 187, 249]] * 2]
