"""Decode JPEG files on a GPU with nvImageCodec: by the GPU's own decoder, or with its cores where it has none."""

from __future__ import annotations

import contextlib
import io
import itertools
import queue
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.images.gpu_resize import order_of_passes, resize
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.images.nvimgcodec import Decoder
from ssdtrt.images.nvimgcodec_library import EXTRA, load
from ssdtrt.system.gpu_errors import gpu_errors
from ssdtrt.system.versions import pip_install

_ALIGNMENT = 256  # bytes, that of memory from cudaMalloc


def never(device_type: str, preprocess: str) -> str:
    """Return why no device of a type, such as `cuda`, decodes JPEGs for such a file, whatever is installed; "" where one may."""
    if device_type != "cuda":
        return "there is no GPU here that torch sees, or --device is cpu"
    if preprocess != "eval":
        return f"the file was exported with --preprocess {preprocess}, whose blur and crop are computed on the CPU"
    return ""


def why_not(device: torch.device, preprocess: str) -> str:
    """Return why JPEGs are not decoded on this device, and what to do; "" where they are."""
    if reason := never(device.type, preprocess):
        return reason
    if order_of_passes() is None:
        return "the installed Pillow resizes in a way that is not known here; install another version"
    try:
        load()
    except SsdtrtError as error:
        return str(error)
    return ""


def refusal(reason: str) -> SsdtrtError:
    """Return the error for who asked for a GPU that cannot decode, for a reason that `why_not` gives."""
    return SsdtrtError(
        f"JPEGs cannot be decoded on the GPU: {reason.rstrip('.')}. Leave --decode (decode) out, and the CPU does it."
    )


def decoder_for(
    decode: str, device: torch.device, preprocess: str, wanted: bool, threads: int = config.GPU_DECODERS
) -> JpegDecoder | None:
    """Return a decoder where one is wanted.

    Args:
        decode: `gpu`, or another of config.DECODE where the CPU will do.
        device: The device.
        preprocess: How pictures are prepared, `eval` or `hub`.
        wanted: Whether there is something to decode.
        threads: How many threads call it at a time.

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
            return JpegDecoder(device, threads)
        except SsdtrtError as error:
            reason = str(error)
    if decode == "gpu":
        raise refusal(reason)
    return None


class JpegDecoder:
    """Decodes JPEG files on a GPU, and resizes them there as Pillow does.

    Pixels differ from Pillow's by 3 of 255 at most where the GPU has a decoder, 0.6 on average: both round what they
    interpolate between colors of a lower resolution. Work that runs on other streams goes on meanwhile, in which a decoder
    waits for its turn again and again: so several threads may call it at a time, each of which has its own.

    Args:
        device: The GPU; or the CPU, where nvImageCodec decodes with libjpeg-turbo.
        threads: How many they are.

    Attributes:
        kind: `hardware`, `hybrid` where a GPU has no decoder of its own, or `cpu`.

    Raises:
        SsdtrtError: Where nvImageCodec is missing, or decodes nothing here.
    """

    def __init__(self, device: torch.device, threads: int = config.GPU_DECODERS):
        self.device = device
        self._free: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        reason = SsdtrtError(f"nvImageCodec decodes no JPEG on {device}; update it: {pip_install(EXTRA)}")
        for self.kind in ("hardware", "hybrid") if device.type == "cuda" else ("cpu",):
            try:
                with gpu_errors():
                    decoders = [_Decoder(device, self.kind) for _ in range(threads)]
                    if decoders[0]([EncodedJpeg(_tiny_jpeg(), (16, 16))])[0] is not None:
                        break
            except SsdtrtError as error:  # The next kind may start all the same.
                reason = error
        else:
            raise reason
        for decoder in decoders:
            self._free.put(decoder)

    def __call__(self, jpegs: Sequence[EncodedJpeg]) -> list[Tensor | None]:
        """Decode, turn and resize files.

        At most config.GPU_DECODE_PIXELS pixels, or one picture, are on the GPU at a time beside the results.

        Args:
            jpegs: The files.

        Returns:
            Of each uint8 [300, 300, 3] on the device, which has finished with them; None where it could not be decoded.
        """
        decoder = self._free.get()
        try:
            return decoder(jpegs)
        finally:
            self._free.put(decoder)


class _Decoder:
    """A decoder for one thread at a time, with a stream of its own."""

    def __init__(self, device: torch.device, kind: str):
        self._device, on_gpu = device, device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        threads = 0 if kind == "hybrid" else config.HARDWARE_DECODE_THREADS
        self._decode = Decoder(kind, (device.index or 0) if on_gpu else None, threads)

    def __call__(self, jpegs: Sequence[EncodedJpeg]) -> list[Tensor | None]:
        """See `JpegDecoder`."""
        images: list[Tensor | None] = [None] * len(jpegs)
        with torch.cuda.stream(self._stream):
            for chunk in _chunks(jpegs):
                self._decode_and_resize(jpegs, chunk, images)
            if self._stream is not None:
                self._stream.synchronize()
        return images

    def _decode_and_resize(self, jpegs: Sequence[EncodedJpeg], chunk: list[int], images: list[Tensor | None]) -> None:
        """Put the images of the files at some places there; those that are stored and turned alike are resized together."""
        files: dict[int, np.ndarray] = {}
        for index in chunk:
            with contextlib.suppress(OSError):  # It is gone.
                files[index] = jpegs[index].encoded()
        groups: dict[tuple[tuple[int, int], int], list[int]] = {}
        for index in files:
            groups.setdefault((jpegs[index].stored, jpegs[index].orientation), []).append(index)
        order = [index for group in groups.values() for index in group]
        sizes = [jpegs[index].stored for index in order]
        room = [_room(*size) for size in sizes]
        memory = torch.empty(sum(room), dtype=torch.uint8, device=self._device)
        targets = [memory.data_ptr() + before for before in itertools.accumulate(room, initial=0)]
        stream = self._stream.cuda_stream if self._stream is not None else 0
        decoded = dict(zip(order, self._decode([files[index] for index in order], sizes, targets, stream)))
        place = 0
        for ((width, height), orientation), group in groups.items():
            part = memory[place : place + len(group) * _room(width, height)].view(len(group), -1)
            place += part.numel()
            pixels = _turned(part[:, : 3 * width * height].view(len(group), height, width, 3), orientation)
            resized = resize(pixels)
            if resized is pixels:  # It would hold the memory of all.
                resized = pixels.clone()
            for index, image in zip(group, resized):
                if decoded[index]:
                    images[index] = image


def _room(width: int, height: int) -> int:
    """The bytes that the pixels of a picture take, with the rest of the last _ALIGNMENT."""
    return -(-3 * width * height // _ALIGNMENT) * _ALIGNMENT


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
    """Pixels [n, h, w, 3] turned by an orientation of EXIF, 1 to 8."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    sides = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation)
    return pixels.flip(sides) if sides else pixels


def _tiny_jpeg() -> np.ndarray:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "JPEG")
    return np.frombuffer(content.getvalue(), np.uint8)
