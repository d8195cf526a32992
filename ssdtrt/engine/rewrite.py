"""The network as TensorRT is given it: the same function, its layers laid out so that less is copied and launched."""

from __future__ import annotations

import copy
from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

from ssdtrt import config
from ssdtrt.artifact import torchscript
from ssdtrt.model.ssd import SSD300


class FusedSSD300(nn.Module):
    """SSD300 with one output, `loc` above `conf`: images [N, 3, 300, 300] -> [N, 4 + C, A], both float32.

    Holds copies of the model's weights: every BatchNorm is folded into its convolution; the projection beside a block
    becomes part of the block's last convolution, unless `projections` is off; the location and the class head of a
    level are one convolution, and that of the last level, a single pixel, is 1x1. `inside` is the type of the weights
    and of all that lies between the two edges.
    """

    def __init__(self, model: SSD300, inside: torch.dtype = torch.float32, projections: bool = True):
        super().__init__()
        model = copy.deepcopy(model).eval()
        fold_norms(model)
        if projections:
            fold_projections(model)
        self.feature_extractor, self.additional_blocks = model.feature_extractor, model.additional_blocks
        heads = [merged_head(loc, conf) for loc, conf in zip(model.loc, model.conf)]
        self.heads = nn.ModuleList([*heads[:-1], middle_only(heads[-1])])
        self.channels, self.inside = 4 + model.num_classes, inside
        self.boxes_per_map: List[int] = model.boxes_per_map
        self.to(inside)

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, 300, 300] -> `loc` above `conf`, [N, 4 + C, A]."""
        features = self.feature_extractor(images.to(self.inside))
        maps = [self.heads[0](features)]
        for block, head in zip(self.additional_blocks, self.heads[1:]):
            features = block(features)
            maps.append(head(features))
        return self.joined(maps)

    def joined(self, maps: List[Tensor]) -> Tensor:
        """The heads' maps [N, (4 + C) * boxes, H, W] as one, [N, 4 + C, A], float32."""
        # Cast at once, or TensorRT goes on in FP32. Plain ints: a dynamic batch is -1 itself while Torch-TensorRT converts.
        parts = [part.to(self.inside).reshape(-1, self.channels, k) for part, k in zip(maps, self.boxes_per_map)]
        return torch.cat(parts, 2).float()


class ProjectedBlock(nn.Module):
    """A bottleneck block without stride, norms folded, whose input is projected by its last convolution.

    W y + P x is [W P] applied to y and x stacked: one convolution in place of two and an addition.
    """

    def __init__(self, block: Bottleneck):
        super().__init__()
        projection = block.downsample[0]
        self.conv1, self.conv2, self.relu = block.conv1, block.conv2, block.relu
        weight = torch.cat([block.conv3.weight, projection.weight], 1)
        self.conv3 = convolution(weight, block.conv3.bias + projection.bias, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H, W]."""
        y = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.relu(self.conv3(torch.cat([y, x], 1)))


class FusedNetwork(nn.Module):
    """Around a compiled FusedSSD300, scripted when saved: its one output as `loc` and `conf`, without a copy."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32, two parts of one tensor."""
        joined = self.network(images)
        return joined[:, :4], joined[:, 4:]


def trace(network: nn.Module, device: torch.device) -> torch.jit.ScriptModule:
    """A network that takes images, as TorchScript on `device`."""
    network = network.to(device)
    images = torch.zeros(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, device=device)
    with torch.no_grad(), torchscript.quiet():
        return torch.jit.trace(network, images, check_trace=False)


def fold_norms(module: nn.Module) -> None:
    """Folds every BatchNorm that follows a convolution among a module's children into it, in place."""
    before, before_name = None, ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            setattr(module, before_name, fuse_conv_bn_eval(before, child))
            setattr(module, name, nn.Identity())
        fold_norms(child)
        before, before_name = child, name


def fold_projections(module: nn.Module) -> None:
    """Replaces every bottleneck block that projects its input without stride by a ProjectedBlock, in place.

    Its norms must be folded.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, Bottleneck):
            if child.downsample is not None and child.downsample[0].stride == (1, 1):
                setattr(module, name, ProjectedBlock(child))
        else:
            fold_projections(child)


def merged_head(loc: nn.Module, conf: nn.Module) -> nn.Conv2d:
    """The two heads of a level as one convolution: first the 4 * boxes channels of `loc`, then those of `conf`."""
    assert isinstance(loc, nn.Conv2d) and isinstance(conf, nn.Conv2d) and loc.bias is not None and conf.bias is not None
    weight, bias = torch.cat([loc.weight, conf.weight]), torch.cat([loc.bias, conf.bias])
    return convolution(weight, bias, padding=1)


def middle_only(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution with padding 1 as it acts on a single pixel."""
    assert conv.bias is not None
    return convolution(conv.weight[:, :, 1:2, 1:2], conv.bias, padding=0)


def convolution(weight: Tensor, bias: Tensor, padding: int) -> nn.Conv2d:
    """A convolution without stride, of weight [O, I, H, W] and bias [O]."""
    channels_out, channels_in, height, width = weight.shape
    conv = nn.Conv2d(channels_in, channels_out, (height, width), padding=padding)
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv
