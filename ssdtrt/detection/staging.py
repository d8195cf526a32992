"""Bring the pixels of a batch to the device, resized there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssdtrt.images.gpu_resize import constants, resize
from ssdtrt.images.upload import to_device
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.system.devices import current_device


class Stage:
    """Copies pictures to the device and resizes them there.

    A picture by itself that has the size of the one before, as the frames of a video have, is resized as a CUDA graph:
    the host takes several times as long to launch the steps as a GPU takes to run them. A larger batch hides that.

    Args:
        device: Where to.

    Attributes:
        graph: The graph for pictures of the last size; None where it did not come twice.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.graph: CudaGraphRunner | None = None
        self._shape: torch.Size | None = None
        self._kept: tuple[Tensor, ...] = ()

    def __call__(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Return the pictures, uint8 [h, w, 3] each, as uint8 [N, 3, 300, 300]; the next call may overwrite them."""
        with current_device(self.device):
            return to_device(pictures, self.device, self._resize if self.device.type == "cuda" else resize)

    def release(self) -> None:
        """Free the graph and the memory that it holds."""
        self.graph, self._shape, self._kept = None, None, ()

    def _resize(self, pictures: Tensor) -> Tensor:
        """`resize`; from the second picture of a size on as a graph."""
        if len(pictures) > 1:
            return resize(pictures)
        if pictures.shape != self._shape:
            self.release()
            self._shape = pictures.shape
            return resize(pictures)
        if self.graph is None:
            _, height, width, _ = pictures.shape
            self._kept = constants(height, width, self.device)  # The graph reads them where they are now.
            self.graph = CudaGraphRunner(resize, self.device, limit=1)
        return self.graph(pictures)
