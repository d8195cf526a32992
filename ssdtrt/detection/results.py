"""What a detector finds in a picture. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssdtrt.system.report import Report

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ssdtrt.errors import ImageError


class Detection(Report, frozen=True):
    """One object found in a picture.

    Attributes:
        label: The name of its class.
        label_id: The number of its class, 1..C-1; 0 is the background, which is never found.
        score: The class's probability, 0..1.
        box: (left, top, right, bottom) in the pixels of the original picture.
    """

    label: str
    label_id: int
    score: float
    box: tuple[float, float, float, float]


class ImageDetections(Report, frozen=True):
    """The detections of one picture, the best first, as they are written as JSON.

    Attributes:
        image: Its path; "" where it has none.
        width: Its width in pixels.
        height: Its height in pixels.
        detections: What was found in it.
    """

    image: str
    width: int
    height: int
    detections: tuple[Detection, ...]


@dataclass(frozen=True)
class Detections:
    """The detections of one picture as arrays, the best first.

    Attributes:
        image: Its path; "" where it has none.
        width: Its width in pixels.
        height: Its height in pixels.
        xyxy: Boxes [K, 4] as (left, top, right, bottom) in the picture's pixels, float32.
        class_id: Classes [K] in 1..C-1, int64.
        confidence: Scores [K], 0..1, float32.
        picture: The picture itself, RGB, where it was asked for.
    """

    image: str
    width: int
    height: int
    xyxy: np.ndarray
    class_id: np.ndarray
    confidence: np.ndarray
    picture: Image.Image | None = None

    def named(self, labels: Sequence[str]) -> ImageDetections:
        """Return the same with the classes' names, edges rounded to 2 decimals and scores to 6.

        Args:
            labels: The names of the classes, the background first.
        """
        rows = zip(self.class_id.tolist(), self.confidence.tolist(), self.xyxy.tolist())
        detections = tuple(
            Detection(labels[number], number, round(score, 6), tuple(round(edge, 2) for edge in box))
            for number, score, box in rows
        )
        return ImageDetections(self.image, self.width, self.height, detections)


@dataclass(frozen=True)
class Summary:
    """What a run over pictures did.

    Attributes:
        pictures: How many were read.
        detections: How many objects were found in them.
        seconds: How long the run took.
        first: The detections of the first 20 pictures.
        failures: Why the others could not be read.
    """

    pictures: int
    detections: int
    seconds: float
    first: tuple[ImageDetections, ...]
    failures: tuple[ImageError, ...]

    @property
    def images_per_second(self) -> float:
        """Pictures read, run and written a second."""
        return self.pictures / self.seconds if self.seconds else 0.0
