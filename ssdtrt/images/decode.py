"""Pictures of any kind, read upright and in RGB.

No torch here: the processes that read pictures start in a moment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Union

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssdtrt.errors import ImageError
from ssdtrt.images import pillow_warnings
from ssdtrt.system.files import is_special

Picture = Union[str, Path, BinaryIO, Image.Image, np.ndarray]


def load_image(picture: Picture, *, orient: bool = True) -> Image.Image:
    """An RGB picture from a path, an open file, a PIL image, or an array [H, W, 3], [H, W, 4] or [H, W] of uint8.

    Of an animation it is the first frame; transparent parts become white, 16 bits a channel become 8. The EXIF
    orientation is applied unless `orient` is False, as in the published evaluation. What is upright RGB already is not
    copied. Raises ImageError, also for a picture of more pixels than PIL.Image.MAX_IMAGE_PIXELS.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture)
    elif not isinstance(picture, (str, os.PathLike, Image.Image)) and not hasattr(picture, "read"):
        kind = type(picture).__name__
        raise ImageError(f"A {kind} cannot be read as a picture (expected a path, an image or an array).")
    try:
        with pillow_warnings.quiet():
            if isinstance(picture, np.ndarray):
                return to_rgb(Image.fromarray(picture))
            if isinstance(picture, Image.Image):
                picture.load()  # Now, so that what is wrong with a file opened earlier is said here.
                return to_rgb(upright(picture) if orient else picture)
            if isinstance(picture, (str, os.PathLike)) and is_special(picture):
                raise ImageError(f"{picture} is a device or a pipe; expected a picture.")
            with Image.open(picture) as opened:
                opened.load()
                return to_rgb(upright(opened) if orient else opened)
    except FileNotFoundError as error:
        raise ImageError(f"{picture}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{picture} is a directory; expected a picture.") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file.
        raise ImageError(f"{name_of(picture)} cannot be read as a picture ({reason_of(error)}).") from error


def check_array(pixels: np.ndarray) -> None:
    """Raises ImageError unless the array is uint8 [H, W], [H, W, 3] or, with transparency, [H, W, 4], and not empty."""
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not pixels.size or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ImageError(
            f"the array of shape {shape} cannot be read as a picture (expected uint8 [H, W] or [H, W, 3], "
            f"found {pixels.dtype})."
        )


def name_of(picture: Picture) -> str:
    """What to call a picture in a message: its path where it has one."""
    if isinstance(picture, (str, os.PathLike)):
        return str(picture)
    name = getattr(picture, "filename", None) or getattr(picture, "name", None)
    return str(name) if name else f"The {type(picture).__name__}"


def reason_of(error: Exception) -> str:
    """Why Pillow could not read a picture, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, or no format that Pillow knows"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, PIL.Image.MAX_IMAGE_PIXELS"
    return str(error).split("\n")[0] or type(error).__name__


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; the same object where there is nothing to turn."""
    return image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB pixels from any mode; transparency on white, 16 bits scaled to 8. The same object where it is RGB already."""
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
