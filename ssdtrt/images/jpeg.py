"""Which JPEG files a GPU decodes to what Pillow gives, within the rounding of a pixel. No torch here."""

from __future__ import annotations

import io
import os
import stat
from typing import NamedTuple

import numpy as np
from PIL import ExifTags
from PIL.JpegImagePlugin import JpegImageFile

from ssdtrt.images.decode import pillow_settings, usual_pixels

_START, _SCAN, _END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_FRAME, _JFIF, _TAGS, _ADOBE = 0xC0, 0xE0, 0xE1, 0xEE  # markers: of the baseline frame, of EXIF and XMP, ...
_BEFORE_SCAN = frozenset((_FRAME, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))  # Of another frame there is none.
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

    def encoded(self) -> np.ndarray:
        """Return the bytes of the file, uint8 [n].

        Raises:
            OSError: Where the file cannot be read.
        """
        if isinstance(self.data, np.ndarray):
            return self.data
        return np.fromfile(self.data, np.uint8)


def read_jpeg(path: str | os.PathLike, *, orient: bool = True, max_pixels: int | None = None) -> EncodedJpeg | None:
    """Read a file, if it is a JPEG that a GPU decodes as Pillow does.

    Args:
        path: The file.
        orient: Whether it is turned by its EXIF orientation.
        max_pixels: How many pixels are read (see `load_image`).

    Returns:
        As `jpeg_in`; None also for what cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            start = file.read(len(_START))
            data = start + file.readall() if start == _START else b""
    except (OSError, ValueError, MemoryError):  # Raised again where it is read.
        return None
    return jpeg_in(data, orient=orient, max_pixels=max_pixels)


def jpeg_in(data: bytes, *, orient: bool = True, max_pixels: int | None = None) -> EncodedJpeg | None:
    """Return the JPEG that these bytes are, if a GPU decodes it as Pillow does.

    That is a whole baseline JPEG of 8 bits, grey or Y'CbCr. All others are Pillow's: progressive ones, CMYK and RGB, what
    is cut off, and what has so many pixels that Pillow has something to say about it.

    Args:
        data: The bytes of a file.
        orient: Whether it is turned by its EXIF orientation.
        max_pixels: How many pixels are read (see `load_image`).

    Returns:
        The file; None for everything else.
    """
    try:
        if not (data.startswith(_START) and data[-64:].rstrip(b"\0").endswith(_END)):
            return None
        header = _read_header(data)
        if header is None or header.width * header.height > min(usual_pixels(), max_pixels or float("inf")):
            return None
        orientation = _orientation(data) if orient and header.tagged else 1
    except Exception:  # Pillow raises almost anything on a broken file, and does so again where it is read.
        return None
    return EncodedJpeg(np.frombuffer(data, np.uint8), (header.width, header.height), orientation)


class _Header(NamedTuple):
    """What a header says; `tagged` where it has EXIF or XMP."""

    width: int
    height: int
    tagged: bool


def _read_header(data: bytes) -> _Header | None:
    """Read the segments before the first scan; None where a GPU does not decode what they announce to the same colors.

    Pillow takes twice as long to open a file as to read it.
    """
    place, frame, jfif, transform, tagged = 2, b"", False, None, False
    while data[place] == 0xFF and (marker := data[place + 1]) in _BEFORE_SCAN:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        content = data[place + 4 : end]
        if marker == _FRAME:
            if frame:
                return None
            frame = content
        elif marker == _JFIF:
            jfif = jfif or content.startswith(b"JFIF\0")
        elif marker == _TAGS:
            tagged = True
        elif marker == _ADOBE and content.startswith(b"Adobe"):
            transform = content[11]
        place = end
    bits, height, width, layers = frame[0], *(int.from_bytes(frame[at : at + 2], "big") for at in (1, 3)), frame[5]
    # Without one of these marks the colors are RGB, or a decoder guesses.
    y_cb_cr = transform in (None, 1) and (jfif or transform == 1 or frame[6:15:3] == b"\1\2\3")
    known = data[place : place + 2] == _SCAN and bits == 8 and (layers == 1 or (layers == 3 and y_cb_cr))
    fits = min(width, height) > 0 and max(width, height) <= _LONGEST_SIDE
    return _Header(width, height, tagged) if known and fits else None


def _orientation(data: bytes) -> int:
    """How Pillow turns the picture, 1 to 8."""
    with pillow_settings(None):
        found = JpegImageFile(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1)
    return int(found) if found in range(1, 9) else 1
