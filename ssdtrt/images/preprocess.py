"""Resize or center-crop a picture to the network's 300x300, and map boxes back to the picture's pixels. No torch here."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError


def check_preprocess(preprocess: str) -> None:
    """Check the name of a preprocessing.

    Raises:
        ImageError: Unless it is one of config.PREPROCESSES.
    """
    if preprocess not in config.PREPROCESSES:
        raise ImageError(
            f"Unknown preprocessing {preprocess!r}; expected {' or '.join(map(repr, config.PREPROCESSES))}."
        )


def region(width: int, height: int, preprocess: str = config.PREPROCESS) -> tuple[float, float, float, float]:
    """Return the part of a picture that the network sees.

    Args:
        width: The picture's width in pixels.
        height: Its height.
        preprocess: `eval` for the whole picture; `hub` for the center crop: the shorter side is scaled to 300 and the
            longer one to the nearest whole number, of which the network sees the middle 300.

    Returns:
        (left, top, right, bottom) in the picture's pixels.

    Raises:
        ImageError: For another `preprocess`.
    """
    check_preprocess(preprocess)
    if preprocess == "eval":
        return 0.0, 0.0, float(width), float(height)
    left, right = _middle(width, height)
    top, bottom = _middle(height, width)
    return left, top, right, bottom


def _middle(length: int, other: int) -> tuple[float, float]:
    """Where the middle 300 pixels of a side begin and end in the picture's pixels, once the shorter side is 300."""
    if length <= other:
        return 0.0, float(length)
    scaled = round(length * config.IMAGE_SIZE / other)
    first = (scaled - config.IMAGE_SIZE) // 2
    return first * length / scaled, min((first + config.IMAGE_SIZE) * length / scaled, float(length))


def resize_image(image: Image.Image, preprocess: str = config.PREPROCESS) -> np.ndarray:
    """Resize the `region` of an RGB image with Pillow's bilinear filter.

    The filter reads beyond the region's edges, so the result is that of resizing the whole picture and cropping it
    afterwards, without computing the pixels that the crop would drop.

    Args:
        image: An RGB image of any size.
        preprocess: `eval` for the whole picture, `hub` for its center crop.

    Returns:
        uint8 [300, 300, 3].

    Raises:
        ImageError: For another `preprocess`.
    """
    size = (config.IMAGE_SIZE, config.IMAGE_SIZE)
    return np.array(image.resize(size, Image.Resampling.BILINEAR, box=region(*image.size, preprocess)))


def fits_device_resize(width: int, height: int) -> bool:
    """Return whether a picture is small enough to be resized on a GPU, in its own size."""
    return width * height <= config.GPU_RESIZE_PIXELS and max(width, height) <= config.GPU_RESIZE_SIDE


def to_pixels(boxes_xyxy: np.ndarray, width: int, height: int, preprocess: str = config.PREPROCESS) -> np.ndarray:
    """Map boxes from the prepared image to the pixels of the original picture, clipped to the picture.

    With `hub` a box may reach beyond the region that the network saw.

    Args:
        boxes_xyxy: Boxes [K, 4] as fractions of the prepared image, 0..1.
        width: The picture's width in pixels.
        height: Its height.
        preprocess: How the image was prepared, `eval` or `hub`.

    Returns:
        Boxes [K, 4] in the picture's pixels, float32.

    Raises:
        ImageError: For another `preprocess`.
    """
    left, top, right, bottom = region(width, height, preprocess)
    extent = np.array([right - left, bottom - top] * 2, dtype=np.float32)
    pixels = boxes_xyxy * extent + np.array([left, top] * 2, dtype=np.float32)
    return np.clip(pixels, 0, np.array([width, height] * 2, dtype=np.float32))
