"""JPEGs decoded by nvImageCodec, here on the CPU: Pillow's pixels, turned and resized, a bounded number at a time."""

import threading

import numpy as np
import pytest
import torch
from jpeg_files import exif_as_text, jpeg, two_pictures, with_segment

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.images import gpu_decode
from ssdtrt.images.decode import load_image
from ssdtrt.images.gpu_decode import JpegDecoder, decoder_for, why_not
from ssdtrt.images.jpeg import EncodedJpeg, read_jpeg
from ssdtrt.images.preprocess import resize_image

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def written(folder, contents):
    """The files, and what is read of them."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(content)
    return paths, [read_jpeg(path) for path in paths]


def encoded(content, stored=(64, 48)):
    return EncodedJpeg(np.frombuffer(content, np.uint8), stored)


def test_pictures_are_pillows_whatever_their_size_and_orientation(gpu_decoding, tmp_path):
    contents = [jpeg(size, seed=at) for at, size in enumerate([(64, 48), (300, 300), (8, 8), (310, 700), (64, 48)])]
    contents += [jpeg((40, 30), seed=number, orientation=number) for number in range(10)]
    contents += [jpeg(mode="L"), two_pictures(), with_segment(jpeg(), 0xE1, exif_as_text("6"))]
    paths, jpegs = written(tmp_path, contents)
    decoder = JpegDecoder(CPU)
    assert decoder.kind == "cpu"
    for path, image in zip(paths, decoder(jpegs), strict=True):
        assert image.dtype == torch.uint8 and np.array_equal(image.numpy(), resize_image(load_image(path)))


def test_so_many_pixels_at_a_time(gpu_decoding, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "GPU_DECODE_PIXELS", 2 * 64 * 48)
    sizes = [(64, 48), (64, 48), (8, 8), (200, 100), (64, 48), (32, 48), (32, 48), (8, 8)]
    paths, jpegs = written(tmp_path, [jpeg(size, seed=at) for at, size in enumerate(sizes)])
    decoder = JpegDecoder(CPU)
    gpu_decoding.asked.clear()
    images = decoder(jpegs)
    assert gpu_decoding.asked == [2, 1, 1, 3, 1]  # One that is larger is alone.
    for path, image in zip(paths, images):
        assert np.array_equal(image.numpy(), resize_image(load_image(path)))
    assert decoder([]) == []


@pytest.mark.parametrize("orientation", [1, 5, 6])
def test_an_image_holds_no_memory_of_other_pictures(gpu_decoding, tmp_path, orientation):
    contents = [jpeg((300, 300), orientation=orientation), jpeg((640, 480))]
    images = JpegDecoder(CPU)(written(tmp_path, contents)[1])
    assert [image.untyped_storage().nbytes() for image in images] == [300 * 300 * 3] * 2


def test_what_cannot_be_decoded_is_none_and_the_others_are_there(gpu_decoding, tmp_path):
    whole = jpeg()
    jpegs = [
        encoded(whole),
        encoded(b"", (1, 1)),
        encoded(b"no picture"),
        EncodedJpeg(str(tmp_path / "gone.jpg"), (64, 48)),
        encoded(whole, (64, 49)),  # Of another size than its header said: the file was written anew.
        encoded(whole[:200]),
        encoded(whole),
    ]
    found = JpegDecoder(CPU)(jpegs)
    assert [image is not None for image in found] == [True, False, False, False, False, False, True]
    assert torch.equal(found[0], found[6])
    assert JpegDecoder(CPU)(jpegs[3:4]) == [None]  # Nothing is left to be decoded.


def test_where_nothing_is_decoded_is_said(gpu_decoding):
    gpu_decoding.working = set()
    message = "nvImageCodec decodes no JPEG on cpu; update it: pip install 'ssdtrt[gpu-decode]'"
    with pytest.raises(SsdtrtError) as caught:
        JpegDecoder(CPU)
    assert str(caught.value) == message
    assert decoder_for("auto", CPU, "eval", wanted=True) is None
    with pytest.raises(SsdtrtError) as caught:
        decoder_for("gpu", CPU, "eval", wanted=True)
    assert str(caught.value) == (
        f"JPEGs cannot be decoded on the GPU: {message}. Leave --decode (decode) out, and the CPU does it."
    )


@pytest.mark.parametrize(
    "error", [SsdtrtError("hardware does not start"), torch.cuda.OutOfMemoryError("CUDA out of memory")]
)
def test_a_gpu_whose_own_decoder_does_not_start_decodes_with_its_cores(monkeypatch, error):
    failing = {"hardware"}

    def make(device, kind):
        if kind in failing:
            raise error
        return lambda jpegs: [torch.zeros(300, 300, 3)] * len(jpegs)

    monkeypatch.setattr(gpu_decode, "_Decoder", make)
    assert JpegDecoder(GPU).kind == "hybrid"
    failing.add("hybrid")
    with pytest.raises(SsdtrtError, match="does not start|not enough memory"):
        JpegDecoder(GPU)


def test_threads_decode_at_a_time_and_one_more_waits(gpu_decoding, tmp_path):
    paths, jpegs = written(tmp_path, [jpeg((64 + at, 48), seed=at) for at in range(24)])
    decoder, found, expected = JpegDecoder(CPU), {}, [resize_image(load_image(path)) for path in paths]

    def decode(place):
        found[place] = [decoder(jpegs[place : place + 6]) for _ in range(9)]

    threads = [threading.Thread(target=decode, args=(place,)) for place in (0, 6, 12, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, calls in found.items():
        for images in calls:
            for image, pixels in zip(images, expected[place:], strict=False):
                assert np.array_equal(image.numpy(), pixels)
    assert sorted(found) == [0, 6, 12, 18] and len(expected) == 24


def test_where_a_decoder_is_wanted(gpu_decoding):
    assert isinstance(decoder_for("gpu", CPU, "eval", wanted=True), JpegDecoder)
    assert isinstance(decoder_for("auto", CPU, "eval", wanted=True), JpegDecoder)
    assert decoder_for("auto", CPU, "eval", wanted=False) is None
    assert decoder_for("auto", CPU, "hub", wanted=True) is None
    with pytest.raises(
        SsdtrtError, match="exported with --preprocess hub, whose blur and crop are computed on the CPU"
    ):
        decoder_for("gpu", CPU, "hub", wanted=True)


def test_why_jpegs_are_not_decoded_on_a_gpu(monkeypatch):
    assert why_not(CPU, "eval") == "there is no GPU here that torch sees, or --device is cpu"
    assert why_not(GPU, "hub").startswith("the file was exported with --preprocess hub, ")
    monkeypatch.setattr(gpu_decode, "order_of_passes", lambda: None)
    assert why_not(GPU, "eval").startswith("the installed Pillow resizes in a way that is not known here; ")


def test_a_library_that_is_not_there_is_said(monkeypatch):
    def fail():
        raise SsdtrtError("nvImageCodec is not installed; pip install it")

    monkeypatch.setattr(gpu_decode, "load", fail)
    assert why_not(GPU, "eval") == "nvImageCodec is not installed; pip install it"
    assert decoder_for("auto", GPU, "eval", wanted=True) is None
    with pytest.raises(SsdtrtError, match="^JPEGs cannot be decoded on the GPU: nvImageCodec is not installed; pip"):
        decoder_for("gpu", GPU, "eval", wanted=True)
