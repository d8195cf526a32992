"""Default boxes, the decoding of the network's outputs, and intersection over union.

Boxes are fractions of the picture, 0..1: xyxy is (left, top, right, bottom), and cxcywh is (center x, center y, width,
height).
All functions work on any device, do not write to their arguments, and can be scripted, but for `default_boxes`.
"""

from __future__ import annotations

import math
from typing import Tuple

import torch
from torch import Tensor

from ssdtrt import config


def _box_shapes(level: int) -> list[tuple[float, float]]:
    """The (width, height) of the default boxes of one feature map, 0..1, in the reference's order."""
    scale, following = (value / config.IMAGE_SIZE for value in config.SCALES[level : level + 2])
    between = math.sqrt(scale * following)
    shapes = [(scale, scale), (between, between)]
    for ratio in config.ASPECT_RATIOS[level]:
        width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(width, height), (height, width)]
    return shapes


def default_boxes() -> Tensor:
    """Return the 8,732 default boxes.

    Returns:
        Boxes cxcywh [A, 4], float32, clamped to 0..1, ordered by feature map, then box shape, then row, then column
        (SSD, section 2.2; NVIDIA SSD300 v1.1).
    """
    levels = []
    for level, (size, step) in enumerate(zip(config.FEATURE_MAPS, config.STEPS)):
        centers = (torch.arange(size, dtype=torch.float64) + 0.5) / (config.IMAGE_SIZE / step)
        cy, cx = torch.meshgrid(centers, centers, indexing="ij")
        for width, height in _box_shapes(level):
            boxes = [cx, cy, torch.full_like(cx, width), torch.full_like(cx, height)]
            levels.append(torch.stack(boxes, dim=-1).reshape(-1, 4))  # [H * W, 4]
    return torch.cat(levels).clamp(0, 1).float()


def to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Convert boxes [..., 4] from cxcywh to xyxy."""
    center, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def decode_boxes(loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor) -> Tuple[Tensor, Tensor]:
    """Decode the network's outputs to boxes and probabilities.

    Args:
        loc: Offsets of the default boxes [N, 4, A].
        conf: Logits of the classes [N, C, A].
        boxes_cxcywh: The default boxes [A, 4].

    Returns:
        Boxes xyxy [N, A, 4], not clipped to 0..1, and scores [N, A, C], a softmax over the classes; both float32.
    """
    boxes_xyxy = decode_offsets(loc.float().transpose(1, 2), boxes_cxcywh.to(loc.device))
    return boxes_xyxy, conf.float().softmax(dim=1).transpose(1, 2)


def decode_offsets(offsets: Tensor, boxes_cxcywh: Tensor) -> Tensor:
    """Decode the network's offsets [..., 4] of default boxes [..., 4] to boxes xyxy [..., 4].

    center = d_xy + 0.1 loc_xy d_wh, size = d_wh exp(0.2 loc_wh) (SSD, section 2.2, with the reference's variances).
    """
    center = boxes_cxcywh[..., :2] + config.CENTER_VARIANCE * offsets[..., :2] * boxes_cxcywh[..., 2:]
    size = boxes_cxcywh[..., 2:] * torch.exp(config.SIZE_VARIANCE * offsets[..., 2:])
    return to_xyxy(torch.cat([center, size], dim=-1))


def box_iou(boxes_xyxy: Tensor) -> Tensor:
    """Compute the intersection over union between the boxes of each group.

    Args:
        boxes_xyxy: Boxes [G, K, 4].

    Returns:
        IoU [G, K, K], 0..1; 0 between boxes without area.
    """
    return torch.nan_to_num(box_iou_or_nan(boxes_xyxy))


def box_iou_or_nan(boxes_xyxy: Tensor) -> Tensor:
    """Compute what `box_iou` does in one step less, with NaN between boxes without area."""
    corners = boxes_xyxy.transpose(1, 2)  # [G, 4, K]
    low, high = corners[:, :2], corners[:, 2:]  # [G, 2, K]
    sides = torch.minimum(high[..., :, None], high[..., None, :])  # [G, 2, K, K], the right or lower edge in common
    sides.sub_(torch.maximum(low[..., :, None], low[..., None, :])).clamp_(min=0)
    shared = sides[:, 0] * sides[:, 1]
    area = (high - low).prod(dim=1)  # [G, K]
    return shared.div_((area[:, :, None] + area[:, None, :]).sub_(shared))


def suppress(boxes_xyxy: Tensor, valid: Tensor, iou: float) -> Tensor:
    """Suppress the boxes of each row that a better kept one overlaps by `iou` or more.

    Args:
        boxes_xyxy: Boxes [G, K, 4], best first.
        valid: Which of them exist [G, K].
        iou: The least IoU at which a box is suppressed.

    Returns:
        Which of them are kept [G, K].
    """
    # All are kept at first. Each pass decides at least the next box of every row: usually three or four are enough.
    over = (box_iou(boxes_xyxy) >= iou).triu(diagonal=1)  # [G, K, K], over[g, i, j]: i is better and overlaps j
    before, keep = ~valid, valid
    while not torch.equal(keep, before):
        before = keep
        keep = valid & ~(over & before[:, :, None]).any(dim=1)
    return keep
