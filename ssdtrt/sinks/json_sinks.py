"""Sinks that write detections as JSON, a picture at a time: JSON lines, detections.json, COCO's results."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike

from ssdtrt.detection.results import Detections, ImageDetections, PictureList
from ssdtrt.detection.unpacking import DetectionBatch
from ssdtrt.errors import SsdtrtError
from ssdtrt.sinks.row_texts import TOGETHER, RowTexts
from ssdtrt.sinks.text_output import TextOutput
from ssdtrt.system.report import Report

CocoId = int | str
"""The id of a picture or of a category in COCO's files: a number, or text where an annotation file has text."""


def _begin(record: type[Report]) -> str:
    """How the JSON object of a document begins."""
    return f'"schema": {record.schema}, "kind": {json.dumps(record.kind)}'


class JsonLinesSink:
    """Writes one JSON object a picture and line, as `ImageDetections.document` has it.

    Edges have 2 decimals and scores 6; what is not finite is null. What is written is valid whenever a run ends.

    Args:
        target: A path or a text stream, which stays open.
        labels: The names of the model's classes, the background first.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str]):
        self._rows, self.output = RowTexts(labels), TextOutput(target)

    def __enter__(self) -> JsonLinesSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.output.close("", broken=kind is not None)

    def write(self, found: Detections) -> None:
        """Write one picture's detections."""
        rows = self._rows.of_one(found.class_id, found.confidence, found.xyxy)
        self.output.write(_line(found.image, found.width, found.height, ", ".join(rows)))

    def write_batch(self, batch: DetectionBatch) -> None:
        """Write the detections of several pictures."""
        rows = self._rows.of_batch(batch)
        lines = (_line(name, *size, found) for name, size, found in zip(batch.images, batch.sizes, rows))
        while some := list(itertools.islice(lines, TOGETHER)):
            self.output.write(*some)


def _line(image: str, width: int, height: int, rows: str, begin: str = _begin(ImageDetections)) -> str:
    return f'{{{begin}, {_picture(image, width, height)}, "detections": [{rows}]}}\n'


def _picture(image: str, width: int, height: int) -> str:
    return f'"image": {json.dumps(image)}, "width": {width}, "height": {height}'


class JsonListSink:
    """Writes a detections.json: the pictures a line each, with the paths of what was drawn, as `PictureList` has them.

    Args:
        target: A path.
        labels: The names of the model's classes, the background first.
        note: What the drawings say along their bottom.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    start = f"{{{_begin(PictureList)}, "

    def __init__(self, target: str | os.PathLike, labels: Sequence[str], note: str = ""):
        self._rows, self._separator = RowTexts(labels), "\n"
        self.output = TextOutput(target, f'{self.start}"note": {json.dumps(note)}, "pictures": [')

    def __enter__(self) -> JsonListSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.output.close("\n]}\n", broken=kind is not None)

    def write(self, found: Detections, drawing: str = "", crops: Sequence[str] = ()) -> None:
        """Write one picture's detections.

        Args:
            found: The detections.
            drawing: The path of the annotated picture; "" for none.
            crops: The path of each detection's crop; none where there are no crops.
        """
        rows = self._rows.of_one(found.class_id, found.confidence, found.xyxy)
        if crops:
            rows = [f'{row[:-1]}, "crop": {json.dumps(crop)}}}' for row, crop in zip(rows, crops)]
        head = _picture(found.image, found.width, found.height)
        drawn = f', "drawing": {json.dumps(drawing)}' if drawing else ""
        self.output.write(f'{self._separator}{{{head}{drawn}, "detections": [{", ".join(rows)}]}}')
        self._separator = ",\n"


class CocoResults:
    """Writes COCO's results: a list of {"image_id", "category_id", "bbox", "score"}, a line each.

    `bbox` is [left, top, width, height]. The numbers are the float32 ones, not rounded.

    Args:
        target: A path or a text stream, which stays open.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    def __init__(self, target: str | os.PathLike | TextIO):
        self.output = TextOutput(target, "[")
        self._separator = ""

    def __enter__(self) -> CocoResults:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.output.close("\n]\n", broken=kind is not None)

    def write(self, image_id: CocoId, boxes_xyxy: ArrayLike, category_ids: ArrayLike, scores: ArrayLike) -> None:
        """Write one picture's detections.

        Args:
            image_id: The id of the picture.
            boxes_xyxy: Boxes [K, 4] in the picture's pixels.
            category_ids: The ids of the categories [K].
            scores: Scores [K], 0..1.

        Raises:
            SsdtrtError: For a number that is not finite.
        """
        values = _columns(to_xywh(boxes_xyxy), scores)  # [K, 5]
        if not len(values):
            return
        if not np.isfinite(values).all():
            raise SsdtrtError(f"Picture {image_id}: a box or score is not finite; COCO's results have no such number.")
        row_format = (
            f'\n{{"image_id": {_quoted(image_id)}, "category_id": %s, "bbox": [%.9g, %.9g, %.9g, %.9g], "score": %.9g}}'
        )
        categories = map(json.dumps, np.asarray(category_ids).tolist())
        rows = [row_format % (category, *row) for category, row in zip(categories, values.tolist())]
        self.output.write(self._separator + ",".join(rows))
        self._separator = ","


class CocoSink:
    """Writes COCO's results of pictures and classes whose ids are known.

    Args:
        target: A path or a text stream, which stays open.
        images: {path: image id} of every picture that will come.
        categories: The category id of each label; detections of one without an id are not written.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    def __init__(
        self, target: str | os.PathLike | TextIO, images: Mapping[str, CocoId], categories: Sequence[CocoId | None]
    ):
        self._results, self._images, self._categories = CocoResults(target), images, categories

    def __enter__(self) -> CocoSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._results.__exit__(kind)

    def write(self, found: Detections) -> None:
        """Write one picture's detections."""
        rows = in_categories(self._categories, found.xyxy, found.class_id, found.confidence)
        self._results.write(self._images[found.image], *rows)

    def write_batch(self, batch: DetectionBatch) -> None:
        """Write the detections of several pictures."""
        for _, found in batch:
            self.write(found)


def in_categories(
    categories: Sequence[CocoId | None], xyxy: np.ndarray, class_id: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, list[CocoId], np.ndarray]:
    """Return the detections whose label has a category: boxes xyxy [K, 4], category ids [K], scores [K].

    Args:
        categories: The category id of each label, None for one without.
        xyxy: The boxes of one picture's detections.
        class_id: Their labels.
        confidence: Their scores.
    """
    ids = [categories[label] for label in class_id.tolist()]
    chosen = [index for index, category in enumerate(ids) if category is not None]
    return xyxy[chosen], [category for category in ids if category is not None], confidence[chosen]


def to_xywh(boxes_xyxy: ArrayLike) -> np.ndarray:
    """Convert boxes [K, 4] from (left, top, right, bottom) to (left, top, width, height), float32."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _columns(*parts: ArrayLike) -> np.ndarray:
    """Arrays [K] and [K, n] side by side, [K, M] float32."""
    return np.column_stack([np.asarray(part, dtype=np.float32) for part in parts])


def _quoted(label: CocoId) -> str:
    return json.dumps(label).replace("%", "%%")
