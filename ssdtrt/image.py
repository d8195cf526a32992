"""Pictures: from a file to the network's input, boxes back to the picture's pixels, seeded pictures for measuring."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Union

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from ssdtrt import config, pillow_warnings
from ssdtrt.errors import ImageError

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
            with Image.open(picture) as opened:
                opened.load()
                return to_rgb(upright(opened) if orient else opened)
    except FileNotFoundError as error:
        raise ImageError(f"{picture}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{picture} is a directory; expected a picture.") from error
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


def prepare(image: Image.Image, preprocess: str = config.PREPROCESS) -> Tensor:
    """An RGB picture of any size to uint8 [3, 300, 300]: its `region` resized, bilinear.

    Pillow's filter reads beyond the region's edges, so this is resizing the whole and cropping then, without the pixels
    that the crop would throw away. Raises ImageError for another `preprocess`.
    """
    size = (config.IMAGE_SIZE, config.IMAGE_SIZE)
    resized = image.resize(size, Image.Resampling.BILINEAR, box=region(*image.size, preprocess))
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)  # [3, H, W]


def normalise(images: Tensor, preprocess: str = config.PREPROCESS) -> Tensor:
    """uint8 [N, 3, 300, 300] to the network's float32 input, on the same device.

    / 255, then config.NORMALISATION's mean and standard deviation. Raises ImageError for another `preprocess`.
    """
    return scale_to(images, *normalisation(preprocess, images.device))


def normalisation(preprocess: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """config.NORMALISATION's mean and standard deviation [3, 1, 1] each, for pixels in 0..1. Raises ImageError."""
    check_preprocess(preprocess)
    mean, std = (torch.tensor(part, device=device).view(3, 1, 1) for part in config.NORMALISATION[preprocess])
    return mean, std


def scale_to(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images [N, 3, H, W] to float32: / 255, less the mean, over the standard deviation [3, 1, 1] each."""
    return (images.float() / 255 - mean) / std


def to_batch(pictures: Sequence[Picture], preprocess: str = config.PREPROCESS) -> Tensor:
    """Pictures of any kind to the network's input [N, 3, 300, 300], float32. Raises ImageError."""
    return normalise(torch.stack([prepare(load_image(picture), preprocess) for picture in pictures]), preprocess)


def to_pixels(boxes_ltrb: Tensor, width: int, height: int, preprocess: str = config.PREPROCESS) -> Tensor:
    """Boxes [K, 4] from fractions of the prepared picture to pixels of the original one, clipped to the original.

    With `hub` a box may reach beyond the region that was seen. Raises ImageError for another `preprocess`.
    """
    left, top, right, bottom = region(width, height, preprocess)
    first, extent, size = (
        boxes_ltrb.new_tensor(pair).repeat(2) for pair in ((left, top), (right - left, bottom - top), (width, height))
    )
    return (boxes_ltrb * extent + first).clamp(min=0).minimum(size)


def synthetic_images(count: int, seed: int = config.SEED, preprocess: str = config.PREPROCESS) -> Tensor:
    """`synthetic_pictures`, normalised: [count, 3, 300, 300], float32. Raises ImageError for another `preprocess`."""
    return normalise(synthetic_pictures(count, seed), preprocess)


def synthetic_pictures(count: int, seed: int = config.SEED) -> Tensor:
    """Seeded pictures, uint8 [count, 3, 300, 300]: smooth colours, edges and fine grain, as photographs have.

    For measuring, comparing and calibrating where there is no photograph. Picture i is the same whatever `count` is.
    """
    pictures = [torch.empty(0, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, dtype=torch.uint8)]
    for index in range(count):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        layers = [
            functional.interpolate(
                torch.rand(1, 3, cells, cells, generator=generator), size=config.IMAGE_SIZE, mode=mode
            )
            for cells, mode in ((3, "bilinear"), (8, "nearest"), (25, "bilinear"), (75, "nearest"))
        ]
        grain = torch.rand(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, generator=generator)
        mixed = 0.4 * layers[0] + 0.3 * layers[1] + 0.15 * layers[2] + 0.1 * layers[3] + 0.05 * grain
        pictures.append(((mixed - 0.5) * 1.8 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8))
    return torch.cat(pictures)
