"""Pillow's bilinear filter on a device: the very bytes of `Image.resize`, for pictures of one size at once.

Pillow resizes along one side and then along the other, each time with integer weights in units of 2^-22, and rounds to
a byte in between. Here each pass is one matrix product. A weight is split into its high and its low 11 bits, so that
every sum is of integers below 2^24, which float32 holds exactly, in whatever order they are added. Bytes and the halves
of weights have at most 11 significant bits, all of which TF32 keeps, and it adds in float32: on a GPU several pictures are
resized by its tensor cores, with the same result in half the time.
"""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdtrt import config
from ssdtrt.system.devices import tf32_disabled, tf32_is_off, with_tf32

_SIZE = config.IMAGE_SIZE
_BITS = 22  # of Pillow's weights, PRECISION_BITS in its Resample.c
_HALF_BITS = _BITS // 2
_HALF = 2**_HALF_BITS
_FLOAT32_LENGTH = 15 * _SIZE  # Up to here a pixel is a sum of at most 32 others: 32 * 255 * (_HALF - 1) < 2^24.
_PROBES = ((310, 330), (316, 330), (299, 302), (200, 250))  # width, height; the orders of passes differ in the first


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
    height_first = _is_tall(height, width) and order_of_passes() == "tall"
    chunks = [_resize_chunk(chunk, height_first) for chunk in pictures.split(config.RESIZE_BATCH)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def constants(height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the cached tensors that `resize` reads for pictures of a size, for who captures it as a CUDA graph."""
    weights = [_split_weights(length, device) for length in (height, width)]
    return (*weights, *(_halves(each.dtype, device) for each in weights))


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
            if not np.array_equal(_resize_chunk(torch.from_numpy(picture)[None], height_first)[0].numpy(), pixels):
                break
        else:
            return order
    return None


def _is_tall(height: int, width: int) -> bool:
    """Whether the height shrinks by more than twice as many pixels as the width: Pillow 13 then begins with it."""
    return height > _SIZE and height - _SIZE > 2 * (width - _SIZE)


def _resize_chunk(pictures: Tensor, height_first: bool) -> Tensor:
    """`resize` without a bound on memory."""
    n, height, width, _ = pictures.shape
    planes = pictures.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    planes = planes.view(3 * n, height, width)
    with torch.no_grad(), _precision(planes.is_cuda, n):
        first, second = (_resize_height, _resize_width) if height_first else (_resize_width, _resize_height)
        planes = second(first(planes).floor_())
    planes = planes.view(n, 3, _SIZE, _SIZE).permute(0, 2, 3, 1)
    return planes.to(torch.uint8, memory_format=torch.contiguous_format)  # [n, 300, 300, 3], rounded down


def _precision(on_gpu: bool, pictures: int) -> contextlib.AbstractContextManager[None]:
    """Return a context for products that round nothing.

    Turning a switch takes the host longer than the products of a few pictures.
    """
    if on_gpu and pictures >= config.TF32_RESIZE:
        return with_tf32(True, convolutions=False)  # The network may run in another thread.
    return contextlib.nullcontext() if on_gpu and tf32_is_off() else tf32_disabled(autotune=False)


def _resize_width(planes: Tensor) -> Tensor:
    """Planes [p, H, W] of whole numbers to [p, H, 300], 0 to less than 256, whose whole part counts."""
    p, height, width = planes.shape
    weights = _split_weights(width, planes.device)
    sums = torch.addmm(_halves(weights.dtype, planes.device), planes.to(weights.dtype).view(-1, width), weights.T)
    return _join(*sums.split(_SIZE, dim=1)).view(p, height, _SIZE)


def _resize_height(planes: Tensor) -> Tensor:
    """Planes [p, H, W] of whole numbers to [p, 300, W], 0 to less than 256, whose whole part counts."""
    p, height, _ = planes.shape
    weights = _split_weights(height, planes.device)
    halves = _halves(weights.dtype, planes.device)[:, None]
    sums = torch.baddbmm(halves, weights.expand(p, -1, -1), planes.to(weights.dtype))
    return _join(*sums.split(_SIZE, dim=1))


def _join(high: Tensor, low: Tensor) -> Tensor:
    """Sums with both halves of the weights to (2^21 + _HALF * high + low) / 2^22, for sums in units of _HALF.

    The 2^21, which rounds to the nearest byte, is part of `high`. No step rounds, but for what `low` has below 1, which
    cannot change the whole part. The weights sum to 1 so nearly that no result is beyond 255.
    """
    return torch.add(high, low.floor_(), alpha=1 / _HALF)


@functools.lru_cache(maxsize=4)
def _halves(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to the sums of `_split_weights` [600]: a half to the high ones, nothing to the low ones."""
    return torch.tensor([0.5] * _SIZE + [0.0] * _SIZE, dtype=dtype, device=device)


@functools.lru_cache(maxsize=config.RESIZE_CACHE)
def _split_weights(length: int, device: torch.device) -> Tensor:
    """The weights of `length` pixels for 300, [600, length] in units of _HALF: the high halves, then the low ones."""
    whole = _pillow_weights(length)
    halves = np.concatenate([whole >> _HALF_BITS, whole & (_HALF - 1)])
    exact = halves.astype(np.float32 if length <= _FLOAT32_LENGTH else np.float64)
    return torch.from_numpy(exact).div_(_HALF).to(device)


def _pillow_weights(length: int) -> np.ndarray:
    """Pillow's weights of `length` pixels for 300, int32 [300, length]: triangles that sum to about 2^22.

    See precompute_coeffs and normalize_coeffs_8bpc in Pillow's Resample.c. Sums are added up in its order.
    """
    scale = length / _SIZE
    support = max(scale, 1.0)
    center = (np.arange(_SIZE) + 0.5) * scale  # [300]
    first = np.maximum((center - support + 0.5).astype(int), 0)
    end = np.minimum((center + support + 0.5).astype(int), length)
    taps = first[:, None] + np.arange((end - first).max())  # [300, taps]
    weights = np.maximum(1.0 - np.abs((taps - center[:, None] + 0.5) * (1.0 / support)), 0.0)
    weights[taps >= end[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    dense = np.zeros((_SIZE, length + weights.shape[1]), dtype=np.int32)
    np.put_along_axis(dense, taps, (weights * 2**_BITS + 0.5).astype(np.int32), axis=1)
    return dense[:, :length]
