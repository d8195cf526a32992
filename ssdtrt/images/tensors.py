"""Tensors from pictures: the network's input, and seeded synthetic images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import Picture, load_image
from ssdtrt.images.preprocess import check_preprocess, resize_image


def prepare(image: Image.Image, preprocess: str = config.PREPROCESS) -> Tensor:
    """Resize an RGB image of any size to uint8 [3, 300, 300] (see `resize_image`)."""
    return torch.from_numpy(resize_image(image, preprocess)).permute(2, 0, 1)  # [3, H, W]


def check_images(images: object) -> None:
    """Check images that were not normalized yet.

    Raises:
        ImageError: Unless it is a tensor of uint8 [N, 3, 300, 300].
    """
    size = config.IMAGE_SIZE
    if not isinstance(images, Tensor):
        found = type(images).__name__
    elif images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != (3, size, size):
        found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
    else:
        return
    raise ImageError(f"Expected a tensor of uint8 images [N, 3, {size}, {size}]; found {found}.")


def normalize(images: Tensor, preprocess: str = config.PREPROCESS) -> Tensor:
    """Normalize images for the network, with the mean and standard deviation of config.NORMALIZATION.

    Args:
        images: uint8 [N, 3, 300, 300].
        preprocess: `eval` or `hub`.

    Returns:
        float32 [N, 3, 300, 300] on the same device.

    Raises:
        ImageError: For another `preprocess`.
    """
    return scale_to(images, *normalization(preprocess, images.device))


def normalization(preprocess: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return config.NORMALIZATION's mean and standard deviation for pixels in 0..1, [3, 1, 1] each.

    Raises:
        ImageError: For an unknown `preprocess`.
    """
    check_preprocess(preprocess)
    mean, std = (torch.tensor(part, device=device).view(3, 1, 1) for part in config.NORMALIZATION[preprocess])
    return mean, std


def scale_to(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalize uint8 images [N, 3, H, W] to float32, with a mean and standard deviation [3, 1, 1] for 0..1."""
    return (images.float() / 255 - mean) / std


def to_batch(pictures: Sequence[Picture], preprocess: str = config.PREPROCESS) -> Tensor:
    """Load, resize and normalize pictures of any kind.

    Args:
        pictures: Paths, open files, PIL images or uint8 arrays; N of them.
        preprocess: `eval` or `hub`.

    Returns:
        The network's input [N, 3, 300, 300], float32.

    Raises:
        ImageError: For a picture that cannot be read, or another `preprocess`.
    """
    return normalize(torch.stack([prepare(load_image(picture), preprocess) for picture in pictures]), preprocess)


def synthetic_images(count: int, seed: int = config.SEED, preprocess: str = config.PREPROCESS) -> Tensor:
    """Return `synthetic_pictures` normalized for the network: [count, 3, 300, 300], float32."""
    return normalize(synthetic_pictures(count, seed), preprocess)


def synthetic_pictures(count: int, seed: int = config.SEED) -> Tensor:
    """Return seeded pictures with smooth colors, edges and fine grain, as photographs have.

    For measuring, comparing and calibrating where there are no photographs.

    Args:
        count: How many; picture i is the same whatever `count` is.
        seed: Another seed gives other pictures.

    Returns:
        uint8 [count, 3, 300, 300].
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
