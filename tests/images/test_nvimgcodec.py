"""JPEG files decoded by nvImageCodec's C interface, here on the CPU: pixels in the memory that is given, and nowhere else."""

import gc
import io
import subprocess
import sys
import weakref

import numpy as np
import pytest
from jpeg_files import jpeg
from PIL import Image

from ssdtrt.errors import SsdtrtError
from ssdtrt.images import nvimgcodec, nvimgcodec_library
from ssdtrt.images.nvimgcodec import Decoder


@pytest.fixture
def decoder():
    try:
        return Decoder("cpu", None, 1)
    except SsdtrtError as error:
        pytest.skip(str(error))


def decode(decoder, contents, sizes):
    """(Whether each was decoded, the pixels, in memory that was 7 everywhere before.)"""
    pixels = [np.full((height, width, 3), 7, np.uint8) for width, height in sizes]
    files = [np.frombuffer(content, np.uint8) for content in contents]
    return decoder(files, sizes, [one.ctypes.data for one in pixels]), pixels


def test_pixels_are_those_of_libjpeg(decoder):
    sizes = [(64, 48), (33, 17), (8, 8), (1, 700), (301, 299)] * 2
    saved = [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"mode": "L"}, {"progressive": True}]
    for options in saved:
        contents = [jpeg(size, seed=at, **options) for at, size in enumerate(sizes)]
        decoded, pixels = decode(decoder, contents, sizes)
        assert decoded == [True] * 10
        for one, content in zip(pixels, contents):
            assert np.array_equal(one, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_no_orientation_is_applied(decoder):
    contents = [jpeg((64, 48), orientation=number) for number in range(1, 9)]
    decoded, pixels = decode(decoder, contents, [(64, 48)] * 8)
    assert all(decoded) and all(np.array_equal(one, pixels[0]) for one in pixels)


def test_what_is_no_jpeg_or_of_another_size_leaves_its_memory_alone(decoder):
    whole = jpeg((64, 48))
    contents = [whole, b"", b"no picture", whole[:100], whole, whole, whole]
    sizes = [(64, 48)] * 4 + [(64, 49), (48, 64), (64, 48)]
    for _ in range(2):  # Handles are used anew.
        decoded, pixels = decode(decoder, contents, sizes)
        assert decoded == [True, False, False, False, False, False, True]
        assert all((one == 7).all() for one in pixels[1:6]) and np.array_equal(pixels[0], pixels[6])
    assert decode(decoder, [], []) == ([], [])
    assert decode(decoder, [b"no picture"], [(1, 1)])[0] == [False]


def test_more_files_than_before_and_fewer(decoder):
    for count in (1, 40, 3, 200):
        contents = [jpeg((16 + at % 7, 16), seed=at) for at in range(count)]
        decoded, pixels = decode(decoder, contents, [(16 + at % 7, 16) for at in range(count)])
        assert decoded == [True] * count
        for at in (0, count // 2, count - 1):
            assert np.array_equal(pixels[at], np.asarray(Image.open(io.BytesIO(contents[at]))))


def test_a_decoder_that_is_not_used_any_more_is_freed(decoder):
    one, freed = Decoder("cpu", None, 1), []
    weakref.finalize(one, freed.append, True)
    decode(one, [jpeg((16, 16))], [(16, 16)])
    del one
    gc.collect()
    assert freed == [True]
    assert decode(decoder, [jpeg((16, 16))], [(16, 16)])[0] == [True]


def test_nothing_is_written_past_python(decoder):
    code = """if True:
        import numpy as np
        from ssdtrt.images.nvimgcodec import Decoder
        decoder, memory = Decoder("cpu", None, 1), np.zeros((48, 64, 3), np.uint8)
        print(decoder([np.frombuffer(b"no picture", np.uint8)], [(64, 48)], [memory.ctypes.data]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[False]\n", "")


def test_without_nvjpeg_there_is_no_decoder_for_a_gpu(decoder, monkeypatch):
    monkeypatch.setattr(nvimgcodec_library.Library, "_nvjpeg", lambda _: "libnvjpeg.so.0")
    with pytest.raises(SsdtrtError) as caught:
        Decoder("hardware", 0, 1)
    assert str(caught.value).startswith("nvImageCodec cannot be loaded (libnvjpeg.so.0: cannot open shared object file")


def test_a_decoder_that_does_not_start_is_said(decoder, monkeypatch):
    monkeypatch.setitem(nvimgcodec.BACKENDS, "cpu", 99)
    with pytest.raises(SsdtrtError, match=r"^nvImageCodec does not start \(nvimgcodecDecoderCreate: status \d+\); "):
        Decoder("cpu", None, 1)
