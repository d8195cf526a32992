"""Seeded random weights, which behave like trained ones as far as latency, precision and drawing need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.ssd import SSD300

_CALIBRATION_IMAGES = 4
_STATISTICS_SHARE = 0.3
_RESIDUAL_GAIN = 0.25
_LOC_STD = 1.0
_CONF_STD = 1.2


def random_model(num_classes: int, seed: int) -> SSD300:
    """Build SSD300 with seeded random weights, in eval mode. torch's global random state does not change.

    The additional blocks and heads have Xavier-uniform weights, as the reference initializes them. Untrained residual
    branches multiply rounding errors (relative L2 distance of BF16: 4e-2), so their last norm starts at _RESIDUAL_GAIN
    (1e-2). The BatchNorm statistics move towards those of seeded pictures, so that all pictures give outputs of a
    similar size, and activations stay far inside FP16's range. Each head is then scaled to outputs of a fixed standard
    deviation: boxes of sensible sizes, and in every picture some with scores that can be compared and drawn.

    Args:
        num_classes: The number of classes, with the background.
        seed: The seed of the weights and of the pictures.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = reference_init(SSD300(num_classes))
        for name, norm in model.named_modules():
            if name.endswith(".bn3"):  # The last norm of a bottleneck block.
                nn.init.constant_(norm.get_parameter("weight"), _RESIDUAL_GAIN)
    images = synthetic_images(_CALIBRATION_IMAGES, seed)
    with torch.no_grad():
        _calibrate_norms(model, images)
        _calibrate_heads(model.eval(), images)
    return model.requires_grad_(False)


def reference_init(model: SSD300) -> SSD300:
    """Initialize the additional blocks and heads with Xavier-uniform weights, as the reference does.

    Returns:
        The same model.
    """
    for part in (model.additional_blocks, model.loc, model.conf):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    return model


def _calibrate_norms(model: nn.Module, images: Tensor) -> None:
    """Moves the running statistics of every BatchNorm by _STATISTICS_SHARE towards those of `images`, in place."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = _STATISTICS_SHARE
    model.train()(images)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def _calibrate_heads(model: SSD300, images: Tensor) -> None:
    """Scales each head, in place, so that its map has the wanted standard deviation over `images`."""
    maps = zip(model(images), (model.loc, model.conf), (_LOC_STD, _CONF_STD))
    for output, heads, wanted in maps:
        for head, part in zip(heads, output.split(model.boxes_per_map, dim=2)):
            head.weight *= wanted / part.std()
