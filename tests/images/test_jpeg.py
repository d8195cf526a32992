"""Which JPEG files go to a GPU: whole baseline ones in Y'CbCr or gray, with Pillow's size and orientation."""

import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_files import (
    SUBSAMPLINGS,
    exif_as_text,
    jpeg,
    segment,
    two_pictures,
    with_ids,
    with_segment,
    with_xmp_orientation,
    without_jfif,
)
from PIL import Image, ImageOps

from ssdtrt.errors import ImageError
from ssdtrt.images.decode import load_image
from ssdtrt.images.jpeg import EncodedJpeg, jpeg_in, read_jpeg

WHOLE = jpeg()
ADOBE = b"Adobe\0d\0\0\0\0"  # and the transform


def read(folder, content, **options):
    path = folder / "a.jpg"
    path.write_bytes(content)
    return read_jpeg(path, **options)


TAKEN = {
    **{name: (jpeg(subsampling=number), 1) for name, number in SUBSAMPLINGS.items()},
    "gray": (jpeg(mode="L"), 1),
    "optimized": (jpeg(optimize=True), 1),
    "restart markers": (jpeg(restart_marker_rows=1), 1),
    "with a comment": (jpeg(comment="hello"), 1),
    **{f"orientation {number}": (jpeg(orientation=number), number) for number in range(1, 9)},
    **{f"orientation {number}, which is none": (jpeg(orientation=number), 1) for number in (0, 9, 65535)},
    "an orientation as text": (with_segment(WHOLE, 0xE1, exif_as_text("6")), 1),
    "broken EXIF": (with_segment(WHOLE, 0xE1, b"Exif\0\0II*\0\xff\xff\0\0"), 1),
    "two pictures": (two_pictures(), 1),
    "zeros behind it": (WHOLE + bytes(62), 1),
    "Adobe's mark of Y'CbCr": (with_segment(without_jfif(WHOLE), 0xEE, ADOBE + b"\1"), 1),
    "no mark but the usual ids": (without_jfif(WHOLE), 1),
    "JFIF with other ids": (with_ids(WHOLE, b"RGB", jfif=True), 1),
}
LEFT = {
    "progressive": jpeg(progressive=True),
    "CMYK": jpeg(mode="CMYK"),
    "RGB by its ids": with_ids(WHOLE, b"RGB"),
    "ids that tell nothing": with_ids(WHOLE, b"\0\1\2"),
    "RGB by Adobe's mark": with_segment(without_jfif(WHOLE), 0xEE, ADOBE + b"\0"),
    "marks that contradict": with_segment(WHOLE, 0xEE, ADOBE + b"\0"),
    "no end marker": WHOLE[:-2],
    "half of one": WHOLE[:-1],
    "many zeros behind it": WHOLE + bytes(64),
    "text behind it": WHOLE + b"text",
    "an end marker in a thumbnail alone": WHOLE[:2] + segment(0xE1, b"Exif\0\0" + WHOLE),
    "two frames": with_segment(WHOLE, 0xC0, WHOLE[WHOLE.index(b"\xff\xc0") + 4 :][:15]),
    "extended": WHOLE.replace(b"\xff\xc0", b"\xff\xc1"),
    "lossless": WHOLE.replace(b"\xff\xc0", b"\xff\xc3"),
    "arithmetic": WHOLE.replace(b"\xff\xc0", b"\xff\xc9"),
    "12 bits": WHOLE.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    "no rows": WHOLE.replace(b"\xff\xc0\0\x11\x08\0\x30", b"\xff\xc0\0\x11\x08\0\0"),
    "longer than a decoder takes": WHOLE.replace(b"\x08\0\x30\0\x40\x03", b"\x08\0\x30\x40\1\x03"),
    "junk between segments": WHOLE[:2] + b"x" + WHOLE[2:],
    "another start": b"\0\0" + WHOLE[2:],
    "a start and an end": b"\xff\xd8\xff\xd9",
    "a start": b"\xff\xd8\xff",
    "nothing": b"",
    "text": b"no picture",
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_gpu_decodes(name, tmp_path):
    content, orientation = TAKEN[name]
    found = read(tmp_path, content)
    assert (found.stored, found.orientation) == ((64, 48), orientation)
    assert found.size == ((48, 64) if orientation > 4 else (64, 48))
    assert found.data.dtype == np.uint8 and found.data.tobytes() == content and found.encoded() is found.data
    assert load_image(tmp_path / "a.jpg").size == found.size
    unturned = read(tmp_path, content, orient=False)
    assert (unturned.size, unturned.orientation) == ((64, 48), 1)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_pillow(name, tmp_path):
    assert LEFT[name] != WHOLE and read(tmp_path, LEFT[name]) is None


def test_an_orientation_in_xmp_counts_where_pillow_reads_it(tmp_path):
    found = read(tmp_path, with_xmp_orientation(6))
    with Image.open(tmp_path / "a.jpg") as opened:
        turned = ImageOps.exif_transpose(opened).size == (48, 64)
    assert found.orientation == (6 if turned else 1)


def test_no_files(tmp_path):
    """A pipe must not be waited for."""
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "missing.jpg", tmp_path / "pipe.jpg", "", "a\0b", "x" * 5000):
        assert read_jpeg(path) is None


def test_what_pillow_has_something_to_say_about(tmp_path, monkeypatch):
    pixels = 64 * 48
    assert read(tmp_path, WHOLE, max_pixels=pixels) and read(tmp_path, WHOLE, max_pixels=pixels - 1) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels - 1)
    assert read(tmp_path, WHOLE, max_pixels=10 * pixels) is None  # Read, with a note.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read(tmp_path, WHOLE)


def test_the_limit_is_pillows_own_while_another_picture_is_read_with_a_larger_one(tmp_path, monkeypatch):
    from ssdtrt.images.decode import pillow_settings

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    with pillow_settings(10**9):
        assert Image.MAX_IMAGE_PIXELS > 10**8 and read(tmp_path, WHOLE, max_pixels=10**9) is None


def test_a_path_stands_for_the_bytes_that_are_read_later(tmp_path):
    (tmp_path / "a.jpg").write_bytes(WHOLE)
    jpeg_of_path = EncodedJpeg(str(tmp_path / "a.jpg"), (64, 48), 6)
    assert bytes(jpeg_of_path.encoded()) == WHOLE and jpeg_of_path.size == (48, 64)
    with pytest.raises(FileNotFoundError):
        EncodedJpeg(str(tmp_path / "none.jpg"), (64, 48)).encoded()


@pytest.mark.parametrize(
    "content",
    [
        jpeg((16, 16)),
        jpeg((9, 17), "L", orientation=6),
        with_segment(jpeg((8, 8)), 0xE1, exif_as_text("1") + jpeg((8, 8), seed=1)),
        two_pictures(),
    ],
)
def test_of_a_file_that_is_cut_anywhere_only_what_pillow_reads_whole(content, tmp_path):
    taken = []
    for length in range(len(content)):
        if read(tmp_path, content[:length]) is not None:
            taken.append(length)
            load_image(tmp_path / "a.jpg")
    assert len(taken) <= 1  # Of two pictures, the first alone.
    assert read(tmp_path, content) is not None


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_a_damaged_header_says_is_what_pillow_takes_from_it(data, tmp_path_factory):
    content = bytearray(data.draw(st.sampled_from([jpeg((16, 16)), jpeg((9, 17), orientation=6)])))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) // 2))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Neither reads with a warning.
        found = read(folder, bytes(content))
        try:
            size = load_image(folder / "a.jpg").size
        except ImageError:
            return
    assert found is None or found.size == size


@pytest.mark.parametrize("content", [*(content for content, _ in TAKEN.values()), *LEFT.values()])
def test_bytes_are_judged_as_their_file_is(content, tmp_path):
    file, inside = read(tmp_path, content), jpeg_in(content)
    assert (file is None) == (inside is None)
    if inside is not None:
        assert bytes(inside.encoded()) == content and inside[1:] == file[1:]
