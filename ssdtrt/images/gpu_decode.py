"""Decode JPEG files on a GPU with nvImageCodec: by the GPU's own decoder, or with its cores where it has none."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.images.gpu_resize import order_of_passes, resize
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.system.versions import pip_install

_EXTRA = "gpu-decode"
_VERBOSITY = "PYNVIMGCODEC_VERBOSITY"  # of nvImageCodec's log, which otherwise has a line for each file it refuses


def why_not(device: torch.device, preprocess: str) -> str:
    """Return why JPEGs are not decoded on this device, and what to do; "" where they are."""
    if device.type != "cuda":
        return "there is no GPU here that torch sees, or --device is cpu"
    if preprocess != "eval":
        return f"the file was exported with --preprocess {preprocess}, whose blur and crop are computed on the CPU"
    if order_of_passes() is None:
        return "the installed Pillow resizes in a way that is not known here; install another version"
    try:
        _load()
    except SsdtrtError as error:
        return str(error)
    return ""


def decoder_for(decode: str, device: torch.device, preprocess: str, wanted: bool) -> JpegDecoder | None:
    """Return a decoder where one is wanted.

    Args:
        decode: `gpu`, or another of config.DECODE where the CPU will do.
        device: The device.
        preprocess: How pictures are prepared, `eval` or `hub`.
        wanted: Whether there is something to decode.

    Returns:
        The decoder; None where none is wanted, or JPEGs cannot be decoded on the device.

    Raises:
        SsdtrtError: For `gpu`, where they cannot.
    """
    if not wanted:
        return None
    reason = why_not(device, preprocess)
    if not reason:
        try:
            return JpegDecoder(device)
        except SsdtrtError as error:
            reason = str(error)
    if decode == "gpu":
        raise SsdtrtError(f"JPEGs cannot be decoded on the GPU: {reason.rstrip('.')}. Or leave --decode (decode) out.")
    return None


class JpegDecoder:
    """Decodes JPEG files on a GPU, and resizes them there as Pillow does.

    Pixels differ from Pillow's by 3 of 255 at most where the GPU has a decoder, 0.6 on average: both round what they
    interpolate between colors of a lower resolution. Work that runs on other streams goes on meanwhile. nvImageCodec takes
    Python's lock three times a picture, so another thread that computes in Python slows it down to a third.

    Args:
        device: The GPU.

    Attributes:
        kind: `hardware`, or `hybrid` where a GPU has no decoder of its own.

    Raises:
        SsdtrtError: Where nvImageCodec is missing, or decodes nothing here.
    """

    def __init__(self, device: torch.device):
        self.device, self._nvimgcodec = device, _load()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._params = self._nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=self._nvimgcodec.ColorSpec.SRGB
        )
        for self.kind, name, threads in (
            ("hardware", "HW_GPU_ONLY", config.HARDWARE_DECODE_THREADS),
            ("hybrid", "HYBRID_CPU_GPU", 0),
        ):
            with contextlib.suppress(Exception), _quiet():
                self._decoder = self._new(name, threads)
                if self._decode([EncodedJpeg(_tiny_jpeg(), (16, 16))])[0] is not None:
                    return
        raise SsdtrtError(f"nvImageCodec decodes no JPEG on {device}; update it: {pip_install(_EXTRA)}")

    def __call__(self, jpegs: Sequence[EncodedJpeg]) -> list[Tensor | None]:
        """Decode, turn and resize files.

        At most config.GPU_DECODE_PIXELS pixels, or one picture, are on the GPU at a time beside the results.

        Args:
            jpegs: The files.

        Returns:
            Of each uint8 [300, 300, 3] on the device, which has finished with them; None where it could not be decoded.
        """
        with torch.cuda.stream(self._stream):
            images = self._decode_and_resize(jpegs)
            if self._stream is not None:
                self._stream.synchronize()
        return images

    def _decode_and_resize(self, jpegs: Sequence[EncodedJpeg]) -> list[Tensor | None]:
        images: list[Tensor | None] = [None] * len(jpegs)
        for chunk in _chunks(jpegs):
            groups: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
            for index, pixels in zip(chunk, self._decode([jpegs[index] for index in chunk])):
                if pixels is not None:
                    groups.setdefault(tuple(pixels.shape), []).append((index, pixels))
            for group in groups.values():
                for (index, _), image in zip(group, resize(torch.stack([pixels for _, pixels in group]))):
                    images[index] = image
        return images

    def _new(self, name: str, threads: int) -> Any:
        kinds = [self._nvimgcodec.Backend(getattr(self._nvimgcodec.BackendKind, name))]
        return self._nvimgcodec.Decoder(device_id=self.device.index or 0, backends=kinds, max_num_cpu_threads=threads)

    def _decode(self, jpegs: Sequence[EncodedJpeg]) -> list[Tensor | None]:
        """The pixels of each file [h, w, 3], turned; None where it could not be decoded."""
        found: list[Tensor | None] = [None] * len(jpegs)
        sources = {}
        for index, jpeg in enumerate(jpegs):
            with contextlib.suppress(OSError, RuntimeError):  # It is gone, or no JPEG any more.
                sources[index] = self._nvimgcodec.CodeStream(jpeg.encoded())
        if not sources:
            return found
        stream = self._stream.cuda_stream if self._stream is not None else 0
        decoded = self._decoder.decode(list(sources.values()), params=self._params, cuda_stream=stream)
        for index, image in zip(sources, decoded):
            if image is not None:
                pixels = torch.utils.dlpack.from_dlpack(image)
                if tuple(pixels.shape) == (*jpegs[index].stored[::-1], 3):
                    found[index] = _turned(pixels, jpegs[index].orientation)
        return found


def _chunks(jpegs: Sequence[EncodedJpeg]) -> Iterator[list[int]]:
    """The places of files that are decoded together."""
    chunk: list[int] = []
    pixels = 0
    for index, jpeg in enumerate(jpegs):
        area = jpeg.stored[0] * jpeg.stored[1]
        if chunk and pixels + area > config.GPU_DECODE_PIXELS:
            yield chunk
            chunk, pixels = [], 0
        chunk.append(index)
        pixels += area
    if chunk:
        yield chunk


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """Pixels [h, w, 3] turned by an orientation of EXIF, 1 to 8."""
    if orientation >= 5:
        pixels = pixels.transpose(0, 1)
    sides = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(orientation)
    return pixels.flip(sides) if sides else pixels


@functools.cache
def _load() -> Any:
    """Import nvImageCodec, without what it prints about formats that are not asked for.

    Raises:
        SsdtrtError: Where it, or the library of nvJPEG that it needs, cannot be imported.
    """
    try:
        with _quiet():
            return importlib.import_module("nvidia.nvimgcodec")
    except ModuleNotFoundError:
        raise SsdtrtError(f"nvImageCodec is not installed; {pip_install(_EXTRA)}") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise SsdtrtError(f"nvImageCodec cannot be imported ({error}); {pip_install(_EXTRA)}") from error


_lock = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what the process writes to stderr nowhere inside the block: nvImageCodec writes there past its own log."""
    os.environ.setdefault(_VERBOSITY, "0")
    with _lock, open(os.devnull, "wb") as nowhere:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _tiny_jpeg() -> np.ndarray:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "JPEG")
    return np.frombuffer(content.getvalue(), np.uint8)
