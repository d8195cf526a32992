"""Pillow's bilinear filter on a device: the very bytes of `Image.resize`, for equally large pictures at once.

Pillow resizes along one side and then along the other, each time with integer weights in units of 2^-22, and rounds to
a byte in between. Here each pass is one matrix product. A weight is split into its high and its low 11 bits, so that
every sum is of integers below 2^24, which float32 holds exactly, in whatever order they are added.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdtrt import config
from ssdtrt.system.devices import tf32_disabled

SIZE = config.IMAGE_SIZE
BITS = 22  # of Pillow's weights, PRECISION_BITS in its Resample.c
HALF_BITS = BITS // 2
HALF = 2**HALF_BITS
FLOAT32_LENGTH = 15 * SIZE  # Up to here a pixel is of at most 32 others: 32 * 255 * (HALF - 1) < 2^24.
PROBES = ((310, 330), (316, 330), (299, 302), (200, 250))  # width, height: the orders of the passes differ in the first


def resize(pictures: Tensor) -> Tensor:
    """RGB pictures, uint8 [n, H, W, 3], to uint8 [n, 300, 300, 3] on the same device: `Image.resize`, bilinear."""
    height, width = pictures.shape[1:3]
    if (height, width) == (SIZE, SIZE):
        return pictures
    down_first = tall(height, width) and order_of_passes() == "tall"
    return torch.cat([resize_some(some, down_first) for some in pictures.split(config.RESIZE_AT_ONCE)])


def tall(height: int, width: int) -> bool:
    """Whether the height shrinks by more than twice as many pixels as the width: Pillow 13 then begins with it."""
    return height > SIZE and height - SIZE > 2 * (width - SIZE)


@functools.lru_cache(maxsize=1)
def order_of_passes() -> str | None:
    """In which order the installed Pillow resizes: "across", the width first; "tall", see `tall`; None: otherwise."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in PROBES]
    expected = [np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for one in pictures]
    for order in ("tall", "across"):
        found = [resize_some(torch.from_numpy(one)[None], order == "tall" and tall(*one.shape[:2])) for one in pictures]
        if all(np.array_equal(mine[0].numpy(), its) for mine, its in zip(found, expected)):
            return order
    return None


def resize_some(pictures: Tensor, down_first: bool) -> Tensor:
    """`resize` in one go, along the height first or along the width."""
    n, height, width, _ = pictures.shape
    planes = pictures.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    planes = planes.view(3 * n, height, width)
    with torch.no_grad(), tf32_disabled(autotune=False):  # TF32 would round the sums.
        planes = across(down(planes)) if down_first else down(across(planes))
    planes = planes.view(n, 3, SIZE, SIZE).permute(0, 2, 3, 1)
    return planes.to(torch.uint8, memory_format=torch.contiguous_format)  # [n, 300, 300, 3]


def across(planes: Tensor) -> Tensor:
    """Planes [p, H, W] of whole numbers 0..255 to [p, H, 300], floats of the same."""
    p, height, width = planes.shape
    shares = weights(width, planes.device)
    sums = planes.to(shares.dtype).view(-1, width) @ shares.T
    return rounded(*sums.split(SIZE, dim=1)).view(p, height, SIZE)


def down(planes: Tensor) -> Tensor:
    """Planes [p, H, W] of whole numbers 0..255 to [p, 300, W], floats of the same."""
    p, height, _ = planes.shape
    shares = weights(height, planes.device)
    sums = torch.bmm(shares.expand(p, -1, -1), planes.to(shares.dtype))
    return rounded(*sums.split(SIZE, dim=1))


def rounded(high: Tensor, low: Tensor) -> Tensor:
    """Sums with both halves of the weights to bytes: (2^21 + HALF * high + low) >> 22, for sums given in units of HALF.

    No step rounds before the last one does. Weights sum to 1 too nearly for a result beyond 255.
    """
    return torch.add(high + 0.5, low.floor(), alpha=1 / HALF).floor_()


@functools.lru_cache(maxsize=config.RESIZE_LENGTHS)
def weights(length: int, device: torch.device) -> Tensor:
    """The weights of `length` pixels for 300, [600, length] in units of HALF: the high halves, then the low ones."""
    whole = pillow_weights(length)
    halves = np.concatenate([whole >> HALF_BITS, whole & (HALF - 1)])
    exact = halves.astype(np.float32 if length <= FLOAT32_LENGTH else np.float64)
    exact /= HALF
    return torch.from_numpy(exact).to(device)


def pillow_weights(length: int) -> np.ndarray:
    """Pillow's weights of `length` pixels for 300, int32 [300, length]: triangles that sum to about 2^22.

    See precompute_coeffs and normalize_coeffs_8bpc in Pillow's Resample.c; sums are added up in its order.
    """
    scale = length / SIZE
    support = max(scale, 1.0)
    center = (np.arange(SIZE) + 0.5) * scale  # [300]
    first = np.maximum((center - support + 0.5).astype(int), 0)
    end = np.minimum((center + support + 0.5).astype(int), length)
    taps = first[:, None] + np.arange((end - first).max())  # [300, taps]
    share = np.maximum(1.0 - np.abs((taps - center[:, None] + 0.5) * (1.0 / support)), 0.0)
    share[taps >= end[:, None]] = 0.0
    share /= np.cumsum(share, axis=1)[:, -1:]
    dense = np.zeros((SIZE, length + share.shape[1]), dtype=np.int32)
    np.put_along_axis(dense, taps, (share * 2**BITS + 0.5).astype(np.int32), axis=1)
    return dense[:, :length]
