"""Sinks that write detections as JSON, a picture at a time: JSON lines, one JSON list, COCO's results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike

from ssdtrt import config
from ssdtrt.detection.results import Detection, Detections
from ssdtrt.detection.text_output import TextOutput
from ssdtrt.errors import ImageError, SsdtrtError


class JsonLinesSink:
    """Writes one JSON object a picture and line, as `ImageDetections.as_dict` has it.

    Edges have 2 decimals and scores 6; what is not finite is null. What is written is valid whenever a run ends.

    Args:
        target: A path or a text stream, which stays open.
        labels: The names of the model's classes, the background first.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    _start = _end = ""

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str]):
        self._labels = list(labels)
        self._formats = [
            f'{{"label": {_quoted(label)}, "label_id": {number}, "score": %.6f, "box": [%.2f, %.2f, %.2f, %.2f]}}'
            for number, label in enumerate(labels)
        ]
        self.output = TextOutput(target, self._start)

    def __enter__(self) -> JsonLinesSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.output.close(self._end, broken=kind is not None)

    def write(self, found: Detections) -> None:
        """Write one picture's detections."""
        self.output.write(self._line(found) + "\n")

    def _line(self, found: Detections) -> str:
        values = _columns(found.confidence, found.xyxy)  # [K, 5]
        row = self._row if np.isfinite(values).all() else self._row_with_nulls
        rows = map(row, np.asarray(found.class_id).tolist(), values.tolist())
        head = f'{{"image": {json.dumps(found.image)}, "width": {found.width}, "height": {found.height}, '
        return f'{head}"detections": [{", ".join(rows)}]}}'

    def _row(self, label: int, values: list[float]) -> str:
        return self._formats[label] % tuple(values)

    def _row_with_nulls(self, label: int, values: list[float]) -> str:
        score, left, top, right, bottom = values
        box = round(left, 2), round(top, 2), round(right, 2), round(bottom, 2)
        return json.dumps(Detection(self._labels[label], label, round(score, 6), box).as_dict())


class JsonListSink(JsonLinesSink):
    """Writes the objects of JsonLinesSink as one JSON list, a line each."""

    _start, _end = "[", "\n]\n"
    _separator = "\n"

    def write(self, found: Detections) -> None:
        """Write one picture's detections."""
        self.output.write(self._separator + self._line(found))
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

    def write(self, image_id: int, boxes_xyxy: ArrayLike, category_ids: ArrayLike, scores: ArrayLike) -> None:
        """Write one picture's detections.

        Args:
            image_id: COCO's number of the picture.
            boxes_xyxy: Boxes [K, 4] in the picture's pixels.
            category_ids: COCO's numbers of the classes [K].
            scores: Scores [K], 0..1.

        Raises:
            SsdtrtError: For a number that is not finite.
        """
        values = _columns(to_xywh(boxes_xyxy), scores)  # [K, 5]
        if not len(values):
            return
        if not np.isfinite(values).all():
            raise SsdtrtError(f"Picture {image_id}: a box or score is not finite; COCO's results have no such number.")
        row_format = f'\n{{"image_id": {image_id}, "category_id": %d, "bbox": [%.9g, %.9g, %.9g, %.9g], "score": %.9g}}'
        rows = [
            row_format % (category, *row) for category, row in zip(np.asarray(category_ids).tolist(), values.tolist())
        ]
        self.output.write(self._separator + ",".join(rows))
        self._separator = ","


class CocoSink:
    """Writes COCO's results of pictures whose file names are COCO's numbers, such as 000139.jpg.

    Labels become COCO's category ids where they are COCO's 80, and stay 1..C-1 otherwise.

    Args:
        target: A path or a text stream, which stays open.
        labels: The names of the model's classes, the background first.
        failures: Takes an error for each picture with another name.

    Raises:
        ArtifactError: For a path that cannot be written.
    """

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str], failures: list[ImageError]):
        self._results, self._failures = CocoResults(target), failures
        self._categories = config.COCO_CATEGORY_IDS if tuple(labels) == config.COCO_LABELS else range(len(labels))

    def __enter__(self) -> CocoSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._results.__exit__(kind)

    def write(self, found: Detections) -> None:
        """Write one picture's detections."""
        stem = Path(found.image).stem
        if not (stem.isascii() and stem.isdigit()):
            self._failures.append(
                ImageError(
                    f"{found.image} is not in COCO's results: expected a number as its name, such as 000139.jpg."
                )
            )
            return
        categories = [self._categories[label] for label in found.class_id.tolist()]
        self._results.write(int(stem), found.xyxy, categories, found.confidence)


def to_xywh(boxes_xyxy: ArrayLike) -> np.ndarray:
    """Convert boxes [K, 4] from (left, top, right, bottom) to (left, top, width, height), float32."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _columns(*parts: ArrayLike) -> np.ndarray:
    """Arrays [K] and [K, n] side by side, [K, M] float32."""
    return np.column_stack([np.asarray(part, dtype=np.float32) for part in parts])


def _quoted(label: str) -> str:
    return json.dumps(label).replace("%", "%%")
