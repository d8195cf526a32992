"""A process that reads pictures: paths in, pixels into shared memory, short responses out. Started by `reader_pool`.

    python -m ssdtrt.images.reader_process FD SLOTS PREPROCESS ORIENT WHOLE

maps SLOTS slots of the open file FD; ORIENT and WHOLE are 0 or 1. A request is REQUEST and then the path in UTF-8. The
response is RESPONSE; for a picture that cannot be read it has width 0, and its height is the length of the message, in
UTF-8, that the slot then holds. All responses have one length, so that many processes can write to one pipe. The
process ends when its input does. No torch here.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import sys

import numpy as np
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import load_image
from ssdtrt.images.preprocess import fits_device_resize, resize_image

REQUEST = struct.Struct("=ii")  # slot, bytes of the path
RESPONSE = struct.Struct("=5i")  # slot, the picture's width and height, the width and height of the pixels in the slot


def encode(text: str) -> bytes:
    """Encode text as UTF-8, also a path that is not valid UTF-8, whose bytes are surrogates in it."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """Decode what `encode` returned."""
    return data.decode("utf-8", "surrogatepass")


def slot_bytes(whole: bool) -> int:
    """Return the size of a slot, for pictures in their own size or for resized ones."""
    return 3 * (config.GPU_RESIZE_PIXELS if whole else config.IMAGE_SIZE**2)


def shared_slots(file: int, slots: int, whole: bool) -> np.ndarray:
    """Map an open file as uint8 [slots, bytes], shared with every process that maps it."""
    size = slot_bytes(whole)
    return np.frombuffer(mmap.mmap(file, slots * size), dtype=np.uint8).reshape(slots, size)


def _pixels(image: Image.Image, preprocess: str, whole: bool) -> np.ndarray:
    """The image in its own size where that is wanted and fits a slot, else resized: uint8 [h, w, 3]."""
    return np.asarray(image) if whole and fits_device_resize(*image.size) else resize_image(image, preprocess)


def _respond(path: str, slot: np.ndarray, preprocess: str, orient: bool, whole: bool) -> tuple[int, int, int, int]:
    """Read a picture into its slot; return a RESPONSE without the slot's number."""
    try:
        image = load_image(path, orient=orient)
        pixels = _pixels(image, preprocess, whole)
    except ImageError as error:
        message = encode(str(error))[: len(slot)]
        slot[: len(message)] = np.frombuffer(message, dtype=np.uint8)
        return 0, len(message), 0, 0
    height, width = pixels.shape[:2]
    slot[: pixels.size].reshape(pixels.shape)[:] = pixels
    return *image.size, width, height


def main(file: int, slots: int, preprocess: str, orient: bool, whole: bool) -> None:
    """Respond to requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the input.
    memory, requests = shared_slots(file, slots, whole), sys.stdin.buffer
    with contextlib.suppress(BrokenPipeError):  # The parent is gone.
        while len(head := requests.read(REQUEST.size)) == REQUEST.size:
            slot, length = REQUEST.unpack(head)
            path = decode(requests.read(length))
            response = RESPONSE.pack(slot, *_respond(path, memory[slot], preprocess, orient, whole))
            os.write(sys.stdout.fileno(), response)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1", sys.argv[5] == "1")
