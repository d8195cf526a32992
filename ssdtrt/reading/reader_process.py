"""A process that reads pictures: paths in, pixels into shared memory, short responses out. Started by `reader_pool`.

    ssdtrt.reading.reader_process FD SLOTS SETTINGS

maps SLOTS slots of the open file FD; SETTINGS are ReaderSettings as JSON. A request is REQUEST; the path, in UTF-8, lies in
the slot. All requests have one length, so that many processes can read from one pipe. The response is RESPONSE; for a picture that cannot be read it has width 0, and its height is the length of the
message, in UTF-8, that the slot then holds. Notes, a line each, follow the pixels in the slot. Where pixels have width 0,
the slot holds a JPEG file for a GPU to decode, or nothing where that is too large for it: their height is its
orientation, and the notes' length its own. All responses have one length, so that many processes can write to one pipe. The process ends when its input does. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import struct
import sys
import time
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import load_image
from ssdtrt.images.jpeg import EncodedJpeg, read_jpeg
from ssdtrt.images.levels import ValueRange
from ssdtrt.images.preprocess import fits_device_resize, resize_image
from ssdtrt.reading.addresses import PUBLIC, AddressRules, is_address

REQUEST = struct.Struct("=ii")  # slot, bytes of the path
# Slot, the picture's width and height, the width and height of the pixels in the slot, bytes of the notes, microseconds.
RESPONSE = struct.Struct("=7i")
_NOTES = 4096  # bytes of a slot for notes


class ReaderSettings(NamedTuple):
    """How a process reads pictures.

    Attributes:
        preprocess: How they are resized, `eval` or `hub`.
        orient: Whether they are turned by their EXIF orientation.
        whole: Whether a picture that fits a slot keeps its own size.
        value_range: As for `load_image`.
        max_pixels: As for `load_image`.
        addresses: What may be fetched.
        jpegs: Whether JPEGs that a GPU decodes stay as they are.
    """

    preprocess: str
    orient: bool
    whole: bool
    value_range: ValueRange | None = None
    max_pixels: int | None = None
    addresses: AddressRules = PUBLIC
    jpegs: bool = False

    def to_text(self) -> str:
        """Return them as JSON."""
        return json.dumps(self)

    @classmethod
    def from_text(cls, text: str) -> ReaderSettings:
        """Read what `to_text` returned."""
        preprocess, orient, whole, value_range, max_pixels, addresses, jpegs = json.loads(text)
        bounds = value_range and tuple(value_range)
        return cls(preprocess, orient, whole, bounds, max_pixels, AddressRules(*addresses), jpegs)


def encode(text: str) -> bytes:
    """Encode text as UTF-8, also a path that is not valid UTF-8, whose bytes are surrogates in it."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """Decode what `encode` returned."""
    return data.decode("utf-8", "surrogatepass")


def slot_bytes(whole: bool) -> int:
    """Return the size of a slot, for pictures in their own size or for resized ones."""
    return 3 * (config.GPU_RESIZE_PIXELS if whole else config.IMAGE_SIZE**2) + _NOTES


def shared_slots(file: int, slots: int, whole: bool) -> np.ndarray:
    """Map an open file as uint8 [slots, bytes], shared with every process that maps it."""
    size = slot_bytes(whole)
    return np.frombuffer(mmap.mmap(file, slots * size), dtype=np.uint8).reshape(slots, size)


def _pixels(image: Image.Image, preprocess: str, whole: bool) -> np.ndarray:
    """The image in its own size where that is wanted and fits a slot, else resized: uint8 [h, w, 3]."""
    return np.asarray(image) if whole and fits_device_resize(*image.size) else resize_image(image, preprocess)


def _respond(path: str, slot: np.ndarray, settings: ReaderSettings) -> tuple[int, int, int, int, int]:
    """Read a picture into its slot; return a RESPONSE without the slot's number and the time."""
    notes: list[str] = []
    if settings.jpegs and (jpeg := read_jpeg(path, orient=settings.orient, max_pixels=settings.max_pixels)):
        return *jpeg.size, 0, jpeg.orientation, _write_whole(slot, jpeg)
    try:
        image = load_image(
            _fetched(path, settings.addresses) if is_address(path) else path,
            orient=settings.orient,
            value_range=settings.value_range,
            max_pixels=settings.max_pixels,
            note=notes.append,
        )
        pixels = _pixels(image, settings.preprocess, settings.whole)
    except ImageError as error:
        return 0, _write(slot, encode(str(error))), 0, 0, 0
    height, width = pixels.shape[:2]
    slot[: pixels.size].reshape(pixels.shape)[:] = pixels
    return *image.size, width, height, _write(slot[pixels.size :], encode("\n".join(notes)))


def _fetched(address: str, rules: AddressRules) -> BinaryIO:
    from ssdtrt.reading.fetch import Fetcher  # It takes a third of the start of such a process.

    return Fetcher(rules).fetch(address)


def _write_whole(memory: np.ndarray, jpeg: EncodedJpeg) -> int:
    """Write a file where there is room for it, and return its length; 0 where there is none."""
    size = len(jpeg.data)
    if size > len(memory):
        return 0
    memory[:size] = jpeg.data
    return size


def _write(memory: np.ndarray, text: bytes) -> int:
    """Write as much of a text as there is room for; return how much."""
    text = text[: len(memory)]
    memory[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    return len(text)


def main(file: int, slots: int, settings: ReaderSettings) -> None:
    """Respond to requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the input.
    memory, requests = shared_slots(file, slots, settings.whole), sys.stdin.fileno()
    with contextlib.suppress(BrokenPipeError):  # The parent is gone.
        while request := os.read(requests, REQUEST.size):
            slot, length = REQUEST.unpack(request)
            path, started = decode(memory[slot, :length].tobytes()), time.perf_counter()
            answer = _respond(path, memory[slot], settings)
            response = RESPONSE.pack(slot, *answer, min(int((time.perf_counter() - started) * 1e6), 2**31 - 1))
            os.write(sys.stdout.fileno(), response)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), ReaderSettings.from_text(sys.argv[3]))
