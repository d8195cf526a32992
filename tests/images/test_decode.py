"""Pictures of every kind as upright RGB, and what cannot be read."""

import io
import os
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from picture_files import chunk, png
from PIL import EpsImagePlugin, Image, TiffImagePlugin

from ssdtrt.errors import ImageError
from ssdtrt.images.decode import content_format, load_image
from ssdtrt.system.child import child_environment

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
YELLOW, CYAN, GREY = (255, 255, 0), (0, 255, 255), (90, 90, 90)
UPRIGHT = np.array([[RED, GREEN, BLUE], [YELLOW, CYAN, GREY]], dtype=np.uint8)  # [2, 3, 3]
# What a camera stores for each EXIF orientation, so that the viewer sees UPRIGHT.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


def random_picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def color(path, place=(0, 0)):
    """One pixel of a picture after it was read; it must be RGB."""
    image = load_image(path)
    assert image.mode == "RGB"
    return image.getpixel(place)


def refusal(picture):
    with pytest.raises(ImageError) as caught:
        load_image(picture)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("value", [0, 100, 255])
def test_grey(tmp_path, value):
    Image.new("L", (4, 3), value).save(tmp_path / "gray.png")
    Image.new("L", (4, 3), value).save(tmp_path / "gray.jpg", quality=100)
    assert color(tmp_path / "gray.png") == color(tmp_path / "gray.jpg") == (value,) * 3


def test_palette(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 30, 40, 10, 20, 250])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png")
    assert color(tmp_path / "palette.png") == (200, 30, 40)
    assert color(tmp_path / "palette.png", (1, 0)) == (10, 20, 250)


def test_palette_with_a_transparent_color(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 30, 40, 10, 20, 250])
    image.putpixel((1, 0), 1)
    for name in ("palette.png", "palette.gif"):
        image.save(tmp_path / name, transparency=0)
        assert color(tmp_path / name) == (255, 255, 255)
        assert color(tmp_path / name, (1, 0)) == (10, 20, 250)


def test_palette_with_half_transparent_colors(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 250])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=bytes([51, 255]))
    assert color(tmp_path / "palette.png") == pytest.approx((204, 204, 204), abs=1)
    assert color(tmp_path / "palette.png", (1, 0)) == (10, 20, 250)


def test_grey_with_alpha(tmp_path):
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 51))
    image.save(tmp_path / "gray.png")
    assert color(tmp_path / "gray.png") == (100, 100, 100)
    assert color(tmp_path / "gray.png", (1, 0)) == pytest.approx((224, 224, 224), abs=1)  # 255 - 155 / 5


def test_transparency_is_on_white(tmp_path):
    image = Image.new("RGBA", (3, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    image.putpixel((2, 0), (5, 105, 205, 102))
    image.save(tmp_path / "alpha.png")
    assert color(tmp_path / "alpha.png") == (10, 20, 30)
    assert color(tmp_path / "alpha.png", (1, 0)) == (255, 255, 255)
    assert color(tmp_path / "alpha.png", (2, 0)) == pytest.approx((155, 195, 235), abs=1)  # 0.4 of it, 0.6 of white


@pytest.mark.parametrize("mode, key, other", [("RGB", (1, 2, 3), (1, 2, 4)), ("L", 7, 8)])
def test_transparent_key_color_is_white(tmp_path, mode, key, other):
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), other)
    image.save(tmp_path / "key.png", transparency=key)
    assert color(tmp_path / "key.png") == (255, 255, 255)
    assert color(tmp_path / "key.png", (1, 0)) == (other if mode == "RGB" else (8, 8, 8))


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (32, 16), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (16, 0, 32, 16))
    image.save(tmp_path / "cmyk.tif")
    image.save(tmp_path / "cmyk.jpg", quality=100)
    for name in ("cmyk.tif", "cmyk.jpg"):
        assert color(tmp_path / name, (4, 8)) == pytest.approx((0, 255, 255), abs=3)
        assert color(tmp_path / name, (28, 8)) == pytest.approx((255, 255, 255), abs=3)


def test_one_bit(tmp_path):
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "bits.png")
    assert color(tmp_path / "bits.png") == (0, 0, 0)
    assert color(tmp_path / "bits.png", (1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("value, level", [(0, 0), (257, 1), (25700, 100), (25828, 100), (25829, 101), (65535, 255)])
def test_sixteen_bits(tmp_path, value, level):
    pixels = np.full((3, 4), value, dtype=np.uint16)
    pixels[2, 3] = 65535  # It holds 16 bits.
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert color(tmp_path / name) == (level,) * 3


@pytest.mark.parametrize("mode, order", [("I;16", "<u2"), ("I;16B", ">u2")])
def test_sixteen_bits_of_either_byte_order(mode, order):
    pixels = np.array([[0, 25700], [65535, 514]]).astype(order)
    image = Image.frombytes(mode, (2, 2), pixels.tobytes())
    assert np.asarray(load_image(image))[..., 1].tolist() == [[0, 100], [255, 2]]


def test_sixteen_bits_a_channel():
    row = struct.pack(">B6H", 0, 65535, 25700, 0, 257, 514, 771)
    found = load_image(io.BytesIO(png(2, 1, 16, 2, row)))
    assert np.asarray(found).tolist() == [[[255, 100, 0], [1, 2, 3]]]


def test_sixteen_bits_with_alpha():
    row = struct.pack(">B8H", 0, 25700, 0, 0, 65535, 25700, 0, 0, 0)
    assert np.asarray(load_image(io.BytesIO(png(2, 1, 16, 6, row)))).tolist() == [[[100, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha(mode):
    image = Image.new(mode.upper(), (2, 1), (100,) * (len(mode) - 1) + (255,)).convert(mode)
    image.putpixel((1, 0), (0,) * len(mode))
    assert np.asarray(load_image(image)).tolist() == [[[100] * 3, [255] * 3]]


def test_first_picture_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (5, 4), shade) for shade in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert color(tmp_path / "moving.png") == color(tmp_path / "moving.gif") == (250, 0, 0)
    assert color(tmp_path / "moving.webp") == (250, 0, 0)


def test_animation_with_transparency(tmp_path):
    frames = [Image.new("RGBA", (5, 4), (0, 0, 200, alpha)) for alpha in (0, 255)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert color(tmp_path / "moving.webp") == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    found = load_image(tmp_path / "turned.png")
    assert found.size == (3, 2)
    assert np.array_equal(np.asarray(found), UPRIGHT)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(np.asarray(load_image(opened)), UPRIGHT)


def test_exif_orientation_behind_the_pixels():
    """A PNG may hold its orientation after its pixels."""
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    content = png(3, 1, 8, 2, bytes([0, 10, 10, 10, 20, 20, 20, 30, 30, 30]))
    end = content.index(b"IEND") - 4
    content = content[:end] + chunk(b"eXIf", exif) + content[end:]
    with Image.open(io.BytesIO(content)) as opened:
        for picture in (io.BytesIO(content), opened):
            assert np.asarray(load_image(picture))[..., 0].tolist() == [[10], [20], [30]]


def test_exif_orientation_can_be_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(STORED[6])).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        for picture in (tmp_path / "turned.png", opened):
            assert np.array_equal(np.asarray(load_image(picture, orient=False)), STORED[6])


@pytest.mark.parametrize("orientation", [6, 8])
def test_exif_orientation_of_a_jpeg(tmp_path, orientation):
    stored = np.kron(STORED[orientation], np.ones((16, 16, 1), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found = load_image(tmp_path / "turned.jpg")
    assert found.size == (48, 32)
    assert np.abs(np.asarray(found)[8::16, 8::16].astype(int) - UPRIGHT).max() < 12


def test_broken_exif_is_no_reason_to_refuse(tmp_path):
    Image.new("RGB", (8, 6), (250, 250, 250)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0rubbish that is no TIFF")
    assert load_image(tmp_path / "odd.jpg").size == (8, 6)


def test_arrays():
    pixels = np.asarray(random_picture(7, 5)).copy()
    found = load_image(pixels)
    assert found.size == (7, 5) and np.array_equal(np.asarray(found), pixels)
    gray = load_image(pixels[:, :, 0])
    assert np.array_equal(np.asarray(gray), np.repeat(pixels[:, :, :1], 3, axis=2))
    assert np.array_equal(np.asarray(load_image(pixels[:, :, :1])), np.asarray(gray))


def test_array_that_is_a_view():
    pixels = np.asarray(random_picture(8, 6))[::2, ::-1]
    assert np.array_equal(np.asarray(load_image(pixels)), pixels)


def test_picture_in_memory_is_left_alone():
    image = Image.new("RGBA", (3, 2), (1, 2, 3, 0))
    before = image.tobytes()
    found = load_image(image)
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert image.mode == "RGBA" and image.tobytes() == before


def test_rgb_in_memory_is_not_copied():
    image = Image.new("RGB", (3, 2))
    assert load_image(image) is image


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((4, 5, 3), np.float32), ((4, 5, 3), np.int64), ((4, 5, 3), np.uint16), ((4, 5), np.float32),
        ((4, 5), np.int32), ((4, 5), np.int64), ((3, 4, 5), np.uint8), ((4, 5, 2), np.uint8), ((4, 5, 6), np.uint8),
        ((1, 4, 5, 3), np.uint8), ((5,), np.uint8), ((), np.uint8), ((0, 5, 3), np.uint8), ((5, 0, 3), np.uint8),
    ],
)  # fmt: skip
def test_wrong_array(shape, dtype):
    assert refusal(np.zeros(shape, dtype=dtype)) == (
        f"An array of {dtype.__name__} {list(shape)} cannot be read as a picture; "
        "expected uint8 [H, W] or [H, W, 1 | 3 | 4]."
    )


def test_missing_picture(tmp_path):
    path = tmp_path / "no.jpg"
    assert refusal(path) == refusal(str(path)) == f"{path}: no such file."
    path = tmp_path / ("a" * 300)
    assert refusal(path) == f"{path} cannot be read as a picture (File name too long)."


def test_directory(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path} is a directory; expected a picture."


@pytest.mark.parametrize("content", [b"", b"this is text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_not_a_picture(tmp_path, content):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} cannot be read as a picture (")


def test_not_a_picture_in_words(tmp_path):
    reason = "cannot be read as a picture (it is empty, or of no format that Pillow knows)."
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png") == f"{tmp_path / 'empty.png'} {reason}"
    assert refusal(io.BytesIO(b"text")) == f"The BytesIO {reason}"
    with open(tmp_path / "empty.png", "rb") as file:
        assert refusal(file) == f"{tmp_path / 'empty.png'} {reason}"


TOO_MANY = "cannot be read as a picture (it has more than {:,} pixels; --max-pixels (max_pixels) allows more)."
MANY = "it has more than {:,} pixels, from where Pillow warns of decompression bombs, and is read"


def test_a_jpeg_of_108_megapixels_is_read_with_a_note(tmp_path):
    path, notes = tmp_path / "phone.jpg", []
    Image.new("L", (12_000, 9_000), 200).save(path)
    image = load_image(path, note=notes.append)
    assert image.size == (12_000, 9_000) and image.getpixel((11_999, 8_999)) == (200, 200, 200)
    assert notes == [MANY.format(89_478_485)] and Image.MAX_IMAGE_PIXELS == 89_478_485


@pytest.mark.parametrize("side", [13_378, 20_000, 60_000])
def test_too_many_pixels(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2, bytes(100)))
    assert refusal(path) == f"{path} {TOO_MANY.format(178_956_970)}"


def test_max_pixels(tmp_path, monkeypatch):
    """Beyond the limits of Pillow, here 50 with a warning and 100 at all, and below them."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for size, most, noted in (
        ((10, 5), None, False),
        ((10, 10), None, True),
        ((11, 10), 110, True),
        ((9, 1), 9, False),
    ):
        random_picture(*size).save(tmp_path / "a.png")
        notes = []
        assert load_image(tmp_path / "a.png", max_pixels=most, note=notes.append).size == size
        assert notes == [MANY.format(50)] * noted and Image.MAX_IMAGE_PIXELS == 50
    for size, most in (((101, 1), None), ((111, 1), 110), ((10, 1), 9)):
        random_picture(*size).save(tmp_path / "a.png")
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / "a.png", max_pixels=most)
        assert str(caught.value) == f"{tmp_path / 'a.png'} {TOO_MANY.format(most or 100)}"
    assert load_image(random_picture(20, 20)).size == (20, 20)  # What is in memory already is no bomb.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    random_picture(20, 20).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").size == (20, 20)


def test_a_raw_file_is_not_its_preview(tmp_path):
    for tag, value in ((50706, b"\1\4\0\0"), (254, 1)):  # A DNG's version, and a preview as first picture.
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[tag] = 1 if tag == 50706 else 4
        tags[tag] = value
        random_picture(16, 12).save(tmp_path / "raw.dng", format="TIFF", tiffinfo=tags)
        assert refusal(tmp_path / "raw.dng") == (
            f"{tmp_path / 'raw.dng'} cannot be read as a picture (its first picture is a preview, as in a camera's "
            "raw file, and Pillow reads that alone; develop it to JPEG or TIFF, or save the full picture by itself)."
        )
        assert content_format(str(tmp_path / "raw.dng")) is None


def test_heic_with_pillow_heif(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 48), (250, 0, 0))).save(tmp_path / "a.heic", quality=100)
    for picture in (tmp_path / "a.heic", io.BytesIO((tmp_path / "a.heic").read_bytes())):
        found = load_image(picture)
        assert found.size == (64, 48) and found.getpixel((9, 9)) == pytest.approx((250, 0, 0), abs=3)


@pytest.mark.parametrize(
    "brand, advice", [(b"heic", "HEIC: pip install pillow-heif"), (b"avif", "AVIF: pip install 'pillow>=11.3'")]
)
def test_what_must_be_installed_for_a_picture_is_said(tmp_path, brand, advice):
    """In a process without pillow-heif, and without Pillow's own AVIF."""
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftyp" + brand + bytes(16))
    code = (
        "import io, sys\n"
        "sys.modules.update({'pillow_heif': None, 'PIL.AvifImagePlugin': None})\n"
        "from ssdtrt.errors import ImageError\n"
        "from ssdtrt.images.decode import load_image\n"
        "for picture in (sys.argv[1], io.BytesIO(open(sys.argv[1], 'rb').read())):\n"
        "    try: load_image(picture)\n"
        "    except ImageError as error: print(error)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, "a.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), cwd=tmp_path)
    assert done.stdout.splitlines() == [
        f"{name} cannot be read as a picture ({advice})." for name in ("a.jpg", "The BytesIO")
    ], done.stderr


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_the_content_tells_a_format(tmp_path, kind):
    random_picture(9, 7).save(tmp_path / "a", format=kind)
    assert content_format(str(tmp_path / "a")) == kind


@pytest.mark.parametrize("content", [b"", b"text", bytes(100), b"\x00\x00\x01\xba" + bytes(60), b"P6", b"\xff\xd8\xff"])
def test_the_content_tells_what_is_no_picture(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert content_format(str(tmp_path / "a")) is None


def odd_animation():
    """A PNG that Pillow warns of: its animation claims no frames."""
    return png(1, 1, 8, 2, bytes([0, 9, 8, 7]), (b"acTL", struct.pack(">II", 0, 0)))


def test_pillows_warnings_stay_inside():
    with pytest.warns(UserWarning, match="APNG"), Image.open(io.BytesIO(odd_animation())) as opened:
        opened.load()
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load_image(io.BytesIO(odd_animation())).getpixel((0, 0)) == (9, 8, 7)
        with pytest.raises(ImageError):
            load_image(io.BytesIO(b"text"))
    assert caught == [] and warnings.filters == before


def test_pillows_warnings_stay_inside_in_threads():
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_image(io.BytesIO(odd_animation())).getpixel((0, 0)), range(400)))
    assert set(found) == {(9, 8, 7)}
    assert warnings.filters == before


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_truncated_picture(tmp_path, photographs, kind, share):
    path = tmp_path / f"whole.{kind}"
    load_image(photographs[1]).save(path)
    content = path.read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(content[: int(len(content) * share)])
    assert refusal(cut).startswith(f"{cut} cannot be read as a picture (")


@pytest.mark.parametrize("orient", [True, False])
def test_truncated_picture_that_was_opened_already(tmp_path, photographs, orient):
    content = photographs[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with Image.open(tmp_path / "cut.jpg") as opened, pytest.raises(ImageError) as caught:
        load_image(opened, orient=orient)
    assert str(caught.value).startswith(f"{tmp_path / 'cut.jpg'} cannot be read as a picture (image file is truncated")


def test_damaged_tiff(tmp_path):
    path = tmp_path / "bad.tif"
    path.write_bytes(TiffImagePlugin.II + b"\x08\x00\x00\x00\xff\xff")
    assert str(path) in refusal(path)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
IPTC = {60: b"\1\0", 20: b"\0\0\0\x08", 30: b"\0\0\0\x08", 120: b"\0\0\0\5"}  # gray, 8x8, a JPEG as it says


def in_iptc(content):
    fields = (bytes([0x1C, 3, tag]) + struct.pack(">H", len(value)) + value for tag, value in IPTC.items())
    return b"".join(fields) + b"\x1c\x08\x0a" + struct.pack(">H", len(content)) + content


@pytest.mark.skipif(os.name != "posix", reason="the program that stands for Ghostscript is a shell script")
@pytest.mark.parametrize("content", [POSTSCRIPT, in_iptc(POSTSCRIPT)], ids=["itself", "in IPTC"])
def test_postscript_that_was_sent_or_fetched_does_not_run(tmp_path, monkeypatch, content):
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho >{tmp_path}/ran\nexit 1\n")
    (tmp_path / "gs").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    assert "cannot be read as a picture" in refusal(io.BytesIO(content))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "a.eps").write_bytes(content)
    assert "cannot be read as a picture" in refusal(tmp_path / "a.eps")
    assert (tmp_path / "ran").exists() or content != POSTSCRIPT  # Older Pillows read nothing of the kind inside IPTC.


@pytest.mark.parametrize("picture", [None, torch.zeros(3, 4, 4)])
def test_something_else_is_refused(picture):
    name = type(picture).__name__
    assert refusal(picture) == (f"A {name} cannot be read as a picture; expected a path, a PIL image or a uint8 array.")


def test_unreadable_picture(tmp_path, not_root):
    path = tmp_path / "closed.png"
    random_picture(3, 3).save(path)
    path.chmod(0)
    assert str(path) in refusal(path)
