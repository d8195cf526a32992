"""Copy pixels to the device, and resize there what is not of the network's size yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ssdtrt.images.gpu_resize import resize


def to_device(pictures: Sequence[np.ndarray | Tensor], device: torch.device) -> Tensor:
    """Copy pictures of any sizes to the device, resized to the network's size.

    On a GPU nothing waits for the copies: pictures in memory that is `pinned` must stay as they are until the device
    has finished with them, unless their arrays are read-only: those are copied first, wherever they lie.

    Args:
        pictures: N pictures, uint8 [h, w, 3]; tensors are on the device already.
        device: Where to.

    Returns:
        uint8 [N, 3, 300, 300], in the order of the pictures.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault((isinstance(picture, Tensor), *picture.shape), []).append(index)
    images = [resize(_stack([pictures[index] for index in group], device)) for group in groups.values()]
    if len(images) == 1:
        return images[0].permute(0, 3, 1, 2)  # [N, 3, 300, 300]
    order = torch.from_numpy(np.argsort([index for group in groups.values() for index in group]))
    if device.type == "cuda":
        order = order.pin_memory()
    return torch.cat(images).index_select(0, order.to(device, non_blocking=True)).permute(0, 3, 1, 2)


def _stack(pictures: Sequence[np.ndarray | Tensor], device: torch.device) -> Tensor:
    """Pictures of one size and kind, uint8 [h, w, 3], as one tensor [n, h, w, 3] on the device.

    Each goes straight there from pinned memory; otherwise they are stacked first, for a GPU in pinned memory.
    """
    if isinstance(pictures[0], Tensor):
        return torch.stack(cast(list[Tensor], pictures))
    pictures = cast(Sequence[np.ndarray], pictures)
    shape, on_gpu = (len(pictures), *pictures[0].shape), device.type == "cuda"
    if on_gpu and pictures[0].flags.writeable and torch.from_numpy(pictures[0]).is_pinned():
        images = torch.empty(shape, dtype=torch.uint8, device=device)
        for image, pixels in zip(images, pictures):
            image.copy_(torch.from_numpy(pixels), non_blocking=True)
        return images
    return on_host(pictures, on_gpu).to(device, non_blocking=True)


def on_host(pictures: Sequence[np.ndarray], pinned: bool) -> Tensor:
    """Copy pictures of one size, uint8 [h, w, 3], to one tensor [n, h, w, 3] on the host, in pinned memory for a GPU."""
    host = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=pinned)
    np.stack(pictures, out=host.numpy())
    return host


@contextlib.contextmanager
def pinned(memory: np.ndarray, device: torch.device) -> Iterator[None]:
    """Page-lock an array's memory for a GPU inside the block, where the driver allows it."""
    if device.type != "cuda":
        yield
        return
    runtime = torch.cuda.cudart()
    with torch.cuda.device(device):
        granted = int(runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)) == 0
        if not granted:
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=device)  # Raises the refusal, which would otherwise surface in a later call.
    try:
        yield
    finally:
        if granted:
            torch.cuda.synchronize(device)  # Copies may still be running.
            runtime.cudaHostUnregister(memory.ctypes.data)
