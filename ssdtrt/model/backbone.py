"""The feature extractor: ResNet-50 up to conv4_x, with the stride of its last stage removed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

_WIDTH = 64
"""Channels of the first convolution, and of the 3x3 convolutions of the first stage."""
_CLASSES = 1000
"""Classes of the whole ResNet-50."""
_EXPANSION = 4
_BLOCKS = (3, 4, 6, 3)
_STRIDES = (1, 2, 1, 2)
"""The third is 2 in ResNet-50; with 1, 300x300 pixels give 38x38 cells."""


class Bottleneck(nn.Module):
    """A residual block: 1x1, 3x3 and 1x1 convolution, whose output is added to the input or to its projection.

    Args:
        channels_in: Channels of the input.
        width: Channels of the 3x3 convolution; the output has four times as many.
        stride: The stride of the 3x3 convolution and of the projection.
    """

    def __init__(self, channels_in: int, width: int, stride: int = 1):
        super().__init__()
        channels_out = _EXPANSION * width
        self.conv1 = nn.Conv2d(channels_in, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: Any = None  # Or the projection.
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Run the block: x [N, channels_in, H, W] -> [N, 4 * width, H / stride, W / stride]."""
        identity = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        out = self.relu(out)
        out = self.conv3(out)
        out = self.bn3(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        out = self.relu(out)
        return out


def _stage(channels_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(_EXPANSION * width, width) for _ in range(1, blocks)))


def _resnet50() -> list[nn.Module]:
    """The children of ResNet-50 with its initial weights; what comes before its classifier is not among them.

    conv5_x and the classifier are made too, because seeded weights are those of the whole network.
    """
    stages, channels = [], _WIDTH
    conv, norm = nn.Conv2d(3, _WIDTH, kernel_size=7, stride=2, padding=3, bias=False), nn.BatchNorm2d(_WIDTH)
    for number, (blocks, stride) in enumerate(zip(_BLOCKS, _STRIDES)):
        width = _WIDTH * 2**number
        stages.append(_stage(channels, width, blocks, stride))
        channels = _EXPANSION * width
    classifier = nn.Linear(channels, _CLASSES)
    children = [
        conv,
        norm,
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        *stages,
        classifier,
    ]
    for module in nn.Sequential(*children).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return children


def resnet50_features() -> nn.Sequential:
    """ResNet-50 up to conv4_x, whose first block has stride 1: images [N, 3, 300, 300] -> [N, 1024, 38, 38].

    `feature_extractor` holds the first seven children of the network, as NVIDIA's checkpoint names them. A class around
    it would be in the same module as `Bottleneck`; then TorchScript numbers the values of both together in the first
    export of a process and apart in later ones, whose graphs would have another digest.
    """
    return nn.Sequential(OrderedDict(feature_extractor=nn.Sequential(*_resnet50()[:7])))
