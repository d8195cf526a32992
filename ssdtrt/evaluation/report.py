"""The report of `evaluate`: COCO's figures. Imports no torch."""

from __future__ import annotations

from typing import Any

from ssdtrt import config
from ssdtrt.system.report import Report
from ssdtrt.system.versions import MeasuredOn

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The names of COCO's twelve figures, in COCO's order: average precision over IoU 0.50 to 0.95, at 0.50, at 0.75, and
for small, medium and large objects; average recall with 1, 10 and 100 detections a picture, and for the three sizes."""


class ClassFigures(Report, frozen=True):
    """The figures of one category.

    Attributes:
        name: Its name in the annotations.
        category_id: Its id in the annotations: a number, or text where they have text.
        ap: AP, 0..1; None if there is no object.
        ap50: AP at IoU 0.50, 0..1; None if there is no object.
        objects: The number of objects, without crowds.
    """

    name: str
    category_id: int | str
    ap: float | None
    ap50: float | None
    objects: int


class EvalSettings(Report, frozen=True):
    """How the detections were made and compared.

    Attributes:
        annotations: The path of the annotation file.
        min_score: Only detections with a higher score count, 0..1.
        nms_iou: The IoU from which NMS removes the lower score of two boxes.
        max_detections: The most detections of one picture.
        images: The folder, pattern or list of the pictures; None for detections that were not made here.
        faster_coco_eval: The version of faster-coco-eval, which computed the figures.
        orient: Whether pictures were turned by their EXIF orientation; TIFFs and HEICs always are.
        annotations_sha256: The SHA-256 of the annotation file.
        match_classes: How the classes were matched to the categories: by `name` or `position`.
        value_range: The values of pictures of more than 8 bits that became black and white; None for those that each
            picture fills.
        max_pixels: The most pixels of a picture; None for Pillow's limit.
        decode: Where JPEGs were to be decoded: `gpu`, `cpu`, or `auto`.
    """

    annotations: str
    min_score: float
    nms_iou: float
    max_detections: int
    images: str | None = None
    faster_coco_eval: str | None = None
    orient: bool = False
    annotations_sha256: str | None = None
    match_classes: str = config.CLASS_MATCHING[0]
    value_range: tuple[float, float] | None = None
    max_pixels: int | None = None
    decode: str = "cpu"


class EvalReport(Report, frozen=True):
    """COCO's figures for the boxes of one file or baseline.

    Attributes:
        name: The name of the file or the baseline.
        precision: `fp32`, `fp16` or `bf16`.
        figures: The figures by their names in FIGURES, 0..1; None if there is no such object.
        classes: The figures of each category, by its id.
        images: The number of pictures in the annotations.
        objects: The number of objects in them, without crowds.
        detections: The number of detections.
        seconds: From the first picture to the last detection, with reading the pictures.
        images_per_second: The pictures that could be read over `seconds`.
        settings: How the detections were made and compared.
        machine: The machine and the versions; None for a baseline, for which they are the same.
        against: The reports of the baselines on the same pictures.
        notes: What a reader of the figures must know.
        failures: Why pictures could not be read. They count as pictures without detections.
    """

    kind = "evaluation"
    schema = 2

    name: str
    precision: str
    figures: dict[str, float | None]
    classes: tuple[ClassFigures, ...]
    images: int
    objects: int
    detections: int
    seconds: float
    images_per_second: float
    settings: EvalSettings
    machine: MeasuredOn | None = None
    against: tuple[EvalReport, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def minus(self, baseline: EvalReport) -> dict[str, float | None]:
        """Return each figure less the baseline's; None if one of the two is None."""
        pairs = [(name, self.figures[name], baseline.figures[name]) for name in FIGURES]
        return {name: None if own is None or other is None else own - other for name, own, other in pairs}

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict of JSON types, of each baseline its figures and the differences alone."""
        against = [
            {
                "name": baseline.name,
                "precision": baseline.precision,
                "figures": baseline.figures,
                "difference": self.minus(baseline),
                "detections": baseline.detections,
                "seconds": baseline.seconds,
                "images_per_second": baseline.images_per_second,
            }
            for baseline in self.against
        ]
        return {**super().as_dict(), "against": against}
