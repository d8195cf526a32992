"""JPEG files decoded by nvImageCodec where there is no GPU: by its libjpeg-turbo, to memory of the host."""

import functools

import pytest
import torch

from ssdtrt.errors import SsdtrtError
from ssdtrt.images import gpu_decode, nvimgcodec, nvimgcodec_library


class Watched:
    """What was decoded, and what is not.

    Attributes:
        asked: How many files were given to a decoder, call by call.
        working: The backends that decode anything.
        refused: Files that are not decoded.
    """

    def __init__(self):
        self.asked, self.working, self.refused = [], set(nvimgcodec.BACKENDS), []

    def decode(self, real, decoder, files, *rest):
        self.asked.append(len(files))
        works = decoder.backend in self.working
        return [
            works and decoded and bytes(file) not in self.refused
            for decoded, file in zip(real(decoder, files, *rest), files, strict=True)
        ]


@pytest.fixture
def gpu_decoding(monkeypatch):
    """JPEGs are decoded as on a GPU, but on the CPU."""
    try:
        nvimgcodec_library.load()
    except SsdtrtError as error:
        pytest.skip(str(error))
    watched, real = Watched(), gpu_decode.why_not
    monkeypatch.setattr(gpu_decode, "why_not", lambda _, preprocess: real(torch.device("cuda"), preprocess))
    decode = functools.partial(watched.decode, nvimgcodec.Decoder.__call__)
    monkeypatch.setattr(nvimgcodec.Decoder, "__call__", lambda *both: decode(*both))
    return watched
