"""Seeded random weights that behave like trained ones where it matters for latency, precision and drawing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.ssd import SSD300

CALIBRATION_IMAGES = 4
STATISTICS_SHARE = 0.3
RESIDUAL_GAIN = 0.25
LOC_STD = 1.0
CONF_STD = 1.2


def random_model(num_classes: int, seed: int) -> SSD300:
    """SSD300 with seeded weights, in eval mode; torch's global random state is left as it was.

    Xavier-uniform weights in the additional blocks and heads, as the reference initializes them. Untrained residual
    branches multiply rounding errors (relative L2 of BF16: 4e-2), so their last norm starts at RESIDUAL_GAIN (1e-2).
    BatchNorm statistics move towards those of seeded pictures, which evens out the pictures; activations stay far
    inside FP16's range. Each head is then scaled so that its outputs have a fixed standard deviation: boxes of sensible
    sizes, and in every picture some with scores that can be compared and drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = reference_init(SSD300(num_classes))
        for block in model.modules():
            if isinstance(block, Bottleneck):
                nn.init.constant_(block.bn3.weight, RESIDUAL_GAIN)
    images = synthetic_images(CALIBRATION_IMAGES, seed)
    with torch.no_grad():
        calibrate_norms(model, images)
        calibrate_heads(model.eval(), images)
    return model.requires_grad_(False)


def reference_init(model: SSD300) -> SSD300:
    """The same model, its additional blocks and heads initialized as the reference does: Xavier-uniform weights."""
    for part in (model.additional_blocks, model.loc, model.conf):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    return model


def calibrate_norms(model: nn.Module, images: Tensor) -> None:
    """Moves every BatchNorm's running statistics by STATISTICS_SHARE towards those of a batch of pictures, in place."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = STATISTICS_SHARE
    model.train()(images)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def calibrate_heads(model: SSD300, images: Tensor) -> None:
    """Scales each head, in place, so that its map has the standard deviation wanted over a batch of pictures."""
    maps = zip(model(images), (model.loc, model.conf), (LOC_STD, CONF_STD))
    for output, heads, wanted in maps:
        for head, part in zip(heads, output.split(model.boxes_per_map, dim=2)):
            head.weight *= wanted / part.std()
