"""The feature extractor: ResNet-50 up to conv4_x, with the stride of its last stage removed."""

import torch
from torch import nn
from torchvision.models import resnet50


class ResNet50Features(nn.Module):
    """ResNet-50's children 0..6, where the first block of conv4_x has stride 1, so 300x300 gives 38x38."""

    def __init__(self):
        super().__init__()
        self.feature_extractor = nn.Sequential(*list(resnet50(weights=None).children())[:7])
        first = self.feature_extractor[-1][0]
        for conv in (first.conv1, first.conv2, first.downsample[0]):
            conv.stride = (1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, 3, 300, 300] -> features [N, 1024, 38, 38]."""
        return self.feature_extractor(images)
