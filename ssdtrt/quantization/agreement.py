"""How well the detections of two networks agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssdtrt.artifact.quantization import Agreement
from ssdtrt.images.tensors import normalize
from ssdtrt.model.boxes import box_iou, default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.progress import Progress, silent, tracked

CONFIDENT = 0.3
_THRESHOLDS = [0.5 + 0.05 * number for number in range(10)]  # COCO's

Detections = Sequence["tuple[Tensor, Tensor, Tensor]"]
"""(boxes xyxy [K, 4], labels [K], scores [K]) of each picture, on the CPU."""

Network = Callable[[Tensor], "tuple[Tensor, Tensor]"]
"""images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A])"""


def run(
    network: Network,
    pictures: Tensor,
    preprocess: str,
    device: torch.device,
    batch_size: int,
    progress: Progress = silent,
    step: str = "detecting",
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the detections of a network in pictures, uint8 [N, 3, 300, 300], on the CPU."""
    boxes, found = default_boxes().to(device), []
    with torch.no_grad(), tf32_disabled():
        for part in tracked(pictures.split(batch_size), progress, step, "batch"):
            loc, conf = network(normalize(part.to(device), preprocess))
            found += detect(loc.float(), conf.float(), boxes)
    return [(boxes.cpu(), labels.cpu(), scores.cpu()) for boxes, labels, scores in found]


def measure_agreement(reference: Detections, found: Detections) -> Agreement:
    """Look for each confident detection of either side among all of the other side.

    Args:
        reference: The detections of FP32, one entry for each picture.
        found: Those of the other network.
    """
    overlaps, changes = [], []
    for pair in zip(reference, found):
        for one, other in (pair, pair[::-1]):
            iou, change = _best(one, other)
            overlaps.append(iou)
            changes.append(change[iou >= _THRESHOLDS[0]])
    best, change = torch.cat(overlaps), torch.cat(changes)
    rate = float(torch.stack([(best >= limit).float().mean() for limit in _THRESHOLDS]).mean()) if len(best) else 0.0
    return Agreement(len(reference), len(best), rate, float(change.mean()) if len(change) else None)


def _best(one: tuple[Tensor, Tensor, Tensor], other: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return, for each confident detection of `one`, its IoU with the best of the same class in `other`, and how far
    their scores are apart; 0 where there is none."""
    sure = one[2] >= CONFIDENT
    boxes, labels, scores = (part[sure] for part in one)
    if not len(boxes) or not len(other[0]):
        return torch.zeros(len(boxes)), torch.zeros(len(boxes))
    overlap = box_iou(torch.cat([boxes, other[0]])[None])[0][: len(boxes), len(boxes) :]
    overlap = torch.where(labels[:, None] == other[1][None], overlap, torch.zeros_like(overlap))
    iou, which = overlap.max(1)
    return iou, (scores - other[2][which]).abs()
