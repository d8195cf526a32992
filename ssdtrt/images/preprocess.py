"""Which part of a picture the network sees, resized to 300x300, and boxes back in the picture's pixels. No torch here."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError


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
    """An RGB picture of any size to uint8 [300, 300, 3]: its `region` resized, bilinear.

    Pillow's filter reads beyond the region's edges, so this is resizing the whole and cropping then, without the pixels
    that the crop would throw away. Raises ImageError for another `preprocess`.
    """
    size = (config.IMAGE_SIZE, config.IMAGE_SIZE)
    return np.array(image.resize(size, Image.Resampling.BILINEAR, box=region(*image.size, preprocess)))


def to_pixels(boxes_xyxy: np.ndarray, width: int, height: int, preprocess: str = config.PREPROCESS) -> np.ndarray:
    """Boxes [K, 4] from fractions of the prepared picture to pixels of the original one, clipped to the original, float32.

    With `hub` a box may reach beyond the region that was seen. Raises ImageError for another `preprocess`.
    """
    left, top, right, bottom = region(width, height, preprocess)
    extent = np.array([right - left, bottom - top] * 2, dtype=np.float32)
    pixels = boxes_xyxy * extent + np.array([left, top] * 2, dtype=np.float32)
    return np.clip(pixels, 0, np.array([width, height] * 2, dtype=np.float32))
