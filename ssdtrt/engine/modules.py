"""What is inside an engine file, and inside a detector file: the built network behind one scripted face."""

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
    """Casts images to the network's type, pads a batch that is too small for it, and returns float32.

    Scripted when saved. A batch of more than `max_batch` images, or another image size, raises.
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
        """images [N, 3, 300, 300] float32 -> (loc [N, 4, A], conf [N, C, A]), float32."""
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
        # Not in a branch: what TorchScript fuses has to be at the top.
        loc, conf = self.network(images)
        return loc[:count].float(), conf[:count].float()


class DetectorModule(nn.Module):
    """From pictures to detections: normalizes, runs the engine, decodes and suppresses. Scripted when saved.

    `engine` is the whole EngineModule, and can be called by itself. The labels are numbers, 1..C-1.
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
        """uint8 images [N, 3, 300, 300] -> boxes_xyxy [N, K, 4] in 0..1, labels [N, K], scores [N, K], counts [N].

        Best first; each picture's rows after its count are zeros.
        """
        if images.dtype != torch.uint8:
            raise ValueError("expected images of uint8, 0 to 255, found {}".format(images.dtype))
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                "expected images [N, 3, {}, {}], found {}".format(self.engine.size, self.engine.size, images.shape)
            )
        loc, conf = self.engine(scale_to(images, self.mean, self.std))
        return detect_batch(loc, conf, self.default_boxes, self.max_detections)
