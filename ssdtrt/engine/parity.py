"""Compare an engine with the FP32 model on the same images: their outputs, and the detections decoded from them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.artifact.quantization import Quantization
from ssdtrt.errors import ParityError
from ssdtrt.model.boxes import box_iou, default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.model.ssd import SSD300
from ssdtrt.rewriting.quantized import quantized_model
from ssdtrt.runners.baseline import InPrecision
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.progress import Progress, ProgressBar, silent

_COMPARING = "comparing with FP32 eager"
_MATCH_IOU = 0.5

Runner = Callable[[Tensor], "tuple[Tensor, Tensor]"]
"""images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A])"""


def compare(
    engine: Runner,
    reference: torch.nn.Module,
    images: Tensor,
    *,
    precision: str,
    batch_sizes: Sequence[int],
    quantization: Quantization | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Compare an engine with the FP32 eager model.

    Args:
        engine: The engine.
        reference: The FP32 eager model, on the device of the images.
        images: Normalized images [N, 3, 300, 300].
        precision: The precision of the engine, a name of `PRECISIONS`.
        batch_sizes: The batch sizes in which the engine runs all of the images.
        quantization: How an INT8 engine is quantized.
        progress: Called with lines about how many images have run.

    Returns:
        The report. Its distances are the largest over the batch sizes, and its detections are those of the last one.

    Raises:
        ParityError: If there are no images, or no batch sizes.
    """
    bar = comparison_bar(progress, images, batch_sizes)
    found = run_in_sizes(engine, images, batch_sizes, bar)
    return compare_outputs(found, reference, images, bar, precision=precision, quantization=quantization)


def comparison_bar(progress: Progress, images: Tensor, batch_sizes: Sequence[int]) -> ProgressBar:
    """Return a progress bar for `run_in_sizes` and `compare_outputs`, in which the engine and FP32 eager run."""
    progress(_COMPARING)
    return ProgressBar(progress, _COMPARING, len(images) * (len(batch_sizes) + 1))


def run_in_sizes(
    engine: Runner, images: Tensor, batch_sizes: Sequence[int], bar: ProgressBar
) -> dict[int, tuple[Tensor, Tensor]]:
    """Run all of the images in batches of each size, and return the outputs by size.

    Raises:
        ParityError: If there are no images, or no batch sizes.
    """
    if not len(images) or not batch_sizes:
        raise ParityError("There is nothing to compare: give at least one picture.")
    with torch.no_grad(), tf32_disabled():
        return {size: _run_in_batches(engine, images, size, bar) for size in batch_sizes}


def compare_outputs(
    by_size: Mapping[int, tuple[Tensor, Tensor]],
    reference: torch.nn.Module,
    images: Tensor,
    bar: ProgressBar,
    *,
    precision: str,
    quantization: Quantization | None = None,
) -> ParityReport:
    """Compare the outputs of an engine, from `run_in_sizes`, with the FP32 eager model; see `compare`."""
    batch_sizes, found = tuple(by_size), list(by_size.values())
    with torch.no_grad(), tf32_disabled():
        expected = _run_in_batches(reference, images, max(batch_sizes), bar)
        outputs = tuple(
            _worst_distance(name, [output[i] for output in found], expected[i])
            for i, name in enumerate(("loc", "conf"))
        )
        detections = _compare_detections(_decode(expected), _decode(found[-1]))
        floor, bound = _limits(reference, images, expected, precision, max(batch_sizes), quantization)
    return ParityReport(precision, len(images), batch_sizes, bound, floor, outputs, detections)


def _limits(
    reference: torch.nn.Module,
    images: Tensor,
    expected: tuple[Tensor, Tensor],
    precision: str,
    batch_size: int,
    quantization: Quantization | None,
) -> tuple[float, float]:
    """Return the smallest and the largest distance that an engine may have, from that of eager PyTorch."""
    limits, few = PRECISIONS[precision], config.FLOOR_IMAGES
    if not limits.floor_share:
        return 0.0, limits.bound
    eager: torch.nn.Module
    if quantization is None:
        eager = InPrecision(copy.deepcopy(reference), precision, channels_last=True)
    else:
        assert isinstance(reference, SSD300)
        eager = quantized_model(reference, quantization)
    found = _run_in_batches(eager, images[:few], batch_size)
    distances = [relative_l2(found[i], expected[i][:few]) for i in range(2)]
    distances = [distance for distance in distances if math.isfinite(distance)] or [0.0]  # FP16 may overflow.
    return limits.floor_share * min(distances), max(limits.bound, limits.bound_share * max(distances))


def _run_in_batches(
    runner: Runner, images: Tensor, batch_size: int, bar: ProgressBar | None = None
) -> tuple[Tensor, Tensor]:
    """Run images in batches, and return the concatenated float32 outputs (loc [N, 4, A], conf [N, C, A])."""
    outputs = []
    for batch in images.split(batch_size):
        outputs.append(runner(batch))
        if bar is not None:
            bar.add(len(batch))
    locs, confs = zip(*outputs)
    return torch.cat(locs).float(), torch.cat(confs).float()


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """Return ||found - expected|| / ||expected||, computed in float64.

    For a zero `expected` that is ||found - expected||; for NaN or infinite values in either it is NaN.
    """
    if not (found.isfinite().all() and expected.isfinite().all()):
        return float("nan")
    difference, size = (found.double() - expected.double()).norm(), expected.double().norm()
    return float(difference / size) if size > 0 else float(difference)


def _worst_distance(name: str, outputs: Sequence[Tensor], expected: Tensor) -> OutputDistance:
    """Return the largest distances of the outputs to the expected one."""
    if not (expected.isfinite().all() and all(bool(output.isfinite().all()) for output in outputs)):
        return OutputDistance(name, None, None, finite=False)
    distances = [relative_l2(output, expected) for output in outputs]
    return OutputDistance(name, max(distances), max(float((output - expected).abs().max()) for output in outputs))


def _decode(outputs: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return (boxes, labels, scores) of each image, on the CPU; empty if there are NaN or infinite values."""
    loc, conf = outputs
    if not (loc.isfinite().all() and conf.isfinite().all()):
        return [(loc.new_zeros(0, 4).cpu(), torch.zeros(0, dtype=torch.long), loc.new_zeros(0).cpu())] * len(loc)
    boxes = default_boxes().to(loc)
    parts = [detect(loc[i : i + 8], conf[i : i + 8], boxes) for i in range(0, len(loc), 8)]
    return [(b.cpu(), labels.cpu(), scores.cpu()) for part in parts for b, labels, scores in part]


def _compare_detections(
    reference: Sequence[tuple[Tensor, Tensor, Tensor]], engine: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> DetectionAgreement:
    """Match the detections of each image, given as (boxes, labels, scores)."""
    counts = [sum(len(scores) for _, _, scores in side) for side in (reference, engine)]
    changes = [change for pair in zip(reference, engine) for change in _match(*pair)]
    return DetectionAgreement(counts[0], counts[1], len(changes), max(changes) if changes else None)


def _match(reference: tuple[Tensor, Tensor, Tensor], engine: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    """Return the score difference of each matched pair of one image.

    Each detection of the engine, in descending order of the scores, is matched with the unused one of the reference
    that has the same class and the largest IoU, if that is at least 0.5.
    """
    (boxes, labels, scores), (engine_boxes, engine_labels, engine_scores) = reference, engine
    if not len(scores) or not len(engine_scores):
        return []
    overlap = box_iou(torch.cat([engine_boxes, boxes])[None])[0][: len(engine_boxes), len(engine_boxes) :]
    overlap = torch.where(engine_labels[:, None] == labels[None], overlap, torch.zeros_like(overlap))
    changes = []
    for i in range(len(engine_scores)):
        best = int(overlap[i].argmax())
        if overlap[i, best] >= _MATCH_IOU:
            overlap[:, best] = 0
            changes.append(abs(float(engine_scores[i] - scores[best])))
    return changes
