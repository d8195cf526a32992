"""The network as TensorRT runs it fastest: the same function of the images, its layers laid out anew."""

from __future__ import annotations

import copy
from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssdtrt import config, torchscript
from ssdtrt.model.ssd import SSD300

BORDER = (2, 1)  # rows and columns of zeros before and behind the packed pixels: the padding of the first convolution
PACKED_SIZE = config.IMAGE_SIZE // 2 + sum(BORDER)
Maps = Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class PackedSSD300(nn.Module):
    """SSD300 from packed images [N, 12, 153, 153] (see `pack`) to six maps [N, (4 + C) * boxes, H, W].

    Holds copies of the model's weights: every BatchNorm is folded into its convolution, the first convolution, 7x7 with
    stride 2 on 3 channels, is one of 4x4 with stride 1 on 12, the location and the class head of a level are one
    convolution, and that of the last level, a single pixel, is 1x1. `cast` is the type of the maps, where it is not
    that of the weights.
    """

    def __init__(self, model: SSD300, cast: torch.dtype | None = None):
        super().__init__()
        model = copy.deepcopy(model).eval()
        fold_norms(model)
        self.features = model.feature_extractor.feature_extractor
        self.features[0] = packed_stem(self.features[0])
        self.additional_blocks = model.additional_blocks
        self.heads = nn.ModuleList(merged_head(*pair) for pair in zip(model.loc, model.conf))
        self.heads[-1] = middle_only(self.heads[-1])
        self.cast = cast

    def forward(self, packed: Tensor) -> Maps:
        """packed [N, 12, 153, 153] -> six maps [N, (4 + C) * boxes, H, W]; the channel is split as (4 + C, boxes)."""
        features = self.features(packed)  # [N, 1024, 38, 38]
        maps = [self.heads[0](features)]
        for block, head in zip(self.additional_blocks, self.heads[1:]):
            features = block(features)
            maps.append(head(features))
        return tuple(maps if self.cast is None else [part.to(self.cast) for part in maps])


def packed_shape(count: int) -> tuple[int, int, int, int]:
    """The shape of so many packed images."""
    return count, 12, PACKED_SIZE, PACKED_SIZE


def traced(model: SSD300, precision: str) -> torch.jit.ScriptModule:
    """The model's packed form, traced in FP32; for an FP16 engine the maps are cast, which keeps them in FP16."""
    network = PackedSSD300(model, torch.half if precision == "fp16" else None)
    with torch.no_grad(), torchscript.quiet():
        return torch.jit.trace(network, torch.zeros(packed_shape(1)), check_trace=False)


def fold_norms(module: nn.Module) -> None:
    """Folds every BatchNorm that follows a convolution among a module's children into it, in place."""
    before, before_name = None, ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            setattr(module, before_name, fuse_conv_bn_eval(before, child))
            setattr(module, name, nn.Identity())
        fold_norms(child)
        before, before_name = child, name


def packed_stem(conv: nn.Conv2d) -> nn.Conv2d:
    """The 7x7 convolution with stride 2 and padding 3 as one on packed images, 4x4 without stride or padding."""
    channels = conv.in_channels
    weight = nn.functional.pad(conv.weight, (1, 0, 1, 0))  # [O, 3, 8, 8]
    weight = weight.reshape(-1, channels, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4)
    return convolution(weight.reshape(-1, 4 * channels, 4, 4), conv.bias, padding=0)


def merged_head(loc: nn.Conv2d, conf: nn.Conv2d) -> nn.Conv2d:
    """The two heads of a level as one convolution: first the 4 * boxes channels of `loc`, then those of `conf`."""
    weight, bias = torch.cat([loc.weight, conf.weight]), torch.cat([loc.bias, conf.bias])
    return convolution(weight, bias, padding=1)


def middle_only(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution with padding 1 as it acts on a single pixel."""
    return convolution(conv.weight[:, :, 1:2, 1:2], conv.bias, padding=0)


def convolution(weight: Tensor, bias: Tensor, padding: int) -> nn.Conv2d:
    """A convolution without stride, of weight [O, I, H, W] and bias [O]."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), padding=padding)
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


class PackedNetwork(nn.Module):
    """Around a compiled PackedSSD300, scripted when saved: packs the images and joins the maps."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, num_classes: int):
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32."""
        first, second, third, fourth, fifth, sixth = self.network(pack(images, self.dtype))
        return unpack([first, second, third, fourth, fifth, sixth], self.num_classes)


def pack(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Each 2x2 pixels as one with four times the channels, in a border of zeros: [N, 3, 300, 300] -> [N, 12, 153, 153].

    Channel 4 * c + 2 * y + x is that of channel c in the row y and column x of the four.
    """
    count, channels, size = images.shape[0], images.shape[1], images.shape[2] // 2
    packed = torch.zeros([count, 4 * channels, size + 3, size + 3], dtype=dtype, device=images.device)
    four = images.reshape(count, channels, size, 2, size, 2).permute(0, 1, 3, 5, 2, 4)  # [N, 3, 2, 2, 150, 150]
    packed[:, :, 2 : size + 2, 2 : size + 2].view(count, channels, 2, 2, size, size).copy_(four)
    return packed


def unpack(maps: List[Tensor], num_classes: int) -> Tuple[Tensor, Tensor]:
    """Six maps [N, (4 + C) * boxes, H, W] -> (loc [N, 4, A], conf [N, C, A]), float32."""
    count, channels = maps[0].shape[0], 4 + num_classes
    joined = torch.cat([part.reshape(count, channels, -1) for part in maps], 2)  # [N, 4 + C, A]
    return joined[:, :4].float().contiguous(), joined[:, 4:].float().contiguous()
