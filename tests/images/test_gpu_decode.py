"""JPEGs decoded on a GPU, by what stands for its decoder: Pillow's pixels, turned and resized, a bounded number at a time."""

import os
import sys

import numpy as np
import pytest
import torch
from jpeg_files import exif_as_text, jpeg, two_pictures, with_ids, with_segment
from nvimgcodec_stand_in import BackendKind, Decoder

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
    assert decoder.kind == "hardware"
    for path, image in zip(paths, decoder(jpegs), strict=True):
        assert image.dtype == torch.uint8 and np.array_equal(image.numpy(), resize_image(load_image(path)))


def test_so_many_pixels_at_a_time(gpu_decoding, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "GPU_DECODE_PIXELS", 2 * 64 * 48)
    sizes = [(64, 48), (64, 48), (8, 8), (200, 100), (64, 48), (32, 48), (32, 48), (8, 8)]
    paths, jpegs = written(tmp_path, [jpeg(size, seed=at) for at, size in enumerate(sizes)])
    decoder = JpegDecoder(CPU)
    Decoder.asked.clear()
    images = decoder(jpegs)
    assert Decoder.asked == [2, 1, 1, 3, 1]  # One that is larger is alone.
    for path, image in zip(paths, images):
        assert np.array_equal(image.numpy(), resize_image(load_image(path)))
    assert decoder([]) == []


def test_what_cannot_be_decoded_is_none_and_the_others_are_there(gpu_decoding, tmp_path):
    whole = jpeg()
    jpegs = [
        encoded(whole),
        encoded(jpeg(progressive=True)),
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


def test_without_a_decoder_of_its_own_a_gpus_cores_are_used(gpu_decoding, monkeypatch):
    monkeypatch.setattr(Decoder, "working", {BackendKind.HYBRID_CPU_GPU})
    decoder = JpegDecoder(CPU)
    assert decoder.kind == "hybrid"
    rgb = with_ids(jpeg(subsampling=0), b"RGB")
    assert all(image is not None for image in decoder([encoded(jpeg()), encoded(jpeg(progressive=True)), encoded(rgb)]))


@pytest.mark.parametrize("fails", [False, True])
def test_where_nothing_is_decoded_is_said(gpu_decoding, monkeypatch, fails):
    """Whether it gives nothing or raises."""
    monkeypatch.setattr(Decoder, "working", set())
    if fails:
        monkeypatch.setattr(Decoder, "decode", lambda *_, **__: 1 / 0)
    message = "nvImageCodec decodes no JPEG on cpu; update it: pip install 'ssdtrt[gpu-decode]'"
    with pytest.raises(SsdtrtError) as caught:
        JpegDecoder(CPU)
    assert str(caught.value) == message
    assert decoder_for("auto", CPU, "eval", wanted=True) is None
    with pytest.raises(SsdtrtError) as caught:
        decoder_for("gpu", CPU, "eval", wanted=True)
    assert str(caught.value) == (f"JPEGs cannot be decoded on the GPU: {message}. Or leave --decode (decode) out.")


def test_where_a_decoder_is_wanted(gpu_decoding):
    assert isinstance(decoder_for("gpu", CPU, "eval", wanted=True), JpegDecoder)
    assert isinstance(decoder_for("auto", CPU, "eval", wanted=True), JpegDecoder)
    assert decoder_for("auto", CPU, "eval", wanted=False) is None
    assert decoder_for("auto", CPU, "hub", wanted=True) is None
    with pytest.raises(
        SsdtrtError, match="exported with --preprocess hub, whose blur and crop are computed on the CPU"
    ):
        decoder_for("gpu", CPU, "hub", wanted=True)


def missing(monkeypatch, module=None):
    """As where nvImageCodec is not installed, or this module stands for it."""
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", module)
    gpu_decode._load.cache_clear()


def test_why_jpegs_are_not_decoded_on_a_gpu(monkeypatch):
    assert why_not(CPU, "eval") == "there is no GPU here that torch sees, or --device is cpu"
    assert why_not(GPU, "hub").startswith("the file was exported with --preprocess hub, ")
    missing(monkeypatch)
    assert why_not(GPU, "eval") == "nvImageCodec is not installed; pip install 'ssdtrt[gpu-decode]'"
    with pytest.raises(SsdtrtError, match="^nvImageCodec is not installed; pip install 'ssdtrt.gpu-decode.'$"):
        JpegDecoder(GPU)
    monkeypatch.setattr(gpu_decode, "order_of_passes", lambda: None)
    assert why_not(GPU, "eval").startswith("the installed Pillow resizes in a way that is not known here; ")


@pytest.mark.parametrize(
    "error", [ImportError("libnvjpeg.so.12: not found"), OSError("no file"), RuntimeError("no CUDA")]
)
def test_a_library_that_cannot_be_loaded_is_said(monkeypatch, error):
    def fail(_):
        raise error

    gpu_decode._load.cache_clear()
    monkeypatch.setattr(gpu_decode.importlib, "import_module", fail)
    assert why_not(GPU, "eval") == f"nvImageCodec cannot be imported ({error}); pip install 'ssdtrt[gpu-decode]'"


def test_what_is_written_past_python_on_import_and_in_the_trial_reaches_nobody(gpu_decoding, monkeypatch, capfd):
    """Afterwards stderr is there again, also where that failed."""
    real_import, real_decode = gpu_decode.importlib.import_module, Decoder.decode

    def chatty(name):
        os.write(2, b"nvTIFF not found\n")
        return real_import(name)

    def decode(self, *given, **named):
        os.write(2, b"[WARNING] no decoder\n")
        return real_decode(self, *given, **named)

    monkeypatch.setattr(gpu_decode.importlib, "import_module", chatty)
    monkeypatch.setattr(Decoder, "decode", decode)
    before = os.stat(2), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    JpegDecoder(CPU)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(Decoder, "working", set())
    with pytest.raises(SsdtrtError):
        JpegDecoder(CPU)
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"
    after = os.stat(2), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after[0].st_ino == before[0].st_ino and after[1] == before[1]
    assert os.environ["PYNVIMGCODEC_VERBOSITY"] == "0"
