"""nvImageCodec where there is no GPU: its names, and what its decoders were seen to do on an H200, with Pillow's pixels.

Both take baseline JPEGs, decode one without its end marker without an error, and RGB to wrong colors; the hybrid one
also takes progressive ones and CMYK. What neither can decode is None.
"""

import enum
import io
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from ssdtrt.images import gpu_decode


class BackendKind(enum.Enum):
    HW_GPU_ONLY = 0
    HYBRID_CPU_GPU = 1


class ColorSpec(enum.Enum):
    SRGB = 0


@dataclass
class Backend:
    kind: BackendKind


@dataclass
class DecodeParams:
    apply_exif_orientation: bool = True
    color_spec: ColorSpec | None = None


class CodeStream:
    """The bytes of a file, given as such or as an array."""

    def __init__(self, source):
        assert isinstance(source, bytes) or (source.dtype == np.uint8 and source.ndim == 1)
        self.source = source


class Decoder:
    """A decoder of one kind; `working` are the kinds that decode anything, `asked` has the sizes of all calls."""

    working = frozenset(BackendKind)
    asked: list[int] = []

    def __init__(self, device_id, backends, max_num_cpu_threads):
        assert isinstance(device_id, int) and isinstance(max_num_cpu_threads, int)
        (backend,) = backends
        self.kind = backend.kind

    def decode(self, streams, params, cuda_stream):
        assert params == DecodeParams(False, ColorSpec.SRGB) and isinstance(cuda_stream, int) and streams
        self.asked.append(len(streams))
        return [self._pixels(bytes(stream.source)) if self.kind in self.working else None for stream in streams]

    def _pixels(self, content):
        """The pixels [h, w, 3], or None."""
        try:
            with Image.open(io.BytesIO(content)) as opened:
                unusual = "progressive" in opened.info or opened.mode == "CMYK"
                if opened.format not in ("JPEG", "MPO") or max(opened.size) > 16384:
                    return None
                if unusual and self.kind is BackendKind.HW_GPU_ONLY:
                    return None
                of_rgb = [layer[0] for layer in opened.layer] == list(b"RGB")
            image = Image.open(io.BytesIO(content + b"\xff\xd9")).convert("RGB")
        except Exception:  # Pillow raises almost anything.
            return None
        if of_rgb:
            image = Image.frombytes("YCbCr", image.size, image.tobytes()).convert("RGB")
        return torch.from_numpy(np.array(image))


@pytest.fixture
def gpu_decoding(monkeypatch):
    """JPEGs are decoded as on a GPU, by the stand-in, and on the CPU: the class of its decoders."""
    real = gpu_decode.why_not
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", sys.modules[__name__])
    monkeypatch.setattr(gpu_decode, "why_not", lambda _, preprocess: real(torch.device("cuda"), preprocess))
    monkeypatch.setattr(Decoder, "asked", [])
    gpu_decode._load.cache_clear()
    yield Decoder
    gpu_decode._load.cache_clear()
