"""Detections as JSON objects: one by one, and those of many pictures at once, in columns of text."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssdtrt.detection.results import Detection
from ssdtrt.detection.unpacking import DetectionBatch

TOGETHER = 32  # pictures whose text is in memory at once: 0.4 MB with a hundred detections each
_FEW = 64  # detections up to which one by one is as fast
_EDGE = np.dtype([("before", "S2"), ("pixels", "S4"), ("hundredths", "S3")])


class RowTexts:
    """The text of detections: scores with 6 decimals and edges with 2; what is not finite is null.

    Args:
        labels: The names of the model's classes, the background first.
    """

    def __init__(self, labels: Sequence[str]):
        self._labels = list(labels)
        starts = [f'{{"label": {json.dumps(label)}, "label_id": {n}, "score": ' for n, label in enumerate(labels)]
        self._formats = [start.replace("%", "%%") + '%.6f, "box": [%.2f, %.2f, %.2f, %.2f]}' for start in starts]
        self._starts = np.array(starts, dtype=np.bytes_)
        # Each column is filled up with NUL, which JSON's text does not have.
        columns = [("start", self._starts.dtype), ("score", "S5"), ("millionths", "S13"), ("edges", _EDGE, 4)]
        self._columns = np.dtype([*columns, ("end", "S4")])

    def of_one(self, class_id: ArrayLike, confidence: ArrayLike, xyxy: ArrayLike) -> list[str]:
        """Return the text of each detection of a picture.

        Args:
            class_id: Classes [K].
            confidence: Scores [K].
            xyxy: Boxes [K, 4] in pixels.
        """
        values = np.column_stack([np.asarray(part, dtype=np.float32) for part in (confidence, xyxy)])  # [K, 5]
        row = self._row if np.isfinite(values).all() else self._row_with_nulls
        return list(map(row, np.asarray(class_id).tolist(), values.tolist()))

    def of_batch(self, batch: DetectionBatch) -> Iterator[str]:
        """Yield for each picture what `of_one` returns, with ", " between."""
        for first in range(0, len(batch), TOGETHER):
            offsets = batch.offsets[first : first + TOGETHER + 1]
            every = slice(offsets[0], offsets[-1])
            arrays = batch.class_id[every], batch.confidence[every], batch.xyxy[every]
            if len(arrays[0]) > _FEW and _fit_columns(*arrays[1:]):
                yield from self._in_columns(*arrays, np.diff(offsets))
                continue
            for start, end in itertools.pairwise(offsets):
                part = slice(start, end)
                yield ", ".join(self.of_one(batch.class_id[part], batch.confidence[part], batch.xyxy[part]))

    def _in_columns(
        self, class_id: np.ndarray, confidence: np.ndarray, xyxy: np.ndarray, counts: np.ndarray
    ) -> Iterator[str]:
        """The text of the detections of pictures that have `counts` of them."""
        texts = _texts()
        # Exact products in float64, and so rounded as "%.6f" and "%.2f" do: half to even.
        millionths = np.rint(confidence.astype(np.float64) * 10**6).astype(np.uint32)
        hundredths = np.rint(xyxy.astype(np.float64) * 100).astype(np.uint32)
        rows = np.empty(len(class_id), self._columns)
        rows["start"] = self._starts[class_id]
        rows["score"], rows["millionths"] = texts.score[millionths // 1000], texts.millionths[millionths % 1000]
        edges = rows["edges"]
        edges["before"] = b"", b", ", b", ", b", "
        edges["pixels"], edges["hundredths"] = texts.pixels[hundredths // 100], texts.hundredths[hundredths % 100]
        rows["end"] = b"]}, "
        rows["end"][counts.cumsum()[counts > 0] - 1] = b"]}\n"  # No line break is within a row.
        joined = iter(rows.tobytes().translate(None, b"\0").decode("ascii").split("\n"))
        return (next(joined) if count else "" for count in counts.tolist())

    def _row(self, label: int, values: list[float]) -> str:
        return self._formats[label] % tuple(values)

    def _row_with_nulls(self, label: int, values: list[float]) -> str:
        score, left, top, right, bottom = values
        box = round(left, 2), round(top, 2), round(right, 2), round(bottom, 2)
        return json.dumps(Detection(self._labels[label], label, round(score, 6), box).as_dict())


def _fit_columns(confidence: np.ndarray, xyxy: np.ndarray) -> bool:
    """Whether columns hold these numbers: neither negative nor -0, not NaN, and edges of four digits."""
    signed = np.signbit(confidence).any() or np.signbit(xyxy).any()
    return not signed and bool((confidence <= 1).all() and (xyxy <= 9999).all())


class _Texts(NamedTuple):
    """The text of the parts of a number, by their values."""

    score: np.ndarray  # of thousandths, 0.000 to 1.000
    millionths: np.ndarray  # of a thousandth, and what follows
    pixels: np.ndarray
    hundredths: np.ndarray


@functools.cache
def _texts() -> _Texts:
    return _Texts(
        score=np.array([f"{n / 1000:.3f}" for n in range(1001)], dtype="S5"),
        millionths=np.array([f'{n:03d}, "box": [' for n in range(1000)], dtype="S13"),
        pixels=np.array([str(n) for n in range(10_000)], dtype="S4"),
        hundredths=np.array([f".{n:02d}" for n in range(100)], dtype="S3"),
    )
