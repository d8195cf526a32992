"""Decode pictures of any kind to upright RGB.

No torch here: the processes that read pictures must start quickly.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssdtrt.errors import ImageError, first_line
from ssdtrt.system.files import is_special

Picture = str | Path | BinaryIO | Image.Image | np.ndarray
"""What a picture can be: a path, an open file, a PIL image, or a uint8 array [H, W, 3], [H, W, 4] or [H, W]."""


def load_image(picture: Picture, *, orient: bool = True) -> Image.Image:
    """Load a picture of any kind as an upright RGB image.

    Args:
        picture: A path, an open file, a PIL image, or a uint8 array [H, W, 3], [H, W, 4] or [H, W].
        orient: Whether to turn the picture by its EXIF orientation. The published evaluation does not.

    Returns:
        An RGB image. Of an animation it is the first frame, transparency is composed on white, and 16 bits a channel
        become 8. A PIL image that is upright RGB already is returned as it is.

    Raises:
        ImageError: For what cannot be read, and for more pixels than PIL.Image.MAX_IMAGE_PIXELS.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture)
    elif not isinstance(picture, (str, os.PathLike, Image.Image)) and not hasattr(picture, "read"):
        raise ImageError(
            f"A {type(picture).__name__} cannot be read as a picture; expected a path, a PIL image or a uint8 array."
        )
    try:
        with _pillow_warnings_off():
            if isinstance(picture, np.ndarray):
                return _to_rgb(Image.fromarray(picture))
            if isinstance(picture, Image.Image):
                picture.load()  # A file that was opened earlier may be broken: raise here, with its name.
                return _to_rgb(_upright(picture) if orient else picture)
            if isinstance(picture, (str, os.PathLike)) and is_special(picture):
                raise ImageError(f"{picture} is a device or a pipe; expected a picture.")
            with Image.open(picture) as opened:
                opened.load()
                return _to_rgb(_upright(opened) if orient else opened)
    except FileNotFoundError as error:
        raise ImageError(f"{picture}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{picture} is a directory; expected a picture.") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file.
        raise ImageError(f"{_name(picture)} cannot be read as a picture ({_reason(error)}).") from error


def check_array(pixels: np.ndarray) -> None:
    """Check an array that is given as a picture.

    Raises:
        ImageError: Unless it is uint8 [H, W], [H, W, 3] or [H, W, 4], and not empty.
    """
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not pixels.size or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ImageError(
            f"An array of {pixels.dtype} {list(shape)} cannot be read as a picture; "
            "expected uint8 [H, W, 3], [H, W, 4] or [H, W]."
        )


def _name(picture: Picture) -> str:
    """What to call a picture in a message: its path where it has one."""
    if isinstance(picture, (str, os.PathLike)):
        return str(picture)
    name = getattr(picture, "filename", None) or getattr(picture, "name", None)
    return str(name) if name else f"The {type(picture).__name__}"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, or of no format that Pillow knows"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, PIL.Image.MAX_IMAGE_PIXELS"
    return first_line(error)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; the same object where there is nothing to turn."""
    return image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, transparency on white and 16 bits scaled to 8; the same object where it is RGB already."""
    if image.mode.startswith("I;16") or image.mode == "I":
        pixels = np.asarray(image).astype(np.float64)
        image = Image.fromarray((pixels / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


_lock = threading.Lock()
_readers = 0
_filters: Any = None


@contextlib.contextmanager
def _pillow_warnings_off() -> Iterator[None]:
    """Ignore Pillow's warnings in the block, but raise its DecompressionBombWarning.

    Warning filters belong to the process, so threads that read at the same time share one change of them: the first
    one in makes it and the last one out undoes it.
    """
    global _readers, _filters
    with _lock:
        _readers += 1
        if _readers == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _filters.__exit__(None, None, None)
