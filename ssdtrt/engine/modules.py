"""The scripted modules of an engine file and of a detector file, which contain the built network."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor, nn

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.images.tensors import scale_to
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import PaddedDetections, detect_batch


class EngineModule(nn.Module):
    """Cast images to the network's dtype, pad a batch that is too small for it, and return float32 outputs.

    Scripted before it is saved. Raises for images of another shape, and for more images than the network takes.

    Args:
        network: The built network: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]).
        dtype: The dtype of the images that the network takes.
        batch: The batch sizes that the network takes; None for any.
        channels_last: Whether the network takes images in this memory format.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, batch: BatchRange | None, channels_last: bool):
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.channels_last = channels_last
        self.min_batch = batch.min if batch else 1
        self.max_batch = batch.max if batch else 2**31 - 1
        self.size: int = config.IMAGE_SIZE

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """Return (loc [N, 4, A], conf [N, C, A]), float32, for images [N, 3, 300, 300]."""
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] != self.size or images.shape[3] != self.size:
            raise ValueError("expected images [N, 3, {}, {}], found {}".format(self.size, self.size, images.shape))
        count = images.shape[0]
        if count < 1 or count > self.max_batch:
            raise ValueError("this engine takes 1 to {} images at once, found {}".format(self.max_batch, count))
        if self.channels_last:
            images = images.to(self.dtype, memory_format=torch.channels_last)
        else:
            images = images.to(self.dtype).contiguous()
        if count < self.min_batch:
            missing = images.new_zeros([self.min_batch - count, 3, self.size, self.size])
            images = torch.cat([images, missing])
        # Outside of any branch, because TorchScript fuses only top-level code.
        loc, conf = self.network(images)
        return loc[:count].float(), conf[:count].float()


class DetectorModule(nn.Module):
    """Detect objects in uint8 images: normalization, engine, decoding and NMS.

    Scripted before it is saved.

    Args:
        engine: The EngineModule, which remains callable as the attribute `engine`.
        preprocess: How pictures are prepared, `eval` or `hub`: it determines the normalization.
        max_detections: K, the maximum number of detections per image.
    """

    def __init__(self, engine: nn.Module, preprocess: str, max_detections: int = config.MAX_DETECTIONS):
        super().__init__()
        self.engine = engine
        self.max_detections = max_detections
        mean, std = config.NORMALIZATION[preprocess]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.register_buffer("default_boxes", default_boxes())

    def forward(self, images: Tensor) -> PaddedDetections:
        """Return the detections in uint8 images [N, 3, 300, 300], 0 to 255, RGB.

        Returns:
            boxes [N, K, 4] (xyxy, 0..1), labels [N, K] (1..C-1), scores [N, K] and counts [N], in descending order of
            the scores. The rows of an image after its count are zeros.
        """
        if images.dtype != torch.uint8:
            raise ValueError("expected images of uint8, 0 to 255, found {}".format(images.dtype))
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                "expected images [N, 3, {}, {}], found {}".format(self.engine.size, self.engine.size, images.shape)
            )
        loc, conf = self.engine(scale_to(images, self.mean, self.std))
        return detect_batch(loc, conf, self.default_boxes, self.max_detections)
