"""Bring the pixels of a batch to the device, resized there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.images.gpu_resize import constants, resize
from ssdtrt.images.upload import on_host, to_device
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.system.devices import current_device


class Stage:
    """Copies pictures to the device and resizes them there.

    Pictures that come one by one with the same size, as the frames of a video do, are resized as a CUDA graph after
    config.RESIZE_GRAPH_AFTER of them: the host takes several times as long to launch the steps as a GPU takes to run
    them. A larger batch hides that. A capture takes as long as hundreds of pictures save.

    Args:
        device: Where to.

    Attributes:
        graph: The graph for pictures of the last size; None before enough of them came.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.graph: CudaGraphRunner | None = None
        self._shape: tuple[int, ...] = ()
        self._same = 0  # pictures of that shape, one after the other
        self._kept: tuple[Tensor, ...] = ()

    def __call__(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Return the pictures, uint8 [h, w, 3] each, as uint8 [N, 3, 300, 300]; the next call may overwrite them."""
        with current_device(self.device):
            if self.device.type == "cuda" and len(pictures) == 1 and self._comes_often(pictures[0].shape):
                return self._replay(pictures).permute(0, 3, 1, 2)
            return to_device(pictures, self.device)

    def release(self) -> None:
        """Free the graph and the memory that it holds."""
        self.graph, self._shape, self._same, self._kept = None, (), 0, ()

    def _comes_often(self, shape: tuple[int, ...]) -> bool:
        """Whether enough pictures of this shape came one after the other, and they have to be resized."""
        if shape != self._shape:
            self.release()
            self._shape = shape
        self._same += 1
        return self._same > config.RESIZE_GRAPH_AFTER and shape[:2] != (config.IMAGE_SIZE, config.IMAGE_SIZE)

    def _replay(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Return a picture as [1, 300, 300, 3], copied straight to where the graph reads it."""
        if self.graph is None:
            height, width = pictures[0].shape[:2]
            self._kept = constants(height, width, self.device)  # The graph reads them where they are now.
            self.graph = CudaGraphRunner(resize, self.device, limit=1)
        return self.graph(on_host(pictures, pinned=self.device.type == "cuda"))
