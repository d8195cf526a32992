"""Tensors from pictures: the network's input, seeded synthetic images, and tensors that are pictures themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import Picture, load_image
from ssdtrt.images.levels import ValueRange
from ssdtrt.images.preprocess import check_preprocess, resize_image
from ssdtrt.system.progress import Progress, silent, tracked

Pictures = Picture | Tensor | Iterable[Picture | Tensor]
"""One picture, a list of them, or a batch: uint8 arrays [N, H, W, 1 | 3 | 4] or tensors [N, 1 | 3 | 4, H, W]."""


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


def to_batch(
    pictures: Sequence[Picture],
    preprocess: str = config.PREPROCESS,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    note: Progress = silent,
    progress: Progress = silent,
) -> Tensor:
    """Load, resize and normalize pictures of any kind.

    Args:
        pictures: Paths, open files, PIL images or uint8 arrays; N of them.
        preprocess: `eval` or `hub`.
        value_range: As for `load_image`.
        max_pixels: As for `load_image`.
        note: As for `load_image`, with the name of the first picture that it is about.
        progress: Called with lines about how many are read.

    Returns:
        The network's input [N, 3, 300, 300], float32.

    Raises:
        ImageError: For a picture that cannot be read, or another `preprocess`.
    """
    prepared = []
    noted: set[str] = set()
    for number, picture in enumerate(tracked(pictures, progress, "reading", "picture"), 1):
        notes: list[str] = []
        image = load_image(picture, value_range=value_range, max_pixels=max_pixels, note=notes.append)
        prepared.append(prepare(image, preprocess))
        for text in [text for text in notes if text not in noted]:
            noted.add(text)
            note(f"{picture if isinstance(picture, (str, Path)) else f'picture {number}'}: {text}.")
    return normalize(torch.stack(prepared), preprocess)


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


def is_one_picture(pictures: object) -> bool:
    """Return whether one picture is given, rather than several.

    Raises:
        ImageError: For what is neither: an array or a tensor of another shape, or what cannot be iterated.
    """
    if type(pictures) is list:
        return False
    if isinstance(pictures, (np.ndarray, Tensor)):
        return _is_one_array(pictures)
    if isinstance(pictures, (str, os.PathLike, Image.Image)) or hasattr(pictures, "read"):
        return True
    if isinstance(pictures, (bytes, bytearray)) or not isinstance(pictures, Iterable):
        raise ImageError(
            f"A {type(pictures).__name__} is neither a picture nor a list of pictures; expected paths, open files, "
            "PIL images, arrays or tensors."
        )
    return False


def as_list(pictures: Pictures) -> Iterable[Picture | Tensor]:
    """Return what `pictures` holds; one picture is alone in the list.

    Raises:
        ImageError: As `is_one_picture` and `channels_last` do.
    """
    if is_one_picture(pictures):
        return [channels_last(pictures) if isinstance(pictures, Tensor) else cast(Picture, pictures)]
    return channels_last(pictures) if isinstance(pictures, Tensor) else cast(Iterable[Picture], pictures)


def _is_one_array(pixels: np.ndarray | Tensor) -> bool:
    """Whether an array or a tensor is one picture, not a batch."""
    shape, channels = tuple(pixels.shape), (1, 3, 4)
    tensor = isinstance(pixels, Tensor)
    at = -3 if tensor else -1  # the dimension of the channels
    if len(shape) == 2 or (len(shape) == 3 and shape[at] in channels):
        return True
    if len(shape) == 4 and shape[at] in channels:
        return False
    kind, one = ("A tensor", "[1 | 3 | 4, H, W]") if tensor else ("An array", "[H, W, 1 | 3 | 4]")
    raise ImageError(
        f"{kind} {list(shape)} is neither one picture [H, W] or {one} nor a batch [N, {one[1:]} of them; "
        f"expected pictures of pixels, with the channels {'first' if tensor else 'last'}; give gray ones as a list."
    )


def channels_last(pixels: Tensor) -> np.ndarray:
    """View a tensor of one picture or a batch as an array, copied from its device where that is another.

    Args:
        pixels: uint8 [H, W], [C, H, W] or [N, C, H, W].

    Returns:
        uint8 [H, W], [H, W, C] or [N, H, W, C].

    Raises:
        ImageError: For another type, which NumPy may lack.
    """
    if pixels.dtype != torch.uint8:
        advice = (
            "; floats of 0..1 become that by (x * 255).round().to(torch.uint8)" if pixels.is_floating_point() else ""
        )
        raise ImageError(
            f"A tensor of {str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)} cannot be read as a "
            f"picture; expected uint8{advice}."
        )
    _is_one_array(pixels)
    last = pixels.movedim(-3, -1) if pixels.dim() > 2 else pixels
    return last.cpu().numpy()
