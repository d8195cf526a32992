"""SSD's loss: which default box is for which object, what the network should say of it, and how far it is from that."""

import scenes
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from ssdtrt import config
from ssdtrt.model.boxes import to_xyxy

MATCH_IOU = 0.5
NEGATIVES = 3  # for each matched default box
SMOOTH_L1_BETA = 1 / 9  # below the 1 of the paper: small errors weigh more, which tight boxes need


def pair_iou(boxes_xyxy: Tensor, others_ltrb: Tensor) -> Tensor:
    """Boxes [B, K, 4] with others [A, 4] -> IoU [B, K, A]."""
    return box_iou(boxes_xyxy.reshape(-1, 4), others_ltrb).view(*boxes_xyxy.shape[:2], -1)


def match(boxes_xyxy: Tensor, labels: Tensor, defaults: Tensor) -> tuple[Tensor, Tensor]:
    """Which object each default box is for: boxes [B, K, 4], labels [B, K] (0: none), defaults cxcywh [A, 4].

    Returns [B, A], an index into K, and [B, A], its label or 0 for the background. A default box is for the object that it
    overlaps most, by MATCH_IOU or more; but first each object takes one default box of its own, the pair of the
    greatest overlap choosing first.
    """
    count, places = labels.shape
    present = labels > 0
    overlap = torch.where(present[:, :, None], pair_iou(boxes_xyxy, to_xyxy(defaults)), -1)  # [B, K, A]
    best, which = overlap.max(1)  # [B, A]
    taken = torch.where(best >= MATCH_IOU, labels.gather(1, which), 0)
    picture = torch.arange(count, device=labels.device)
    for _ in range(places):
        pair = overlap.flatten(1).argmax(1)  # [B]
        row, column = pair // overlap.shape[2], pair % overlap.shape[2]
        mine = overlap[picture, row, column] >= 0  # else no object is left
        which[picture, column] = torch.where(mine, row, which[picture, column])
        taken[picture, column] = torch.where(mine, labels[picture, row], taken[picture, column])
        overlap[picture, row] = -1
        overlap[picture, :, column] = -1
    return which, taken


def encode(boxes_xyxy: Tensor, defaults: Tensor) -> Tensor:
    """The location outputs that `ssdtrt.model.decode` turns into these boxes: [B, A, 4], defaults [A, 4] -> [B, 4, A]."""
    size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=1e-6)
    center = (boxes_xyxy[..., 2:] + boxes_xyxy[..., :2]) / 2
    moved = (center - defaults[:, :2]) / defaults[:, 2:] / config.CENTER_VARIANCE
    grown = (size / defaults[:, 2:]).log() / config.SIZE_VARIANCE
    return torch.cat([moved, grown], dim=-1).transpose(1, 2)


def detection_losses(loc: Tensor, conf: Tensor, truth: scenes.Scenes, defaults: Tensor) -> tuple[Tensor, Tensor]:
    """The location loss and the class loss of a batch, each for one matched default box (SSD, equations 1 to 3)."""
    which, taken = match(truth.boxes_xyxy, truth.labels, defaults)  # [B, A] each
    wanted = encode(truth.boxes_xyxy.gather(1, which[..., None].expand(-1, -1, 4)), defaults)  # [B, 4, A]
    positive = taken > 0
    matched = positive.sum()
    error = functional.smooth_l1_loss(loc.float(), wanted, reduction="none", beta=SMOOTH_L1_BETA).sum(1)  # [B, A]
    surprise = functional.cross_entropy(conf.float(), taken, reduction="none")  # [B, A]
    with torch.no_grad():  # of the background, the NEGATIVES times as many boxes that are most wrong
        negative = torch.where(positive, -1.0, surprise)
        last = (NEGATIVES * positive.sum(1, keepdim=True)).clamp(1, positive.shape[1]) - 1
        hardest = negative.sort(dim=1, descending=True).values.gather(1, last)  # [B, 1]
        counted = positive | (negative >= hardest) & (negative > 0)
    return torch.where(positive, error, 0).sum() / matched, torch.where(counted, surprise, 0).sum() / matched
