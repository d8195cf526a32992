"""Pictures of any kind, read upright and in RGB, cut and squeezed to the network's size; and boxes back in their pixels.

No torch here: the processes that read pictures start in a moment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Union

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssdtrt import config
from ssdtrt.images import pillow_warnings
from ssdtrt.errors import ImageError
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
    if pixels.dtype != np.uint8 or not pixels.size or not (len(shape) == 2 or len(shape) == 3 and shape[2] in (3, 4)):
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


def check_preprocess(preprocess: str) -> None:
    """Raises ImageError unless there is such a way to prepare a picture."""
    if preprocess not in config.PREPROCESSES:
        raise ImageError(
            f"{preprocess!r} is no way to prepare a picture; expected {' or '.join(map(repr, config.PREPROCESSES))}."
        )


def region(width: int, height: int, preprocess: str = config.PREPROCESS) -> tuple[float, float, float, float]:
    """The part of a picture that the network sees, (left, top, right, bottom) in the picture's pixels.

    `eval`: all of it. `hub`: with the shorter side scaled to 300 and the longer to the nearest whole number, the middle
    300 of the longer. Raises ImageError for another `preprocess`.
    """
    check_preprocess(preprocess)
    if preprocess == "eval":
        return 0.0, 0.0, float(width), float(height)
    left, right = middle(width, height)
    top, bottom = middle(height, width)
    return left, top, right, bottom


def middle(length: int, other: int) -> tuple[float, float]:
    """Where the middle 300 pixels of a side begin and end in the picture's pixels, once the shorter side is 300."""
    if length <= other:
        return 0.0, float(length)
    scaled = round(length * config.IMAGE_SIZE / other)
    first = (scaled - config.IMAGE_SIZE) // 2
    return first * length / scaled, min((first + config.IMAGE_SIZE) * length / scaled, float(length))


def squeeze(image: Image.Image, preprocess: str = config.PREPROCESS) -> np.ndarray:
    """An RGB picture of any size to uint8 [300, 300, 3]: its `region` resized, bilinear.

    Pillow's filter reads beyond the region's edges, so this is resizing the whole and cropping then, without the pixels
    that the crop would throw away. Raises ImageError for another `preprocess`.
    """
    size = (config.IMAGE_SIZE, config.IMAGE_SIZE)
    return np.array(image.resize(size, Image.Resampling.BILINEAR, box=region(*image.size, preprocess)))


def to_pixels(boxes_ltrb: np.ndarray, width: int, height: int, preprocess: str = config.PREPROCESS) -> np.ndarray:
    """Boxes [K, 4] from fractions of the prepared picture to pixels of the original one, clipped to the original, float32.

    With `hub` a box may reach beyond the region that was seen. Raises ImageError for another `preprocess`.
    """
    left, top, right, bottom = region(width, height, preprocess)
    extent = np.array([right - left, bottom - top] * 2, dtype=np.float32)
    pixels = boxes_ltrb * extent + np.array([left, top] * 2, dtype=np.float32)
    return np.clip(pixels, 0, np.array([width, height] * 2, dtype=np.float32))
