"""Decode pictures of any kind to upright RGB.

No torch here: the processes that read pictures must start quickly.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssdtrt.errors import ImageError, first_line
from ssdtrt.images.levels import ValueRange, channels_to_levels, is_deep, sixteen_bit_channels, to_levels
from ssdtrt.system.files import is_special
from ssdtrt.system.progress import Progress, silent

Picture = str | Path | BinaryIO | Image.Image | np.ndarray
"""What a picture can be: a path, an open file, a PIL image, or a uint8 array [H, W] or [H, W, 1 | 3 | 4]."""

# Formats with a signature that is not found in other files by chance.
_WITH_SIGNATURE = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_HEIF = "HEIC: pip install pillow-heif"
_NEEDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIF),
    **dict.fromkeys((b"avif", b"avis"), "AVIF: pip install 'pillow>=11.3'"),
}
# Ghostscript runs the first as a program; the second has a picture of any format inside.
_OF_FILES_ALONE = ("EPS", "IPTC")
_DNG_VERSION, _NEW_SUBFILE_TYPE = 50706, 254  # tags of a TIFF


def load_image(
    picture: Picture,
    *,
    orient: bool = True,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    note: Progress = silent,
) -> Image.Image:
    """Load a picture of any kind as an upright RGB image.

    Args:
        picture: A path, an open file, a PIL image, or a uint8 array [H, W] or [H, W, 1 | 3 | 4].
        orient: Whether to turn the picture by its EXIF orientation. The published evaluation does not.
        value_range: Which values of more than 8 bits become black and white; by default what the picture holds.
        max_pixels: How many pixels are read; by default twice PIL.Image.MAX_IMAGE_PIXELS, as Pillow does.
        note: Called with a line where `value_range` was derived from the pixels, and where Pillow would warn of the number of pixels.

    Returns:
        An RGB image. Of an animation it is the first frame, transparency is composed on white, and more than 8 bits a
        channel become 8 (see `to_levels`). A PIL image that is upright RGB already is returned as it is. PostScript is read
        from files alone, not from memory.

    Raises:
        ImageError: For what cannot be read, and for more pixels than `max_pixels`.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture)
    elif not isinstance(picture, (str, os.PathLike, Image.Image)) and not hasattr(picture, "read"):
        raise ImageError(
            f"A {type(picture).__name__} cannot be read as a picture; expected a path, a PIL image or a uint8 array."
        )
    try:
        with pillow_settings(max_pixels) as usual:
            if isinstance(picture, np.ndarray):
                return _to_rgb(Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture), None, silent)
            if isinstance(picture, Image.Image):
                picture = _load(picture, value_range, note)  # A file that was opened earlier may be broken: raise here.
                return _to_rgb(_upright(picture) if orient else picture, value_range, note)
            if isinstance(picture, (str, os.PathLike)) and is_special(picture):
                raise ImageError(f"{picture} is a device or a pipe; expected a picture.")
            with _open(picture) as opened:
                _check_opened(opened, max_pixels, usual, note)
                image = _load(opened, value_range, note)
                return _to_rgb(_upright(image) if orient else image, value_range, note)
    except FileNotFoundError as error:
        raise ImageError(f"{picture}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{picture} is a directory; expected a picture.") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file.
        raise ImageError(
            f"{_name(picture)} cannot be read as a picture ({_reason(picture, error, max_pixels)})."
        ) from error


def check_array(pixels: np.ndarray) -> None:
    """Check an array that is given as a picture.

    Raises:
        ImageError: Unless it is uint8 [H, W] or [H, W, 1 | 3 | 4], and not empty.
    """
    shape = pixels.shape
    if (
        pixels.dtype != np.uint8
        or not pixels.size
        or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)))
    ):
        raise ImageError(
            f"An array of {pixels.dtype} {list(shape)} cannot be read as a picture; "
            "expected uint8 [H, W] or [H, W, 1 | 3 | 4]."
        )


def content_format(path: str) -> str | None:
    """Return the format of a file by its first bytes; None where it is no picture, or no format with a signature.

    Raises:
        OSError: Where it cannot be opened.
    """
    register_heif()
    with open(path, "rb") as file, pillow_settings(None):
        try:
            with Image.open(file, formats=[name for name in _WITH_SIGNATURE if name in Image.OPEN]) as opened:
                return None if _is_preview(opened) else opened.format
        except Exception:  # Pillow's plugins raise almost anything on a broken file.
            return None


@functools.cache
def register_heif() -> bool:
    """Register the formats of pillow-heif with Pillow where it is installed, once; return whether it is."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def missing_decoder(head: bytes) -> str:
    """Return the format of a file that needs a package which is not installed, and the fix; "" for all others.

    Args:
        head: The first 12 bytes of the file.
    """
    return _NEEDS.get(head[8:12], "") if head[4:8] == b"ftyp" else ""


def _open(picture: str | Path | BinaryIO) -> Image.Image:
    formats = None
    if isinstance(picture, io.BytesIO):  # It was sent or fetched.
        register_heif()
        formats = [name for name in Image.ID if name not in _OF_FILES_ALONE]
    try:
        return Image.open(picture, "r", formats)
    except UnidentifiedImageError:
        if "HEIF" in Image.OPEN or not register_heif():
            raise
        return Image.open(picture)


def _is_preview(opened: Any) -> bool:
    """Whether the first picture of a file is a preview: of a camera's raw file, which is a TIFF, or of another one."""
    tags = opened.tag_v2 if opened.format == "TIFF" else {}
    return _DNG_VERSION in tags or bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 1)


def _check_opened(opened: Image.Image, max_pixels: int | None, usual: int | None, note: Progress) -> None:
    """Refuse previews and more than `max_pixels`; note more than Pillow's `usual` number."""
    if _is_preview(opened):
        raise ValueError(
            "its first picture is a preview, as in a camera's raw file, and Pillow reads that alone; "
            "develop it to JPEG or TIFF, or save the full picture by itself"
        )
    pixels = opened.width * opened.height
    if pixels > (max_pixels or (2 * usual if usual else pixels)):
        raise Image.DecompressionBombError
    if usual and pixels > usual:
        note(f"it has more than {usual:,} pixels, from where Pillow warns of decompression bombs, and is read")


def _load(image: Image.Image, value_range: ValueRange | None, note: Progress) -> Image.Image:
    """Load the pixels of an opened image; where it has 16 bits a channel, return a copy of 8, by their range."""
    values = sixteen_bit_channels(image)
    image.load()
    levels = None if values is None else channels_to_levels(values, value_range, note, alpha=image.mode == "RGBA")
    if levels is None:
        return image
    copy = image.copy()
    copy.paste(Image.frombytes(image.mode, image.size, levels.tobytes()))
    return copy


def _name(picture: Picture) -> str:
    """What to call a picture in a message: its path where it has one."""
    if isinstance(picture, (str, os.PathLike)):
        return str(picture)
    name = getattr(picture, "filename", None) or getattr(picture, "name", None)
    return str(name) if name else f"The {type(picture).__name__}"


def _reason(picture: Picture, error: Exception, max_pixels: int | None) -> str:
    if isinstance(error, UnidentifiedImageError):
        return missing_decoder(_head(picture)) or "it is empty, or of no format that Pillow knows"
    if isinstance(error, Image.DecompressionBombError):
        limit = max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"it has more than {limit:,} pixels; --max-pixels (max_pixels) allows more"
    return getattr(error, "strerror", None) or first_line(error)  # An OSError of the system names the file again.


def _head(picture: Any) -> bytes:
    """The first bytes of a picture's file."""
    with contextlib.suppress(OSError):
        if isinstance(picture, (str, os.PathLike)):
            with open(picture, "rb") as file:
                return file.read(12)
        picture.seek(0)
        return bytes(picture.read(12))
    return b""


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; the same object where it stands upright."""
    return image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image, value_range: ValueRange | None, note: Progress) -> Image.Image:
    """The image as RGB, transparency on white and more than 8 bits as 8; the same object where it is RGB already."""
    if is_deep(image):
        image = to_levels(image, value_range, note)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def usual_pixels() -> float:
    """Return Pillow's own limit of pixels, PIL.Image.MAX_IMAGE_PIXELS, also while it is changed for a picture."""
    with _lock:
        return (_usual if _readers else Image.MAX_IMAGE_PIXELS) or float("inf")


_lock = threading.Lock()
_readers = 0
_filters: Any = None
_usual: int | None = None


@contextlib.contextmanager
def pillow_settings(max_pixels: int | None) -> Iterator[int | None]:
    """Ignore Pillow's warnings in the block, and let it read so many pixels; yields its own PIL.Image.MAX_IMAGE_PIXELS.

    Both settings belong to the process, so threads that read at the same time share one change of them: the first one
    in makes it, one that needs more pixels raises the limit, and the last one out undoes it.
    """
    global _readers, _filters, _usual
    with _lock:
        _readers += 1
        if _readers == 1:
            _filters, _usual = warnings.catch_warnings(), Image.MAX_IMAGE_PIXELS
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        usual = _usual
        if max_pixels and Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2))  # Pillow refuses twice as many.
    try:
        yield usual
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _filters.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = _usual
