"""Whether two runners say the same on the same pictures: first their tensors, then the detections they lead to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.baseline import InPrecision
from ssdtrt.artifact.capabilities import PRECISIONS
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.errors import ParityError
from ssdtrt.model.boxes import box_iou, default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.system.devices import tf32_disabled

MATCH_IOU = 0.5

Runner = Callable[[Tensor], "tuple[Tensor, Tensor]"]
"""images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A])"""


def compare(
    engine: Runner,
    reference: torch.nn.Module,
    images: Tensor,
    *,
    precision: str,
    batch_sizes: Sequence[int],
) -> ParityReport:
    """The engine against the FP32 eager model on `images` [N, 3, 300, 300], run in batches of each of `batch_sizes`.

    The distances are the largest over the batch sizes. Raises ParityError when there is no picture.
    """
    if not len(images) or not batch_sizes:
        raise ParityError("There is nothing to compare: give at least one picture.")
    with torch.no_grad(), tf32_disabled():
        expected = run(reference, images, max(batch_sizes))
        answers = [run(engine, images, size) for size in batch_sizes]
        floor, wanted = 0.0, PRECISIONS[precision]
        if wanted.floor_share:
            eager, few = InPrecision(copy.deepcopy(reference), precision, channels_last=True), config.FLOOR_IMAGES
            distances = map(relative_l2, run(eager, images[:few], max(batch_sizes)), [part[:few] for part in expected])
            floor = wanted.floor_share * min(distances)
        outputs = tuple(
            worst_distance(name, [answer[i] for answer in answers], expected[i])
            for i, name in enumerate(("loc", "conf"))
        )
        detections = compare_detections(detections_of(expected), detections_of(answers[-1]))
    return ParityReport(precision, len(images), tuple(batch_sizes), wanted.bound, floor, outputs, detections)


def run(runner: Runner, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Runs `images` in batches and joins the outputs in float32: (loc [N, 4, A], conf [N, C, A])."""
    answers = [runner(batch) for batch in images.split(batch_size)]
    locs, confs = zip(*answers)
    return torch.cat(locs).float(), torch.cat(confs).float()


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||, in float64; NaN when either holds NaN or Inf."""
    if not (found.isfinite().all() and expected.isfinite().all()):
        return float("nan")
    difference, size = (found.double() - expected.double()).norm(), expected.double().norm()
    return float(difference / size) if size > 0 else float(difference)


def worst_distance(name: str, answers: Sequence[Tensor], expected: Tensor) -> OutputDistance:
    """The distance of the answer that is farthest from `expected`."""
    if not (expected.isfinite().all() and all(bool(answer.isfinite().all()) for answer in answers)):
        return OutputDistance(name, None, None, finite=False)
    distances = [relative_l2(answer, expected) for answer in answers]
    return OutputDistance(name, max(distances), max(float((answer - expected).abs().max()) for answer in answers))


def detections_of(outputs: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The detections of every picture, on the CPU; none where the outputs hold NaN or Inf."""
    loc, conf = outputs
    if not (loc.isfinite().all() and conf.isfinite().all()):
        return [(loc.new_zeros(0, 4).cpu(), torch.zeros(0, dtype=torch.long), loc.new_zeros(0).cpu())] * len(loc)
    boxes = default_boxes().to(loc)
    parts = [detect(loc[i : i + 8], conf[i : i + 8], boxes) for i in range(0, len(loc), 8)]
    return [(b.cpu(), labels.cpu(), scores.cpu()) for part in parts for b, labels, scores in part]


def compare_detections(reference: Sequence, engine: Sequence) -> DetectionAgreement:
    """Two lists of (boxes_xyxy, labels, scores), a picture each, matched one to one, the engine's best scores first."""
    counts = [sum(len(scores) for _, _, scores in side) for side in (reference, engine)]
    changes = [change for pair in zip(reference, engine) for change in match(*pair)]
    return DetectionAgreement(counts[0], counts[1], len(changes), max(changes) if changes else None)


def match(reference: tuple[Tensor, Tensor, Tensor], engine: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    """The score change of every matched pair of one picture: same class, IoU >= 0.5, each used once, best IoU first."""
    (boxes, labels, scores), (engine_boxes, engine_labels, engine_scores) = reference, engine
    if not len(scores) or not len(engine_scores):
        return []
    overlap = box_iou(torch.cat([engine_boxes, boxes])[None])[0][: len(engine_boxes), len(engine_boxes) :]
    overlap = torch.where(engine_labels[:, None] == labels[None], overlap, torch.zeros_like(overlap))
    changes = []
    for i in range(len(engine_scores)):
        best = int(overlap[i].argmax())
        if overlap[i, best] >= MATCH_IOU:
            overlap[:, best] = 0
            changes.append(abs(float(engine_scores[i] - scores[best])))
    return changes
