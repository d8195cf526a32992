"""Default boxes, decoding of the network's outputs, and how much boxes overlap.

Boxes are fractions of the picture, 0..1. `xyxy` is (left, top, right, bottom); `cxcywh` is center, then width and height.
Everything here works on any device and writes to no argument.
"""

from __future__ import annotations

import math
from typing import Tuple

import torch
from torch import Tensor

from ssdtrt import config


def box_shapes(level: int) -> list[tuple[float, float]]:
    """The (width, height) of the default boxes of one feature map, 0..1, in the reference order."""
    scale, following = (value / config.IMAGE_SIZE for value in config.SCALES[level : level + 2])
    between = math.sqrt(scale * following)
    shapes = [(scale, scale), (between, between)]
    for ratio in config.ASPECT_RATIOS[level]:
        width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(width, height), (height, width)]
    return shapes


def default_boxes() -> Tensor:
    """The 8,732 default boxes as cxcywh [A, 4], float32, clamped to 0..1.

    Order: feature map, then box shape, then row, then column (SSD, section 2.2; NVIDIA SSD300 v1.1).
    """
    levels = []
    for level, (size, step) in enumerate(zip(config.FEATURE_MAPS, config.STEPS)):
        centers = (torch.arange(size, dtype=torch.float64) + 0.5) / (config.IMAGE_SIZE / step)
        cy, cx = torch.meshgrid(centers, centers, indexing="ij")
        for width, height in box_shapes(level):
            boxes = [cx, cy, torch.full_like(cx, width), torch.full_like(cx, height)]
            levels.append(torch.stack(boxes, dim=-1).reshape(-1, 4))  # [H * W, 4]
    return torch.cat(levels).clamp(0, 1).float()


def to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """[..., 4] from center form to (left, top, right, bottom)."""
    center, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def decode_boxes(loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor) -> Tuple[Tensor, Tensor]:
    """Network outputs to boxes and probabilities.

    loc [N, 4, A], conf [N, C, A] logits, default boxes [A, 4] -> boxes_xyxy [N, A, 4], not clipped, and scores [N, A, C],
    a softmax over the classes; both float32.
    """
    boxes_xyxy = shift(loc.float().transpose(1, 2), boxes_cxcywh.to(loc.device))
    return boxes_xyxy, conf.float().softmax(dim=1).transpose(1, 2)


def shift(offsets: Tensor, boxes_cxcywh: Tensor) -> Tensor:
    """Default boxes [..., 4] moved by the network's offsets [..., 4], as xyxy.

    center = d_xy + 0.1 loc_xy d_wh, size = d_wh exp(0.2 loc_wh) (SSD, section 2.2, with the reference's variances).
    """
    center = boxes_cxcywh[..., :2] + config.CENTER_VARIANCE * offsets[..., :2] * boxes_cxcywh[..., 2:]
    size = boxes_cxcywh[..., 2:] * torch.exp(config.SIZE_VARIANCE * offsets[..., 2:])
    return to_xyxy(torch.cat([center, size], dim=-1))


def box_iou(boxes_xyxy: Tensor) -> Tensor:
    """Intersection over union of the boxes of each row: [G, K, 4] -> [G, K, K]; 0 between boxes without area."""
    return torch.nan_to_num(overlap(boxes_xyxy))


def overlap(boxes_xyxy: Tensor) -> Tensor:
    """`box_iou`, but NaN between boxes without area."""
    corners = boxes_xyxy.transpose(1, 2)  # [G, 4, K]
    low, high = corners[:, :2], corners[:, 2:]  # [G, 2, K]
    sides = torch.minimum(high[..., :, None], high[..., None, :]).sub_(
        torch.maximum(low[..., :, None], low[..., None, :])
    )
    sides.clamp_(min=0)  # [G, 2, K, K]
    shared = sides[:, 0] * sides[:, 1]
    area = (high - low).prod(dim=1)  # [G, K]
    return shared.div_((area[:, :, None] + area[:, None, :]).sub_(shared))
