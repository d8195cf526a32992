"""Pillow's bilinear filter on a device: the very bytes of `Image.resize`, for pictures of one size at once.

Pillow resizes along one side and then along the other, each time with integer weights in units of 2^-22, and rounds to
a byte in between. On a GPU two kernels do that (`resize_kernel`); elsewhere, and where the driver does not take them, torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdtrt import config
from ssdtrt.images.resize_kernel import kernels_for

_SIZE = config.IMAGE_SIZE
_BITS = 22  # of Pillow's weights, PRECISION_BITS in its Resample.c
_PROBES = ((310, 330), (316, 330), (299, 302), (200, 250))  # width, height; the orders of passes differ in the first
_Pass = Callable[[Tensor, Tensor, Tensor], Tensor]


def resize(pictures: Tensor) -> Tensor:
    """Resize RGB pictures of one size as `Image.resize` does with its bilinear filter.

    Args:
        pictures: uint8 [n, H, W, 3].

    Returns:
        uint8 [n, 300, 300, 3] on the same device; the argument itself where it has that size.
    """
    height, width = pictures.shape[1:3]
    if (height, width) == (_SIZE, _SIZE):
        return pictures
    return _in_passes(pictures, _is_tall(height, width) and order_of_passes() == "tall")


def constants(height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the cached tensors that `resize` reads for pictures of a size, for who captures it as a CUDA graph."""
    return (*_weights(height, device), *_weights(width, device))


@functools.lru_cache(maxsize=1)
def order_of_passes() -> str | None:
    """Find out in which order the installed Pillow resizes the two sides.

    Returns:
        "width", the width first; "tall", the height first of a tall picture and the width first of others; None where
        it is neither, so that pictures must be resized by Pillow itself.
    """
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in _PROBES]
    size = (_SIZE, _SIZE)
    expected = [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)) for picture in pictures]
    for order in ("tall", "width"):
        for picture, pixels in zip(pictures, expected):
            height_first = order == "tall" and _is_tall(*picture.shape[:2])
            if not np.array_equal(_in_passes(torch.from_numpy(picture)[None], height_first)[0].numpy(), pixels):
                break
        else:
            return order
    return None


def _is_tall(height: int, width: int) -> bool:
    """Whether the height shrinks by more than twice as many pixels as the width: Pillow 13 then begins with it."""
    return height > _SIZE and height - _SIZE > 2 * (width - _SIZE)


def _in_passes(pictures: Tensor, height_first: bool) -> Tensor:
    """`resize`, one side after the other."""
    height, width = pictures.shape[1:3]
    along_width, along_height = _passes(pictures.device)
    pictures = pictures.contiguous()
    of_height, of_width = (_weights_in_use(length, pictures.device) for length in (height, width))
    if height_first:
        return along_width(along_height(pictures, *of_height), *of_width)
    return along_height(along_width(pictures, *of_width), *of_height)


def _passes(device: torch.device) -> tuple[_Pass, _Pass]:
    """What resizes along the width and along the height."""
    kernels = kernels_for(device)
    if kernels is not None:
        return kernels.resize_width, kernels.resize_height
    return functools.partial(_by_torch, 2), functools.partial(_by_torch, 1)


def _by_torch(side: int, pictures: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """Resize along a dimension of uint8 [n, H, W, 3]; the others as for `ResizeKernels.resize_width`."""
    shape = [-1 if dimension == side else 1 for dimension in range(4)]
    last = pictures.shape[side] - 1
    sums: Tensor = torch.tensor(1 << (_BITS - 1), dtype=torch.int32, device=pictures.device)
    for tap in range(weights.shape[1]):
        taken = pictures.index_select(side, (first + tap).clamp(max=last))
        sums = sums + taken.to(torch.int32) * weights[:, tap].view(shape)
    return (sums >> _BITS).clamp_(max=255).to(torch.uint8)


def _weights_in_use(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`_weights`, for work on the current stream: until it ends, other streams do not get their memory."""
    weights = _weights(length, device)
    if device.type == "cuda":  # Another thread may push them out of the cache.
        for part in weights:
            part.record_stream(torch.cuda.current_stream(device))
    return weights


@functools.lru_cache(maxsize=config.RESIZE_CACHE)
def _weights(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pillow's weights of `length` pixels for 300 on a device: `first`, int32 [300], and `weights`, int32 [300, taps]."""
    first, weights = (torch.from_numpy(part).to(device) for part in _pillow_weights(length))
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # They are read on any stream.
    return first, weights


def _pillow_weights(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each of 300 outputs the first pixel, int32 [300], and its weights from there on, int32 [300, taps].

    They are triangles that sum to about 2^22, as precompute_coeffs and normalize_coeffs_8bpc in Pillow's Resample.c have
    them. Sums are added up in its order.
    """
    scale = length / _SIZE
    support = max(scale, 1.0)
    center = (np.arange(_SIZE) + 0.5) * scale  # [300]
    first = np.maximum((center - support + 0.5).astype(np.int32), 0)
    end = np.minimum((center + support + 0.5).astype(np.int32), length)
    taps = first[:, None] + np.arange((end - first).max())  # [300, taps]
    weights = np.maximum(1.0 - np.abs((taps - center[:, None] + 0.5) * (1.0 / support)), 0.0)
    weights[taps >= end[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    return first.astype(np.int32), (weights * 2**_BITS + 0.5).astype(np.int32)
