"""Pictures: from a file to the network's input, boxes back to the picture's pixels, and seeded pictures for measuring."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from ssdtrt import config
from ssdtrt.errors import ImageError


def load_image(picture: str | Path | Image.Image | np.ndarray) -> Image.Image:
    """An RGB picture, upright, from a path, a PIL image, or an array [H, W, 3] or [H, W] of uint8.

    The EXIF orientation is applied; transparent parts become white. Raises ImageError.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture)
    elif not isinstance(picture, (str, os.PathLike, Image.Image)) and not hasattr(picture, "read"):
        raise ImageError(f"A {type(picture).__name__} cannot be read as a picture (expected a path, an image or an array).")
    try:
        if isinstance(picture, np.ndarray):
            return to_rgb(Image.fromarray(picture))
        if isinstance(picture, Image.Image):
            return to_rgb(ImageOps.exif_transpose(picture))
        with Image.open(picture) as opened:
            return to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise ImageError(f"{picture}: no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{picture} is a directory; expected a picture.") from error
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file.
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ImageError(f"{picture} cannot be read as a picture ({reason}).") from error


def check_array(pixels: np.ndarray) -> None:
    """Raises ImageError unless the array is uint8 [H, W], [H, W, 3] or, with transparency, [H, W, 4], and not empty."""
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not pixels.size or not (len(shape) == 2 or len(shape) == 3 and shape[2] in (3, 4)):
        raise ImageError(
            f"the array of shape {shape} cannot be read as a picture (expected uint8 [H, W] or [H, W, 3], "
            f"found {pixels.dtype})."
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB pixels from any mode; transparency on white, 16 bits scaled to 8."""
    if image.mode.startswith("I;16") or image.mode == "I":
        pixels = np.asarray(image).astype(np.float64)
        image = Image.fromarray((pixels / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def prepare(image: Image.Image) -> Tensor:
    """An RGB picture of any size to uint8 [3, 300, 300], as the published evaluation does: bilinear, no crop."""
    size = (config.IMAGE_SIZE, config.IMAGE_SIZE)
    return torch.from_numpy(np.array(image.resize(size, Image.Resampling.BILINEAR))).permute(2, 0, 1)  # [3, H, W]


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, 3, 300, 300] to the network's float32 input: / 255, then ImageNet's mean and standard deviation."""
    mean = torch.tensor(config.IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(config.IMAGENET_STD, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def to_batch(pictures: Sequence[str | Path | Image.Image | np.ndarray]) -> Tensor:
    """Pictures of any kind to the network's input [N, 3, 300, 300], float32."""
    return normalise(torch.stack([prepare(load_image(picture)) for picture in pictures]))


def to_pixels(boxes_ltrb: Tensor, width: int, height: int) -> Tensor:
    """Boxes [K, 4] from fractions of the picture to its pixels, clipped to the picture."""
    size = torch.tensor([width, height, width, height], dtype=boxes_ltrb.dtype, device=boxes_ltrb.device)
    return boxes_ltrb.clamp(0, 1) * size


def synthetic_images(count: int, seed: int = config.SEED) -> Tensor:
    """Seeded pictures [count, 3, 300, 300], float32, normalised: smooth colours, edges and fine grain, as photographs have.

    For measuring, comparing and calibrating where there is no photograph. Image i is the same whatever `count` is.
    """
    pictures = []
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
    return normalise(torch.cat(pictures))
