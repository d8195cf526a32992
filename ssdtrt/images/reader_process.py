"""A process that reads pictures: paths in, pixels into shared memory, short answers out. Started by `readers`.

    python -m ssdtrt.images.reader_process FD SLOTS PREPROCESS ORIENT WHOLE

maps SLOTS slots from the open file FD; ORIENT and WHOLE are 0 or 1. A question is ASK and the path in UTF-8. An answer
is ANSWER; one for a picture that cannot be read has width 0, and its height is the length of the message, in UTF-8,
that the slot then holds. All answers are of one length, so that many processes may write to one pipe. It ends when its
input does. No torch here.
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
from ssdtrt.images.preprocess import resize_image

ASK = struct.Struct("=ii")  # slot, bytes of the path
ANSWER = struct.Struct("=5i")  # slot, the picture's width and height, those of the pixels in the slot


def encode(text: str) -> bytes:
    """UTF-8, also of a path whose name is none: its bytes are surrogates in it."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """What `encode` was given."""
    return data.decode("utf-8", "surrogatepass")


def slot_bytes(whole: bool) -> int:
    """The bytes of a slot, for pictures as they are or for squeezed ones."""
    return 3 * (config.WHOLE_PIXELS if whole else config.IMAGE_SIZE**2)


def shared_slots(file: int, slots: int, whole: bool) -> np.ndarray:
    """The open file as uint8 [slots, bytes], shared by every process that maps it."""
    size = slot_bytes(whole)
    return np.frombuffer(mmap.mmap(file, slots * size), dtype=np.uint8).reshape(slots, size)


def pixels_of(image: Image.Image, preprocess: str, whole: bool) -> np.ndarray:
    """The picture as it is where that is wanted and fits a slot, else squeezed: uint8 [h, w, 3]."""
    fits = image.width * image.height <= config.WHOLE_PIXELS and max(image.size) <= config.WHOLE_SIDE
    return np.asarray(image) if whole and fits else resize_image(image, preprocess)


def answer(path: str, slot: np.ndarray, preprocess: str, orient: bool, whole: bool) -> tuple[int, int, int, int]:
    """Reads a picture into its slot, and says how that went: an ANSWER without the slot's number."""
    try:
        image = load_image(path, orient=orient)
        pixels = pixels_of(image, preprocess, whole)
    except ImageError as error:
        message = encode(str(error))[: len(slot)]
        slot[: len(message)] = np.frombuffer(message, dtype=np.uint8)
        return 0, len(message), 0, 0
    height, width = pixels.shape[:2]
    slot[: pixels.size].reshape(pixels.shape)[:] = pixels
    return *image.size, width, height


def main(file: int, slots: int, preprocess: str, orient: bool, whole: bool) -> None:
    """Answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it, and ends its input.
    memory, questions = shared_slots(file, slots, whole), sys.stdin.buffer
    with contextlib.suppress(BrokenPipeError):  # Nobody is left to be answered.
        while len(head := questions.read(ASK.size)) == ASK.size:
            slot, length = ASK.unpack(head)
            path = decode(questions.read(length))
            os.write(sys.stdout.fileno(), ANSWER.pack(slot, *answer(path, memory[slot], preprocess, orient, whole)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1", sys.argv[5] == "1")
