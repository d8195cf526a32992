"""Fuse the layers of SSD300 for TensorRT: the same function with fewer layers and copies."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssdtrt import config
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.model.ssd import SSD300
from ssdtrt.runners import torchscript


class FusedSSD300(nn.Module):
    """SSD300 with a single output, `loc` and `conf` concatenated: images [N, 3, 300, 300] -> [N, 4 + C, A], float32.

    The weights are copied from the model. Every BatchNorm is folded into its convolution, and the projection of a
    bottleneck block into the block's last convolution. The location head and the class head of each feature map are
    merged into one convolution; that of the last map, which is a single pixel, becomes a 1x1 convolution.

    Args:
        model: The FP32 model.
        compute_dtype: The dtype of the weights and of everything between the input and the output.
        fold_projections: Whether to fold the projections.
    """

    def __init__(self, model: SSD300, compute_dtype: torch.dtype = torch.float32, fold_projections: bool = True):
        super().__init__()
        model = copy.deepcopy(model).eval()
        _fold_batch_norms(model)
        if fold_projections:
            _fold_projections(model)
        self.feature_extractor, self.additional_blocks = model.feature_extractor, model.additional_blocks
        heads = [_merge_heads(loc, conf) for loc, conf in zip(model.loc, model.conf)]
        self.heads = nn.ModuleList([*heads[:-1], _center_tap(heads[-1])])
        self.channels, self.compute_dtype = 4 + model.num_classes, compute_dtype
        self.quantized = False
        self.boxes_per_map: list[int] = model.boxes_per_map
        self.to(compute_dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return `loc` and `conf` concatenated, [N, 4 + C, A], for images [N, 3, 300, 300]."""
        features = self.feature_extractor(images.to(self.compute_dtype))
        maps = [self.heads[0](features)]
        for block, head in zip(self.additional_blocks, self.heads[1:]):
            features = block(features)
            maps.append(head(features))
        return self.concatenate(maps)

    def concatenate(self, maps: list[Tensor]) -> Tensor:
        """Concatenate the outputs of the heads, [N, (4 + C) * boxes, H, W] each, to [N, 4 + C, A], float32."""
        # Without the casts TensorRT continues in FP32. Only the batch size may be -1 here, because a dynamic one is -1
        # itself while Torch-TensorRT converts the network.
        parts = [part.to(self.compute_dtype).reshape(-1, self.channels, k) for part, k in zip(maps, self.boxes_per_map)]
        return torch.cat(parts, 2).float()


class ProjectedBlock(nn.Module):
    """A bottleneck block of stride 1 whose projection is folded into its last convolution.

    W y + P x = [W P] [y; x]: one convolution of concatenated inputs replaces two convolutions and an addition.

    Args:
        block: The block, with its BatchNorms folded.
    """

    def __init__(self, block: Bottleneck):
        super().__init__()
        projection = block.downsample[0]
        assert block.conv3.bias is not None
        self.conv1, self.conv2, self.relu = block.conv1, block.conv2, block.relu
        weight = torch.cat([block.conv3.weight, projection.weight], 1)
        self.conv3 = _make_conv(weight, block.conv3.bias + projection.bias, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block: [N, I, H, W] -> [N, O, H, W]."""
        y = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.relu(self.conv3(torch.cat([y, x], 1)))


class FusedNetwork(nn.Module):
    """Split the output of a compiled FusedSSD300 into `loc` and `conf`, without a copy. Scripted before it is saved."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loc [N, 4, A], conf [N, C, A]), float32 views of one tensor, for images [N, 3, 300, 300]."""
        output = self.network(images)
        return output[:, :4], output[:, 4:]


def trace(network: nn.Module, device: torch.device) -> torch.jit.ScriptModule:
    """Trace a network that takes images [N, 3, 300, 300], on `device`, to TorchScript."""
    network = network.to(device)
    images = torch.zeros(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, device=device)
    with torch.no_grad(), torchscript.quiet():
        return torch.jit.trace(network, images, check_trace=False)


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold every BatchNorm that directly follows a convolution into that convolution, in place."""
    previous, previous_name = None, ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
            setattr(module, name, nn.Identity())
        _fold_batch_norms(child)
        previous, previous_name = child, name


def _fold_projections(module: nn.Module) -> None:
    """Replace every bottleneck block that has a projection and stride 1 by a ProjectedBlock, in place.

    The BatchNorms must be folded before.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, Bottleneck):
            if child.downsample is not None and child.downsample[0].stride == (1, 1):
                setattr(module, name, ProjectedBlock(child))
        else:
            _fold_projections(child)


def _merge_heads(loc: nn.Module, conf: nn.Module) -> nn.Conv2d:
    """Return both heads of a feature map as one convolution: the 4 * boxes channels of `loc`, then those of `conf`."""
    assert isinstance(loc, nn.Conv2d) and isinstance(conf, nn.Conv2d) and loc.bias is not None and conf.bias is not None
    weight, bias = torch.cat([loc.weight, conf.weight]), torch.cat([loc.bias, conf.bias])
    return _make_conv(weight, bias, padding=1)


def _center_tap(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the 1x1 convolution that does on a single pixel what a 3x3 convolution with padding 1 does."""
    assert conv.bias is not None
    return _make_conv(conv.weight[:, :, 1:2, 1:2], conv.bias, padding=0)


def _make_conv(weight: Tensor, bias: Tensor, padding: int) -> nn.Conv2d:
    """Return a convolution of stride 1 with copies of the weight [O, I, H, W] and the bias [O]."""
    channels_out, channels_in, height, width = weight.shape
    conv = nn.Conv2d(channels_in, channels_out, (height, width), padding=padding)
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv
