"""Resize or center-crop a picture to the network's 300x300, and map boxes back to the picture's pixels. No torch here."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError

_BAND = 10  # rows of a matrix of weights that are multiplied at a time: most of the others' columns are zeros
_KEPT_BANDS = 64  # sides whose weights are cached; those of 640 pixels take 0.2 MB
_ONE_THREAD = 2**18  # multiplications up to which OpenBLAS starts no threads


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
            longer one in proportion, truncated to a whole number, of which the network sees the middle 300.

    Returns:
        (left, top, right, bottom) in the picture's pixels.

    Raises:
        ImageError: For another `preprocess`.
    """
    check_preprocess(preprocess)
    if preprocess == "eval":
        return 0.0, 0.0, float(width), float(height)
    (left, right), (top, bottom) = (
        (first * length / scaled, min((first + config.IMAGE_SIZE) * length / scaled, float(length)))
        for length, scaled, first in _crop(width, height)
    )
    return left, top, right, bottom


def _crop(width: int, height: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """For `hub` each side's length, the length that it is scaled to, and the first of the 300 pixels that are cropped.

    Of the width, then of the height. The steps are those of NVIDIA's utilities, because they round.
    """
    size, aspect = config.IMAGE_SIZE, width / height
    scaled = int(aspect * size) if aspect > 1 else size, int(size / aspect) if aspect < 1 else size
    return (width, scaled[0], scaled[0] // 2 - size // 2), (height, scaled[1], scaled[1] // 2 - size // 2)


def resize_image(image: Image.Image, preprocess: str = config.PREPROCESS) -> np.ndarray:
    """Resize the `region` of an RGB image.

    Args:
        image: An RGB image of any size.
        preprocess: `eval` for the whole picture, with Pillow's bilinear filter; `hub` for its center crop, which is
            `center_crop` rounded to the nearest whole numbers.

    Returns:
        uint8 [300, 300, 3].

    Raises:
        ImageError: For another `preprocess`.
    """
    check_preprocess(preprocess)
    if preprocess == "hub":
        return np.add(center_crop(image), 0.5).astype(np.uint8)
    return np.array(image.resize((config.IMAGE_SIZE, config.IMAGE_SIZE), Image.Resampling.BILINEAR))


def center_crop(image: Image.Image) -> np.ndarray:
    """Resize and crop an RGB image as NVIDIA's utilities do: with the defaults of scikit-image's `resize`.

    That is a Gaussian blur of (factor - 1) / 2 pixels where a side shrinks, cut off at 4 of them, and then linear
    interpolation between the centers of pixels; beyond its edges the picture is mirrored. Both are linear, so each side
    is one product with a banded matrix. Only what the crop holds is computed.

    Args:
        image: An RGB image of any size.

    Returns:
        float32 [300, 300, 3], 0 to 255, not rounded.
    """
    size = config.IMAGE_SIZE
    width, height = _crop(*image.size)
    (left, right, columns), (top, bottom, rows) = _bands(*width, values=3), _bands(*height)
    pixels = np.asarray(image)[top:bottom, left:right].reshape(bottom - top, -1)  # [h, 3 w]
    lines = np.empty((size, pixels.shape[1]), np.float32)
    _multiply(rows, pixels, lines)
    cropped = np.empty((size, 3 * size), np.float32)
    _multiply(columns, lines.T, cropped.T)
    return cropped.reshape(size, size, 3)


_Bands = tuple[int, int, list[tuple[int, np.ndarray]]]


@functools.lru_cache(maxsize=_KEPT_BANDS)
def _bands(length: int, scaled: int, first: int, values: int = 1) -> _Bands:
    """The matrix from a side of `length` pixels to 300 of `scaled` from `first` on, in bands of _BAND of its rows.

    Args:
        length: The side's length in the picture.
        scaled: The length that it is scaled to.
        first: The first pixel of those that are cropped.
        values: How many values a pixel has, which lie beside each other: each row and column is there so many times.

    Returns:
        The first pixel that is read, the one behind the last, and the bands: each the place of its first value among
        those read, and weights, float32 [_BAND * values, those that it reads].
    """
    factor = length / scaled
    centers = (np.arange(first, first + config.IMAGE_SIZE) + 0.5) * factor - 0.5
    sigma = max(factor - 1, 0.0) / 2
    radius = int(4 * sigma + 0.5)
    blur = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma or 1)) ** 2)
    blur /= blur.sum()
    before = np.floor(centers).astype(int)
    share = (centers - before)[:, None]  # of the pixel behind the center
    weights = (1 - share) * np.append(blur, 0) + share * np.insert(blur, 0, 0)  # [300, 2 radius + 2]
    taps = (before[:, None] + np.arange(-radius, radius + 2)) % max(2 * length - 2, 1)
    taps = np.minimum(taps, 2 * (length - 1) - taps)  # mirrored, the last pixel not repeated
    start, bands = int(taps.min()), []
    for row in range(0, config.IMAGE_SIZE, _BAND):
        some = taps[row : row + _BAND]
        first_tap = int(some.min())
        dense = np.zeros((_BAND, values, some.max() + 1 - first_tap, values), np.float32)
        for value in range(values):
            one = dense[:, value, :, value]
            np.add.at(one, (np.arange(_BAND)[:, None], some - first_tap), weights[row : row + _BAND])
        bands.append((values * (first_tap - start), dense.reshape(_BAND * values, -1)))
    return start, int(taps.max()) + 1, bands


def _multiply(bands: list[tuple[int, np.ndarray]], pixels: np.ndarray, out: np.ndarray) -> None:
    """Write the product of a matrix in bands and `pixels` [any, n] into `out`.

    It is divided into products so small that OpenBLAS computes them in the calling thread: its own threads would be in
    each other's way where several threads read pictures.
    """
    for number, (start, weights) in enumerate(bands):
        rows = pixels[start : start + weights.shape[1]].astype(np.float32, copy=False)
        target = out[number * len(weights) :][: len(weights)]
        step = max(_ONE_THREAD // weights.size, 1)
        for column in range(0, rows.shape[1], step):
            np.matmul(weights, rows[:, column : column + step], out=target[:, column : column + step])


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
    return batch_to_pixels(boxes_xyxy, [(width, height)], [len(boxes_xyxy)], preprocess)


def batch_to_pixels(
    boxes_xyxy: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    counts: Sequence[int] | np.ndarray,
    preprocess: str = config.PREPROCESS,
) -> np.ndarray:
    """Map the boxes of several pictures as `to_pixels` does those of one.

    Args:
        boxes_xyxy: Boxes [M, 4] as fractions of the prepared images, 0..1: those of the first picture, of the second
            and so on.
        sizes: The (width, height) of each picture in pixels.
        counts: How many boxes each picture has.
        preprocess: How the images were prepared, `eval` or `hub`.

    Returns:
        Boxes [M, 4] in each picture's pixels, float32.

    Raises:
        ImageError: For another `preprocess`.
    """
    places = {size: place for place, size in enumerate(dict.fromkeys(sizes))}
    frames = np.array([_frame(*size, preprocess) for size in places], dtype=np.float32)
    if len(places) > 1:
        frames = frames[np.repeat([places[size] for size in sizes], counts)]  # [M, 3, 4]
    start, extent, limit = frames.swapaxes(0, 1)  # [M or 1, 4] each
    return np.clip(boxes_xyxy * extent + start, 0, limit)


def _frame(width: int, height: int, preprocess: str) -> list[list[float]]:
    """Where the region of a picture starts, its extent, and the picture's end, of the left, top, right and bottom edges."""
    left, top, right, bottom = region(width, height, preprocess)
    return [[left, top] * 2, [right - left, bottom - top] * 2, [width, height] * 2]
