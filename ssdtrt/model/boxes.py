"""Default boxes, decoding of the network's outputs, and non-maximum suppression.

Boxes are fractions of the picture, 0..1. `ltrb` is (left, top, right, bottom); `cxcywh` is centre, then width and height.
Everything here works on any device and writes to no argument.
"""

from __future__ import annotations

import math
from typing import List, Tuple

import torch
from torch import Tensor

from ssdtrt import config

MAX_PAIRS = 16_000_000  # pairs of boxes compared at once, which bounds memory


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
        centres = (torch.arange(size, dtype=torch.float64) + 0.5) / (config.IMAGE_SIZE / step)
        cy, cx = torch.meshgrid(centres, centres, indexing="ij")
        for width, height in box_shapes(level):
            boxes = [cx, cy, torch.full_like(cx, width), torch.full_like(cx, height)]
            levels.append(torch.stack(boxes, dim=-1).reshape(-1, 4))  # [H * W, 4]
    return torch.cat(levels).clamp(0, 1).float()


def to_ltrb(boxes_cxcywh: Tensor) -> Tensor:
    """[..., 4] from centre form to (left, top, right, bottom)."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def decode(loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor) -> Tuple[Tensor, Tensor]:
    """Network outputs to boxes and probabilities.

    loc [N, 4, A], conf [N, C, A] logits, default boxes [A, 4] -> boxes_ltrb [N, A, 4], not clipped, and scores [N, A, C],
    a softmax over the classes; both float32. centre = d_xy + 0.1 loc_xy d_wh, size = d_wh exp(0.2 loc_wh).
    """
    loc = loc.float().transpose(1, 2)  # [N, A, 4]
    defaults = boxes_cxcywh.to(loc)
    centre = defaults[:, :2] + config.CENTRE_VARIANCE * loc[..., :2] * defaults[:, 2:]
    size = defaults[:, 2:] * torch.exp(config.SIZE_VARIANCE * loc[..., 2:])
    return to_ltrb(torch.cat([centre, size], dim=-1)), conf.float().transpose(1, 2).softmax(dim=-1)


def suppress(
    boxes_ltrb: Tensor,
    scores: Tensor,
    min_score: float = config.MIN_SCORE,
    iou: float = config.NMS_IOU,
    max_per_class: int = config.MAX_PER_CLASS,
    max_detections: int = config.MAX_DETECTIONS,
) -> List[Tuple[Tensor, Tensor, Tensor]]:
    """Per-class non-maximum suppression of a batch.

    boxes_ltrb [N, A, 4], scores [N, A, C] with the background first -> for each picture (boxes_ltrb [K, 4],
    labels [K] in 1..C-1, scores [K]), best first. For each class: scores > `min_score`, the best `max_per_class`, and of
    those a box stays while its IoU with every kept one is < `iou`; then the best `max_detections` of all classes.
    """
    pictures, classes = scores.shape[0], scores.shape[2]
    picture, anchor, label = torch.where(scores[..., 1:] > min_score)  # [M] each
    score = scores[picture, anchor, label + 1]
    order = score.argsort(descending=True, stable=True)
    picture, anchor, label, score = picture[order], anchor[order], label[order], score[order]
    group = picture * (classes - 1) + label
    rank = rank_in_group(group)
    best = rank < max_per_class
    picture, label, score, rank = picture[best], label[best], score[best], rank[best]
    boxes = boxes_ltrb[picture, anchor[best]]  # [M, 4]
    kept = keep_in_groups(boxes, group[best], rank, iou)
    picture, boxes, label, score = picture[kept], boxes[kept], label[kept] + 1, score[kept]
    results: List[Tuple[Tensor, Tensor, Tensor]] = []
    for i in range(pictures):
        mine = torch.where(picture == i)[0][:max_detections]
        results.append((boxes[mine], label[mine], score[mine]))
    return results


def rank_in_group(group: Tensor) -> Tensor:
    """group [M] of ints -> [M], how many earlier elements are of the same group."""
    ordered, order = group.sort(stable=True)
    position = torch.arange(group.shape[0], device=group.device)
    first = torch.searchsorted(ordered, ordered)  # where each element's group begins
    rank = torch.empty_like(position)
    rank[order] = position - first
    return rank


def keep_in_groups(boxes_ltrb: Tensor, group: Tensor, rank: Tensor, iou: float) -> Tensor:
    """Greedy suppression within each group: boxes [M, 4], group [M], rank in the group by score [M] -> kept [M], bool."""
    kept = torch.ones_like(group, dtype=torch.bool)
    if group.shape[0] == 0:
        return kept
    _, row = torch.unique(group, return_inverse=True)
    rows, columns = int(row.max()) + 1, int(rank.max()) + 1
    padded = boxes_ltrb.new_zeros(rows, columns, 4)
    padded[row, rank] = boxes_ltrb
    valid = torch.zeros(rows, columns, dtype=torch.bool, device=group.device)
    valid[row, rank] = True
    at_once = max(1, MAX_PAIRS // (columns * columns))
    parts = [
        greedy(padded[start : start + at_once], valid[start : start + at_once], iou)
        for start in range(0, rows, at_once)
    ]
    return torch.cat(parts)[row, rank]


def greedy(boxes_ltrb: Tensor, valid: Tensor, iou: float) -> Tensor:
    """Boxes [G, K, 4], best first, and which of them count [G, K] -> which of them stay [G, K].

    A box falls when a better one that stays overlaps it by `iou` or more. Starting from all, each pass settles at least
    the next box of every row, so it ends; it usually does after three or four.
    """
    over = (pairwise_iou(boxes_ltrb) >= iou).triu(diagonal=1)  # [G, K, K], over[g, i, j]: i is better and overlaps j
    stay = valid
    while True:
        following = valid & ~(over & stay[:, :, None]).any(dim=1)
        if torch.equal(following, stay):
            return stay
        stay = following


def pairwise_iou(boxes_ltrb: Tensor) -> Tensor:
    """Intersection over union of the boxes of each row: [G, K, 4] -> [G, K, K]; 0 between boxes without area."""
    left_top = torch.maximum(boxes_ltrb[:, :, None, :2], boxes_ltrb[:, None, :, :2])
    right_bottom = torch.minimum(boxes_ltrb[:, :, None, 2:], boxes_ltrb[:, None, :, 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(dim=-1)
    area = (boxes_ltrb[..., 2:] - boxes_ltrb[..., :2]).prod(dim=-1)
    return torch.nan_to_num(shared / (area[:, :, None] + area[:, None, :] - shared))


def detect(loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, max_detections: int = config.MAX_DETECTIONS):
    """Network outputs straight to `suppress`'s result, one (boxes_ltrb, labels, scores) a picture."""
    boxes_ltrb, scores = decode(loc, conf, boxes_cxcywh)
    return suppress(boxes_ltrb, scores, max_detections=max_detections)
