"""Detections from the network's outputs: non-maximum suppression (NMS) as in the reference, on whole batches.

Two functions give the same result. `detect_fixed` has steps of constant size for a limited number of candidates: a CUDA
graph can hold them, and they never wait for the device. It reports of each picture whether its result is complete.
`detect_exact` takes any number of candidates, and waits for the device several times. `detect_batch` calls the first,
and the second for those pictures that need it.

All functions work on any device, do not write to their arguments, and can be scripted.
"""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.model.boxes import box_iou_or_nan, decode_boxes, decode_offsets, suppress

PaddedDetections = Tuple[Tensor, Tensor, Tensor, Tensor]
"""boxes_xyxy [N, K, 4], labels [N, K] in 1..C-1, scores [N, K], counts [N]; best first, zeros after the count."""


def detect_batch(
    loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, max_detections: int = config.MAX_DETECTIONS
) -> PaddedDetections:
    """Decode the network's outputs and suppress overlapping boxes.

    Candidates of a class are the boxes with a score > 0.05, at most the best 200. A candidate is kept if its IoU with
    every better kept one of its class is < 0.5. Of the kept ones of all classes the best are returned.

    It waits for the device once, and again only if the result of a picture is not complete after the fixed steps.

    Args:
        loc: Offsets of the default boxes [N, 4, A].
        conf: Logits of the classes [N, C, A], the background first.
        boxes_cxcywh: The default boxes [A, 4].
        max_detections: The largest number K of detections of one picture.

    Returns:
        boxes_xyxy [N, K, 4], labels [N, K] in 1..C-1, scores [N, K], best first, and counts [N]. Rows after a picture's
        count are zeros.
    """
    packed = detect_fixed(loc, conf, boxes_cxcywh, max_detections)
    if bool((packed[:, max_detections, 1] == 0).any()):
        packed = detect_incomplete(packed, loc, conf, boxes_cxcywh)
    return packed[:, :-1, :4], packed[:, :-1, 4].long(), packed[:, :-1, 5], packed[:, max_detections, 0].long()


def detect(
    loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, max_detections: int = config.MAX_DETECTIONS
) -> List[Tuple[Tensor, Tensor, Tensor]]:
    """Decode and suppress as `detect_batch` does, without the padding.

    Returns:
        (boxes_xyxy [K, 4], labels [K], scores [K]) of each picture, best first.
    """
    boxes_xyxy, labels, scores, counts = detect_batch(loc, conf, boxes_cxcywh, max_detections)
    return [(boxes_xyxy[i, :k], labels[i, :k], scores[i, :k]) for i, k in enumerate(counts.tolist())]


def detect_incomplete(
    packed: Tensor, loc: Tensor, conf: Tensor, boxes_cxcywh: Tensor, iou: float = config.NMS_IOU
) -> Tensor:
    """Detect again in the pictures whose result is not complete: from the best candidates, then by the exact way.

    Args:
        packed: What `detect_fixed` returned for the other arguments, among them `iou`.

    Returns:
        The same, complete for every picture.
    """
    max_detections = packed.shape[1] - 1
    missing = torch.where(packed[:, max_detections, 1] == 0)[0]
    loc, conf = loc[missing], conf[missing]
    again = detect_fixed(loc, conf, boxes_cxcywh, max_detections, use_all=False, iou=iou)
    rest = torch.where(again[:, max_detections, 1] == 0)[0]
    if rest.shape[0] > 0:
        again = again.index_copy(0, rest, detect_exact(loc[rest], conf[rest], boxes_cxcywh, max_detections, iou))
    return packed.index_copy(0, missing, again)


def detect_fixed(
    loc: Tensor,
    conf: Tensor,
    boxes_cxcywh: Tensor,
    max_detections: int = config.MAX_DETECTIONS,
    use_all: bool = True,
    candidates: int = config.NMS_CANDIDATES,
    anchors: int = config.NMS_ANCHORS,
    passes: int = config.NMS_PASSES,
    iou: float = config.NMS_IOU,
) -> Tensor:
    """Decode and suppress at most `candidates` of each picture in steps of constant size.

    A picture's result is complete, that is equal to that of `detect_exact`, if the last pass of suppression changed
    nothing, and no candidate was left out or `max_detections` are kept that are better than any left out.

    Args:
        loc, conf, boxes_cxcywh, max_detections: As in `detect_batch`.
        use_all: Whether to take all candidates, which is fast, and complete only if they are few: at most
            `candidates`, at no more than `anchors` default boxes. Otherwise the best `candidates` are taken.
        candidates: The largest number of candidates of one picture.
        anchors: The largest number of default boxes with candidates, for `use_all`.
        passes: The number of passes of suppression (see `_keep_in_passes`).
        iou: As of `nms`.

    Returns:
        Packed detections [N, K + 1, 6]. A row is a box's xyxy, its label and its score; the last row of a picture is
        (count, complete, 0, 0, 0, 0).
    """
    if use_all:
        scores, labels, chosen, left_out = _all_candidates(conf, candidates, anchors)
    else:
        scores, labels, chosen, left_out = _best_candidates(conf, candidates)
    offsets = loc.gather(2, chosen[:, None].expand(-1, 4, -1)).transpose(1, 2)  # [N, P, 4]
    boxes_xyxy = decode_offsets(offsets.float(), boxes_cxcywh[chosen])
    keep, converged = _keep_in_passes(boxes_xyxy, labels, scores, passes, iou)
    position = keep.cumsum(dim=1)  # from 1
    complete = converged & (left_out[:, 0] == 0)
    if not use_all:
        better = (keep & (scores > left_out)).sum(dim=1)
        complete = complete | (converged & (better >= max_detections))
    # Each kept one goes to its place; the others, as zeros, to the last row, where the count is written over them.
    slot = torch.where(keep, position - 1, max_detections).clamp(max=max_detections)
    rows = torch.cat([boxes_xyxy, labels[..., None].to(boxes_xyxy), scores[..., None]], dim=2)  # [N, P, 6]
    rows = torch.where((slot < max_detections)[..., None], rows, 0.0)
    packed = rows.new_zeros(rows.shape[0], max_detections + 1, 6)
    packed = packed.scatter(1, slot[..., None].expand(-1, -1, 6), rows)
    packed[:, max_detections, 0] = position[:, -1].clamp(max=max_detections)
    packed[:, max_detections, 1] = complete
    return packed


def _all_candidates(conf: Tensor, count: int, anchors: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """All candidates of each picture, if they are at most `count` and at no more than `anchors` default boxes.

    conf [N, C, A] -> scores [N, P] > 0.05, best first and then zeros, labels [N, P], their default boxes [N, P], and
    left_out [N, 1]: 0, or 1 if there are more. A class's score is at most the sigmoid of how far its logit lies above
    the background's, which excludes most default boxes without a softmax.
    """
    margin = conf[:, 1:].amax(dim=1).float() - conf[:, 0].float()  # [N, A]
    chosen, near = _first_true(margin > config.MIN_MARGIN, min(anchors, conf.shape[2]))  # [N, B], [N, 1]
    width = chosen.shape[1]
    rows = conf.transpose(1, 2).gather(1, chosen[:, :, None].expand(-1, -1, conf.shape[1]))
    scores = rows.float().softmax(dim=2)  # [N, B, C]: softmax is fastest over what is contiguous
    used = torch.arange(width, device=conf.device) < near  # [N, B]
    index, found = _first_true(((scores[:, :, 1:] > config.MIN_SCORE) & used[:, :, None]).flatten(1), count)
    anchor = torch.div(index, conf.shape[1] - 1, rounding_mode="floor")  # [N, P], of those chosen
    scores = scores.flatten(1).gather(1, index + anchor + 1)  # Each row has the background too.
    scores = torch.where(torch.arange(count, device=conf.device) < found, scores, 0.0)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    index, anchor = index.gather(1, order), anchor.gather(1, order)
    left_out = ((near > width) | (found > count)).to(scores)
    return scores, torch.remainder(index, conf.shape[1] - 1) + 1, chosen.gather(1, anchor), left_out


def _first_true(mask: Tensor, count: int) -> Tuple[Tensor, Tensor]:
    """mask [N, M] -> the indices of its first `count` true values [N, count], then zeros, and their number [N, 1]."""
    position = mask.cumsum(dim=1)
    slot = (position * mask).clamp(max=count + 1)  # from 1; the false ones go to 0 and those too many to the last
    index = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape[0], -1)
    found = torch.zeros([mask.shape[0], count + 2], dtype=torch.long, device=mask.device).scatter(1, slot, index)
    return found[:, 1 : count + 1], position[:, -1:]


def _best_candidates(conf: Tensor, count: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best `count` candidates of each picture.

    As `_all_candidates`, but left_out is a score that no candidate left out is above, or 0 if none is left out.
    """
    scores = torch.threshold(conf.float().softmax(dim=1)[:, 1:], config.MIN_SCORE, 0.0).flatten(1)  # [N, (C - 1) A]
    total = scores.shape[1]
    scores, index = scores.topk(min(count, total), dim=1)  # [N, P]
    labels = torch.div(index, conf.shape[2], rounding_mode="floor") + 1
    left_out = scores[:, -1:] if count < total else torch.zeros_like(scores[:, -1:])
    return scores, labels, torch.remainder(index, conf.shape[2]), left_out


def _keep_in_passes(
    boxes_xyxy: Tensor, labels: Tensor, scores: Tensor, passes: int, iou: float
) -> Tuple[Tensor, Tensor]:
    """Candidates [N, P], best first -> which are kept after `passes` of suppression [N, P], and if they converged [N].

    The steps are those of `suppress`. Here each pass is a matrix product, which counts the better kept boxes that
    overlap.
    """
    # [N, P, P], better[n, i, j]: i is of the class of j and before it
    better = (labels[:, :, None] == labels[:, None, :]).triu(diagonal=1)
    dtype = torch.float16 if boxes_xyxy.is_cuda else torch.float32  # Counts to 2,048 are exact in either.
    one = torch.ones_like(scores, dtype=dtype)[:, None]  # [N, 1, P]
    rank = torch.bmm(one, better.to(dtype))[:, 0]  # in its class
    valid = (scores > 0) & (rank < config.MAX_PER_CLASS)
    over = ((box_iou_or_nan(boxes_xyxy) >= iou) & better).to(dtype)
    start = valid.to(dtype)[:, None]  # [N, 1, P]
    before, keep = start, start
    for _ in range(passes):
        before = keep
        keep = torch.baddbmm(start, before, over, alpha=-1.0).clamp(min=0)
    return keep[:, 0] > 0, (keep == before)[:, 0].all(dim=1)


def detect_exact(
    loc: Tensor,
    conf: Tensor,
    boxes_cxcywh: Tensor,
    max_detections: int = config.MAX_DETECTIONS,
    iou: float = config.NMS_IOU,
) -> Tensor:
    """Decode and suppress with `nms`, whatever the number of candidates.

    Returns:
        Packed detections [N, K + 1, 6], as those of `detect_fixed`, and complete.
    """
    boxes_xyxy, scores = decode_boxes(loc, conf, boxes_cxcywh)
    found = nms(boxes_xyxy, scores, iou=iou, max_detections=max_detections)
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
    """Suppress the overlapping boxes of each class of each picture (greedy non-maximum suppression).

    Args:
        boxes_xyxy: Boxes [N, A, 4].
        scores: Scores [N, A, C], 0..1, the background first.
        min_score: Candidates of a class are the boxes with a higher score.
        iou: A candidate is kept if its IoU with every better kept one of its class is lower.
        max_per_class: The largest number of candidates of a class; the best are taken.
        max_detections: The largest number K of detections of a picture; the best of all classes are taken.

    Returns:
        (boxes_xyxy [K, 4], labels [K] in 1..C-1, scores [K]) of each picture, best first; of equal scores the earlier
        box.
    """
    pictures, classes = scores.shape[0], scores.shape[2]
    picture, anchor, label = torch.where(scores[..., 1:] > min_score)  # [M] each
    score = scores[picture, anchor, label + 1]
    order = score.argsort(descending=True, stable=True)
    picture, anchor, label, score = picture[order], anchor[order], label[order], score[order]
    group = picture * (classes - 1) + label
    rank = _rank_in_group(group)
    best = rank < max_per_class
    picture, label, score, rank = picture[best], label[best], score[best], rank[best]
    boxes = boxes_xyxy[picture, anchor[best]]  # [M, 4]
    keep = _keep_in_groups(boxes, group[best], rank, iou)
    picture, boxes, label, score = picture[keep], boxes[keep], label[keep] + 1, score[keep]
    results: List[Tuple[Tensor, Tensor, Tensor]] = []
    for i in range(pictures):
        own = torch.where(picture == i)[0][:max_detections]
        results.append((boxes[own], label[own], score[own]))
    return results


def _rank_in_group(group: Tensor) -> Tensor:
    """group [M] of ints -> [M], how many earlier elements are of the same group."""
    ordered, order = group.sort(stable=True)
    position = torch.arange(group.shape[0], device=group.device)
    first = torch.searchsorted(ordered, ordered)  # where each element's group begins
    rank = torch.empty_like(position)
    rank[order] = position - first
    return rank


def _keep_in_groups(boxes_xyxy: Tensor, group: Tensor, rank: Tensor, iou: float) -> Tensor:
    """Boxes [M, 4], their group [M] and their rank in it by score [M] -> which are kept in their group [M]."""
    keep = torch.ones_like(group, dtype=torch.bool)
    if group.shape[0] == 0:
        return keep
    _, row = torch.unique(group, return_inverse=True)
    rows, columns = int(row.max()) + 1, int(rank.max()) + 1
    padded = boxes_xyxy.new_zeros(rows, columns, 4)
    padded[row, rank] = boxes_xyxy
    valid = torch.zeros(rows, columns, dtype=torch.bool, device=group.device)
    valid[row, rank] = True
    at_once = max(1, config.NMS_PAIRS // (columns * columns))
    parts: List[Tensor] = []
    for start in range(0, rows, at_once):
        parts.append(suppress(padded[start : start + at_once], valid[start : start + at_once], iou))
    return torch.cat(parts)[row, rank]
