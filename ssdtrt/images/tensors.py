"""Tensors from pictures: the network's input, and seeded pictures for measuring."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ssdtrt import config
from ssdtrt.images.decode import Picture, load_image
from ssdtrt.images.preprocess import check_preprocess, resize_image


def prepare(image: Image.Image, preprocess: str = config.PREPROCESS) -> Tensor:
    """An RGB picture of any size to uint8 [3, 300, 300]: its `region` resized, bilinear (see `squeeze`)."""
    return torch.from_numpy(resize_image(image, preprocess)).permute(2, 0, 1)  # [3, H, W]


def normalize(images: Tensor, preprocess: str = config.PREPROCESS) -> Tensor:
    """uint8 [N, 3, 300, 300] to the network's float32 input, on the same device.

    / 255, then config.NORMALIZATION's mean and standard deviation. Raises ImageError for another `preprocess`.
    """
    return scale_to(images, *normalization(preprocess, images.device))


def normalization(preprocess: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """config.NORMALIZATION's mean and standard deviation [3, 1, 1] each, for pixels in 0..1. Raises ImageError."""
    check_preprocess(preprocess)
    mean, std = (torch.tensor(part, device=device).view(3, 1, 1) for part in config.NORMALIZATION[preprocess])
    return mean, std


def scale_to(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images [N, 3, H, W] to float32: / 255, less the mean, over the standard deviation [3, 1, 1] each."""
    return (images.float() / 255 - mean) / std


def to_batch(pictures: Sequence[Picture], preprocess: str = config.PREPROCESS) -> Tensor:
    """Pictures of any kind to the network's input [N, 3, 300, 300], float32. Raises ImageError."""
    return normalize(torch.stack([prepare(load_image(picture), preprocess) for picture in pictures]), preprocess)


def synthetic_images(count: int, seed: int = config.SEED, preprocess: str = config.PREPROCESS) -> Tensor:
    """`synthetic_pictures`, normalized: [count, 3, 300, 300], float32. Raises ImageError for another `preprocess`."""
    return normalize(synthetic_pictures(count, seed), preprocess)


def synthetic_pictures(count: int, seed: int = config.SEED) -> Tensor:
    """Seeded pictures, uint8 [count, 3, 300, 300]: smooth colors, edges and fine grain, as photographs have.

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
