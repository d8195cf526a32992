"""The SSD300 network: backbone, five additional blocks, and a location and a class head on each of six feature maps."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor, nn

from ssdtrt import config
from ssdtrt.model.backbone import resnet50_features
from ssdtrt.model.source import WeightsSource


def _additional_block(channels_in: int, middle: int, channels_out: int, strided: bool) -> nn.Sequential:
    """conv1x1, BN, ReLU, conv3x3, BN, ReLU; the 3x3 shrinks the map by stride 2, or the smallest maps by no padding."""
    stride, padding = (2, 1) if strided else (1, 0)
    return nn.Sequential(
        nn.Conv2d(channels_in, middle, kernel_size=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, channels_out, kernel_size=3, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SSD300(nn.Module):
    """SSD300 with a ResNet-50 backbone; its parameter names are those of NVIDIA's published checkpoint.

    Args:
        num_classes: The number of classes, with the background.

    Attributes:
        labels: The names of the classes, the background first; empty until `build_model` sets them.
        source: The origin of the weights; None until `build_model` sets it.
    """

    __jit_ignored_attributes__ = ("labels", "source")  # What a file's metadata records is no part of the graph.

    def __init__(self, num_classes: int = config.NUM_CLASSES):
        super().__init__()
        self.num_classes = num_classes
        self.labels: Tuple[str, ...] = ()
        self.source: WeightsSource | None = None
        self.feature_extractor = resnet50_features()
        channels = config.FEATURE_CHANNELS
        self.additional_blocks = nn.ModuleList(
            _additional_block(channels[i], middle, channels[i + 1], strided=i < 3)
            for i, middle in enumerate(config.MIDDLE_CHANNELS)
        )
        heads = tuple(zip(channels, config.BOXES_PER_CELL))
        self.loc = nn.ModuleList(nn.Conv2d(c, 4 * boxes, kernel_size=3, padding=1) for c, boxes in heads)
        self.conf = nn.ModuleList(nn.Conv2d(c, num_classes * boxes, kernel_size=3, padding=1) for c, boxes in heads)
        # Plain ints: a dynamic batch is -1 itself while Torch-TensorRT converts, so the boxes never are.
        self.boxes_per_map: List[int] = [
            boxes * size * size for boxes, size in zip(config.BOXES_PER_CELL, config.FEATURE_MAPS)
        ]

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            images: Normalized images [N, 3, 300, 300].

        Returns:
            loc [N, 4, A], the offsets of the default boxes, and conf [N, C, A], the logits of the classes.
        """
        features = self.feature_extractor(images)  # [N, 1024, 38, 38]
        maps = [features]
        for block in self.additional_blocks:
            features = block(features)
            maps.append(features)
        locs: List[Tensor] = []
        confs: List[Tensor] = []
        for i, (loc, conf) in enumerate(zip(self.loc, self.conf)):
            count = self.boxes_per_map[i]
            locs.append(loc(maps[i]).reshape(-1, 4, count))  # [N, 4 * boxes, H, W] -> [N, 4, boxes * H * W]
            confs.append(conf(maps[i]).reshape(-1, self.num_classes, count))
        return torch.cat(locs, 2), torch.cat(confs, 2)
