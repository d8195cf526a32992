"""The feature extractor: ResNet-50 up to conv4_x, with the stride of its last stage removed."""

from typing import Any

import torch
from torch import nn


def _resnet50() -> Any:
    # Imported here, because that takes as long as importing torch, and an engine does not need it.
    from torchvision.models import resnet50

    return resnet50(weights=None)


class ResNet50Features(nn.Module):
    """ResNet-50 up to conv4_x, whose first block has stride 1, so that 300x300 pixels give 38x38 cells.

    `feature_extractor` holds the first seven children of torchvision's network, as NVIDIA's checkpoint names them.
    """

    def __init__(self):
        super().__init__()
        resnet = _resnet50()
        block = resnet.layer3[0]
        for conv in (block.conv1, block.conv2, block.downsample[0]):
            conv.stride = (1, 1)
        self.feature_extractor = nn.Sequential(*list(resnet.children())[:7])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Extract features: images [N, 3, 300, 300] -> [N, 1024, 38, 38]."""
        return self.feature_extractor(images)
