"""Pixels on their way to the device, and resized there where they are not of the network's size yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ssdtrt.images.gpu_resize import resize


def to_device(pictures: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Pictures of any sizes, uint8 [h, w, 3], in their order as one uint8 tensor [N, 3, 300, 300] on the device.

    On a GPU nothing waits for the copy: memory that is `pinned` has to stay as it is until the device is done with it.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(pictures):
        groups.setdefault(one.shape, []).append(place)
    images = [resize(together([pictures[place] for place in places], device)) for places in groups.values()]
    if len(images) == 1:
        return images[0].permute(0, 3, 1, 2)
    places = [place for group in groups.values() for place in group]
    where = torch.from_numpy(np.argsort(places))
    if device.type == "cuda":
        where = where.pin_memory()
    return torch.cat(images).index_select(0, where.to(device, non_blocking=True)).permute(0, 3, 1, 2)


def together(pictures: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Equally large pictures, uint8 [h, w, 3], as one tensor [n, h, w, 3] on the device.

    From pinned memory each goes straight there; others are brought together first, for a GPU in pinned memory.
    """
    shape, on_gpu = (len(pictures), *pictures[0].shape), device.type == "cuda"
    if on_gpu and torch.from_numpy(pictures[0]).is_pinned():
        images = torch.empty(shape, dtype=torch.uint8, device=device)
        for image, pixels in zip(images, pictures):
            image.copy_(torch.from_numpy(pixels), non_blocking=True)
        return images
    host = torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)
    np.stack(pictures, out=host.numpy())
    return host.to(device, non_blocking=True)


@contextlib.contextmanager
def pinned(memory: np.ndarray, device: torch.device) -> Iterator[None]:
    """Inside the block the array's memory is page-locked for a GPU, where the driver grants that."""
    if device.type != "cuda":
        yield
        return
    runtime = torch.cuda.cudart()
    with torch.cuda.device(device):
        granted = int(runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)) == 0
        if not granted:
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=device)  # Raises what the refusal left behind, and so clears it.
    try:
        yield
    finally:
        if granted:
            torch.cuda.synchronize(device)  # Copies may be under way.
            runtime.cudaHostUnregister(memory.ctypes.data)
