"""COCO's figures for boxes, computed by faster-coco-eval from detections and annotations."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.evaluation.annotations import Annotations, match_categories
from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport, EvalSettings
from ssdtrt.sinks.json_sinks import CocoId, in_categories, to_xywh
from ssdtrt.system.versions import installed, pip_install


class PictureDetections(NamedTuple):
    """The detections of one picture.

    Attributes:
        image_id: The picture's id in the annotations.
        xyxy: Boxes [K, 4] as (left, top, right, bottom) in the picture's pixels.
        class_id: Classes [K] in 1..C-1.
        confidence: Scores [K], 0..1.
    """

    image_id: CocoId
    xyxy: np.ndarray
    class_id: np.ndarray
    confidence: np.ndarray


def evaluate_detections(
    annotations: Annotations,
    detections: Iterable[PictureDetections],
    labels: Sequence[str] = config.COCO_LABELS,
    match_classes: str = config.CLASS_MATCHING[0],
) -> EvalReport:
    """Compute COCO's figures for boxes.

    Args:
        annotations: The pictures and their objects.
        detections: The detections of each picture; one that does not come has none.
        labels: The model's labels, the background first.
        match_classes: How they are matched to the categories, by `name` or by `position` (see `match_categories`).

    Returns:
        The report, with no name, precision and machine yet. Its time is that of taking the detections.

    Raises:
        AnnotationsError: If the categories do not fit the labels.
        SsdtrtError: If a picture is not in the annotations or comes twice, if a box or a score is not finite, or if
            faster-coco-eval is not installed.
    """
    categories, notes = match_categories(annotations.categories, labels, match_classes)
    rows: list[dict[str, Any]] = []
    seen: set[CocoId] = set()
    started = time.perf_counter()
    for found in detections:
        if found.image_id not in annotations.images or found.image_id in seen:
            raise SsdtrtError(
                f"The detections of picture {found.image_id} came twice, or {annotations.path} does not list it."
            )
        seen.add(found.image_id)
        rows += _coco_rows(found.image_id, *in_categories(categories, found.xyxy, found.class_id, found.confidence))
    seconds = time.perf_counter() - started
    figures, classes = _coco_figures(annotations, rows)
    return EvalReport(
        name="",
        precision="",
        figures=figures,
        classes=classes,
        images=len(annotations.images),
        objects=sum(row.objects for row in classes),
        detections=len(rows),
        seconds=seconds,
        images_per_second=len(seen) / seconds if seconds > 0 else 0.0,
        settings=EvalSettings(
            annotations=str(annotations.path),
            min_score=config.MIN_SCORE,
            nms_iou=config.NMS_IOU,
            max_detections=config.MAX_DETECTIONS,
            faster_coco_eval=installed("faster-coco-eval"),
        ),
        notes=(*annotations.notes, *notes),
    )


def _coco_rows(
    image_id: CocoId, boxes_xyxy: np.ndarray, category_ids: Sequence[CocoId], scores: np.ndarray
) -> list[dict[str, Any]]:
    """One picture's detections as COCO's evaluation takes them, without their ids."""
    boxes_xywh = to_xywh(boxes_xyxy)
    if not (np.isfinite(boxes_xywh).all() and np.isfinite(scores).all()):
        raise SsdtrtError(
            f"Picture {image_id}: a box or score is not finite: the engine overflows (see ssdtrt verify)."
        )
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score, "area": box[2] * box[3]}
        for box, category, score in zip(boxes_xywh.tolist(), category_ids, scores.tolist())
    ]


def load_coco_tools() -> tuple[Any, Any]:
    """Import COCO and COCOeval_faster from faster-coco-eval.

    Raises:
        SsdtrtError: If it is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise SsdtrtError(f"Evaluation needs faster-coco-eval ({error}): {pip_install('eval')}") from error
    return COCO, COCOeval_faster


def _coco_figures(
    annotations: Annotations, rows: list[dict[str, Any]]
) -> tuple[dict[str, float | None], tuple[ClassFigures, ...]]:
    """The twelve figures, and those of each category by id. The rows get their ids."""
    coco, coco_eval = load_coco_tools()
    # COCO's evaluation takes numbers; these keep the order, which decides between equal scores.
    images = {image: number for number, image in enumerate(annotations.images, 1)}
    categories = {category: number for number, category in enumerate(annotations.categories, 1)}
    listed = {"images": [{"id": number} for number in images.values()]}
    listed["categories"] = [{"id": number} for number in categories.values()]
    for entries in (objects := [one.as_coco() for one in annotations.objects], rows):
        # From 1: a 0 means "not matched" to COCO's evaluation, and a file may repeat its ids.
        for number, entry in enumerate(entries, 1):
            entry.update(id=number, image_id=images[entry["image_id"]], category_id=categories[entry["category_id"]])
    truth, found = (coco({**listed, "annotations": entries}) for entries in (objects, rows))
    run = coco_eval(truth, found, iouType="bbox", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    counts = dict.fromkeys(annotations.categories, 0)
    for one in annotations.objects:
        counts[one.category_id] += not one.iscrowd
    precision = run.eval["precision"][..., 0, -1]  # [IoU, recall, category]: objects of any size, 100 detections
    classes = tuple(
        ClassFigures(name, number, _mean(precision[:, :, index]), _mean(precision[0, :, index]), counts[number])
        for index, (number, name) in enumerate(annotations.categories.items())
    )
    figures = {name: None if value < 0 else float(value) for name, value in zip(FIGURES, run.stats)}
    return figures, classes


def _mean(values: np.ndarray) -> float | None:
    """The mean of the values that are not -1, which stands for "no object" in COCO's results."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None
