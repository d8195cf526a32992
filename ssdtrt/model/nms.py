"""From the network's outputs to detections: non-maximum suppression as the reference defines it, on whole batches.

Two ways to the same result. The fixed one takes a picture's candidates, if they are few, or the best of them through steps
of constant size, without asking the device for a number, and says of each picture whether that settled it. The exact
one takes any candidates and any overlap, and asks several times. `detect_batch` is the first, and the second where it is
needed. All of it can be scripted, and nothing writes to an argument.
"""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.model.boxes import box_iou, decode_boxes, overlap, shift

Detections = Tuple[Tensor, Tensor, Tensor, Tensor]
"""boxes_xyxy [N, K, 4], labels [N, K] in 1..C-1, scores [N, K] best first, counts [N]; zeros after each picture's count."""


def detect_batch(
    loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, max_detections: int = config.MAX_DETECTIONS
) -> Detections:
    """Network outputs to detections: loc [N, 4, A], conf [N, C, A] logits, default boxes [A, 4].

    For each class: score > 0.05, the best 200, and of those a box stays while its IoU with every better one that stays
    is < 0.5; then the best `max_detections` of all classes. Waits for the device once, and again only where there are
    pictures that the fixed way does not settle.
    """
    packed = detect_fixed(loc, conf, boxes_cxcywh, max_detections)
    if bool((packed[:, max_detections, 1] == 0).any()):
        packed = settle(packed, loc, conf, boxes_cxcywh)
    return packed[:, :-1, :4], packed[:, :-1, 4].long(), packed[:, :-1, 5], packed[:, max_detections, 0].long()


def detect(
    loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, max_detections: int = config.MAX_DETECTIONS
) -> List[Tuple[Tensor, Tensor, Tensor]]:
    """`detect_batch` without the padding: for each picture (boxes_xyxy [K, 4], labels [K], scores [K]), best first."""
    boxes_xyxy, labels, scores, counts = detect_batch(loc, conf, boxes_cxcywh, max_detections)
    return [(boxes_xyxy[i, :k], labels[i, :k], scores[i, :k]) for i, k in enumerate(counts.tolist())]


def settle(packed: Tensor, loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor) -> Tensor:
    """What `detect_fixed` packed, with the pictures that it did not settle done again: from the best, then exactly."""
    max_detections = packed.shape[1] - 1
    missed = torch.where(packed[:, max_detections, 1] == 0)[0]
    loc, conf = loc[missed], conf[missed]
    again = detect_fixed(loc, conf, boxes_cxcywh, max_detections, few=False)
    rest = torch.where(again[:, max_detections, 1] == 0)[0]
    if rest.shape[0] > 0:
        again = again.index_copy(0, rest, detect_exact(loc[rest], conf[rest], boxes_cxcywh, max_detections))
    return packed.index_copy(0, missed, again)


def detect_fixed(
    loc: Tensor,
    conf: Tensor,
    boxes_cxcywh: Tensor,
    max_detections: int = config.MAX_DETECTIONS,
    few: bool = True,
    candidates: int = config.NMS_CANDIDATES,
    anchors: int = config.NMS_ANCHORS,
    passes: int = config.NMS_PASSES,
) -> Tensor:
    """The detections from up to `candidates` of each picture, packed [N, K + 1, 6], in steps of constant size.

    With `few` from all candidates, where they are no more than that and at no more than `anchors`; else from the best.
    A row is a box's xyxy, its label and its score; the last one holds (count, settled, 0, ...). A picture is settled,
    that is `detect_exact` would say the same, when no candidate was left out, or when `max_detections` stay that are
    better than any left out; and when the last pass of suppression changed nothing.
    """
    if few:
        scores, labels, chosen, left_out = few_candidates(conf, candidates, anchors)
    else:
        scores, labels, chosen, left_out = best_candidates(conf, candidates)
    offsets = loc.gather(2, chosen[:, None].expand(-1, 4, -1)).transpose(1, 2)  # [N, P, 4]
    boxes_xyxy = shift(offsets.float(), boxes_cxcywh[chosen])
    stay, still = keep_in_passes(boxes_xyxy, labels, scores, passes)
    place = stay.cumsum(dim=1)
    settled = still & (left_out[:, 0] == 0)
    if not few:
        sure = (stay & (scores > left_out)).sum(dim=1)
        settled = settled | (still & (sure >= max_detections))
    # Each that stays goes to its place; the rest, as zeros, to the last row, where the count is written over them.
    slot = torch.where(stay, place - 1, max_detections).clamp(max=max_detections)
    rows = torch.cat([boxes_xyxy, labels[..., None].to(boxes_xyxy), scores[..., None]], dim=2)  # [N, P, 6]
    rows = torch.where((slot < max_detections)[..., None], rows, 0.0)
    packed = rows.new_zeros(rows.shape[0], max_detections + 1, 6)
    packed = packed.scatter(1, slot[..., None].expand(-1, -1, 6), rows)
    packed[:, max_detections, 0] = place[:, -1].clamp(max=max_detections)
    packed[:, max_detections, 1] = settled
    return packed


def few_candidates(conf: Tensor, count: int, anchors: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """All candidates of each picture, where they are at most `count` and at no more than `anchors` anchors.

    conf [N, C, A] -> scores [N, P] > 0.05, best first and then zeros, labels [N, P], their anchors [N, P], and left_out
    [N, 1]: 0, or 1 where there are more than that. A class's score is at most the sigmoid of how far its logit lies
    above the background's, which rules most anchors out without a softmax.
    """
    margin = conf[:, 1:].amax(dim=1).float() - conf[:, 0].float()  # [N, A]
    chosen, near = first_true(margin > config.LOWEST_MARGIN, min(anchors, conf.shape[2]))  # [N, B], [N, 1]
    width = chosen.shape[1]
    rows = conf.transpose(1, 2).gather(1, chosen[:, :, None].expand(-1, -1, conf.shape[1]))
    scores = rows.float().softmax(dim=2)  # [N, B, C]: softmax is fastest over what lies together
    there = torch.arange(width, device=conf.device) < near  # [N, B]
    index, found = first_true(((scores[:, :, 1:] > config.MIN_SCORE) & there[:, :, None]).flatten(1), count)
    anchor = torch.div(index, conf.shape[1] - 1, rounding_mode="floor")  # [N, P], of those chosen
    scores = scores.flatten(1).gather(1, index + anchor + 1)  # Each row has the background too.
    scores = torch.where(torch.arange(count, device=conf.device) < found, scores, 0.0)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    index, anchor = index.gather(1, order), anchor.gather(1, order)
    left_out = ((near > width) | (found > count)).to(scores)
    return scores, torch.remainder(index, conf.shape[1] - 1) + 1, chosen.gather(1, anchor), left_out


def first_true(mask: Tensor, count: int) -> Tuple[Tensor, Tensor]:
    """mask [N, M] -> where its first `count` true values are [N, count], zeros after those, and how many are true [N, 1]."""
    place = mask.cumsum(dim=1)
    slot = (place * mask).clamp(max=count + 1)  # from 1; the false ones go to 0 and those too many to the last
    every = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape[0], -1)
    found = torch.zeros([mask.shape[0], count + 2], dtype=torch.long, device=mask.device).scatter(1, slot, every)
    return found[:, 1 : count + 1], place[:, -1:]


def best_candidates(conf: Tensor, count: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best `count` candidates of each picture, whatever their number.

    As `few_candidates`, but left_out is a score that no candidate left out is above, or 0 when none is left out.
    """
    scores = torch.threshold(conf.float().softmax(dim=1)[:, 1:], config.MIN_SCORE, 0.0).flatten(1)  # [N, (C - 1) A]
    every = scores.shape[1]
    scores, index = scores.topk(min(count, every), dim=1)  # [N, P]
    labels = torch.div(index, conf.shape[2], rounding_mode="floor") + 1
    left_out = scores[:, -1:] if count < every else torch.zeros_like(scores[:, -1:])
    return scores, labels, torch.remainder(index, conf.shape[2]), left_out


def keep_in_passes(boxes_xyxy: Tensor, labels: Tensor, scores: Tensor, passes: int) -> Tuple[Tensor, Tensor]:
    """Which candidates [N, P], best first, stay after `passes` of suppression, and of each picture [N] whether that is all.

    See `greedy`; here each pass is a matrix product, which counts the better boxes that stay and overlap.
    """
    better = (labels[:, :, None] == labels[:, None, :]).triu(
        diagonal=1
    )  # [N, P, P], [n, i, j]: i is before j in its class
    dtype = torch.float16 if boxes_xyxy.is_cuda else torch.float32  # Counts to 2,048 are exact in either.
    one = torch.ones_like(scores, dtype=dtype)[:, None]  # [N, 1, P]
    rank = torch.bmm(one, better.to(dtype))[:, 0]  # among its class
    valid = (scores > 0) & (rank < config.MAX_PER_CLASS)
    over = ((overlap(boxes_xyxy) >= config.NMS_IOU) & better).to(dtype)
    start = valid.to(dtype)[:, None]  # [N, 1, P]
    before, stay = start, start
    for _ in range(passes):
        before = stay
        stay = torch.baddbmm(start, before, over, alpha=-1.0).clamp(min=0)
    return stay[:, 0] > 0, (stay == before)[:, 0].all(dim=1)


def detect_exact(
    loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, max_detections: int = config.MAX_DETECTIONS
) -> Tensor:
    """The detections by `nms`, whatever the candidates and however they overlap, packed as by `detect_fixed`."""
    boxes_xyxy, scores = decode_boxes(loc, conf, boxes_cxcywh)
    found = nms(boxes_xyxy, scores, max_detections=max_detections)
    packed = boxes_xyxy.new_zeros(len(found), max_detections + 1, 6)
    for i, (boxes_of_one, labels_of_one, scores_of_one) in enumerate(found):
        k = len(scores_of_one)
        packed[i, :k, :4] = boxes_of_one
        packed[i, :k, 4] = labels_of_one.to(packed.dtype)
        packed[i, :k, 5] = scores_of_one
        packed[i, max_detections, 0] = k
        packed[i, max_detections, 1] = 1
    return packed


def nms(
    boxes_xyxy: Tensor,
    scores: Tensor,
    min_score: float = config.MIN_SCORE,
    iou: float = config.NMS_IOU,
    max_per_class: int = config.MAX_PER_CLASS,
    max_detections: int = config.MAX_DETECTIONS,
) -> List[Tuple[Tensor, Tensor, Tensor]]:
    """Per-class non-maximum suppression of a batch.

    boxes_xyxy [N, A, 4], scores [N, A, C] with the background first -> for each picture (boxes_xyxy [K, 4],
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
    boxes = boxes_xyxy[picture, anchor[best]]  # [M, 4]
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


def keep_in_groups(boxes_xyxy: Tensor, group: Tensor, rank: Tensor, iou: float) -> Tensor:
    """Greedy suppression within each group: boxes [M, 4], group [M], rank in the group by score [M] -> kept [M], bool."""
    kept = torch.ones_like(group, dtype=torch.bool)
    if group.shape[0] == 0:
        return kept
    _, row = torch.unique(group, return_inverse=True)
    rows, columns = int(row.max()) + 1, int(rank.max()) + 1
    padded = boxes_xyxy.new_zeros(rows, columns, 4)
    padded[row, rank] = boxes_xyxy
    valid = torch.zeros(rows, columns, dtype=torch.bool, device=group.device)
    valid[row, rank] = True
    at_once = max(1, config.NMS_PAIRS // (columns * columns))
    parts: List[Tensor] = []
    for start in range(0, rows, at_once):
        parts.append(greedy(padded[start : start + at_once], valid[start : start + at_once], iou))
    return torch.cat(parts)[row, rank]


def greedy(boxes_xyxy: Tensor, valid: Tensor, iou: float) -> Tensor:
    """Boxes [G, K, 4], best first, and which of them count [G, K] -> which of them stay [G, K].

    A box falls when a better one that stays overlaps it by `iou` or more. Starting from all, each pass settles at least
    the next box of every row, so it ends; it usually does after three or four.
    """
    over = (box_iou(boxes_xyxy) >= iou).triu(diagonal=1)  # [G, K, K], over[g, i, j]: i is better and overlaps j
    before, stay = ~valid, valid
    while not torch.equal(stay, before):
        before = stay
        stay = valid & ~(over & before[:, :, None]).any(dim=1)
    return stay
