"""Which JPEG files a GPU decodes to what Pillow gives, within the rounding of a pixel. No torch here."""

from __future__ import annotations

import io
import os
import stat
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_LONGEST_SIDE = 16384  # pixels


class EncodedJpeg(NamedTuple):
    """A JPEG file that a GPU can decode.

    Attributes:
        data: Its bytes, uint8 [n]; or its path, for a reader to read it.
        stored: The (width, height) that it is stored with.
        orientation: How it is to be turned, 1 to 8 as in EXIF; 1 for not at all.
    """

    data: np.ndarray | str
    stored: tuple[int, int]
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) of the picture once it is turned."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored

    def encoded(self) -> bytes | np.ndarray:
        """Return the bytes of the file.

        Raises:
            OSError: Where the file cannot be read.
        """
        if isinstance(self.data, np.ndarray):
            return self.data
        with open(self.data, "rb") as file:
            return file.read()


def read_jpeg(path: str | os.PathLike, *, orient: bool = True, max_pixels: int | None = None) -> EncodedJpeg | None:
    """Read a file, if it is a JPEG that a GPU decodes as Pillow does.

    That is a whole baseline JPEG of 8 bits, grey or Y'CbCr. All others are Pillow's: progressive ones, CMYK and RGB, what
    is cut off, and what has so many pixels that Pillow has something to say about it.

    Args:
        path: The file.
        orient: Whether it is turned by its EXIF orientation.
        max_pixels: How many pixels are read (see `load_image`).

    Returns:
        The file; None for everything else, also for what cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            start = file.read(len(_START))
            data = start + file.read() if start == _START else b""
        if not data[-64:].rstrip(b"\0").endswith(_END):
            return None
        opened = JpegImageFile(io.BytesIO(data))  # The header alone.
        if not _is_like_pillows(opened) or opened.width * opened.height > _most_pixels(max_pixels):
            return None
        found = int(opened.getexif().get(ExifTags.Base.Orientation, 1)) if orient else 1
    except Exception:  # Pillow raises almost anything on a broken file, and does so again where it is read.
        return None
    return EncodedJpeg(np.frombuffer(data, np.uint8), opened.size, found if 1 <= found <= 8 else 1)


def _is_like_pillows(opened: JpegImageFile) -> bool:
    """Whether a header is of a kind that a GPU decodes, and to the same colors."""
    info, identifiers = opened.info, [layer[0] for layer in opened.layer]
    if "progressive" in info or opened.bits != 8 or max(opened.size) > _LONGEST_SIDE:
        return False
    if opened.mode == "L":
        return True
    # Without these marks the colors are RGB, or a decoder guesses.
    y_cb_cr = info.get("adobe_transform", 1) == 1 and ("jfif" in info or "adobe" in info or identifiers == [1, 2, 3])
    return opened.mode == "RGB" and y_cb_cr


def _most_pixels(max_pixels: int | None) -> float:
    """How many pixels are read without a note."""
    usual = Image.MAX_IMAGE_PIXELS or float("inf")
    return min(usual, max_pixels or usual)
