"""A batch's packed detections to what is reported of each picture, for all pictures at once. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ssdtrt.detection.results import Detections
from ssdtrt.images.preprocess import batch_to_pixels

if TYPE_CHECKING:
    from PIL import Image

    from ssdtrt.reading.reader import PreparedPicture


class Chosen(NamedTuple):
    """Which detections are reported.

    Attributes:
        threshold: The lowest score.
        classes: The numbers of the classes; None for all.
        max_detections: The most of a picture.
    """

    threshold: float
    classes: tuple[int, ...] | None
    max_detections: int


@dataclass(frozen=True, eq=False, repr=False)
class DetectionBatch:
    """The detections of N pictures, M together: arrays for all of them, in which each picture has a part.

    It has no pixels. Iterated, it yields the place of each picture among all and its Detections, with arrays of its own.

    Attributes:
        indices: The place of each picture among all, from 0.
        images: Their paths; "" for one that has none.
        sizes: Their (width, height) in pixels.
        offsets: N + 1 numbers: picture n has the detections offsets[n] to offsets[n + 1].
        xyxy: Boxes [M, 4] in the pixels of each picture, float32; those of a picture the best first.
        class_id: Classes [M] in 1..C-1, int64.
        confidence: Scores [M], 0..1, float32.
        labels: The names of all classes, the background first.
        sources: What `load` takes to have each picture again.
        load: Returns a picture, RGB.
        note: What is written along the bottom of drawings.
    """

    indices: Sequence[int]
    images: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    offsets: Sequence[int]
    xyxy: np.ndarray
    class_id: np.ndarray
    confidence: np.ndarray
    labels: Sequence[str]
    sources: Sequence[Any]
    load: Callable[[Any], Image.Image]
    note: str = ""

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, Detections]]:
        parts = zip(self.indices, self.images, self.sizes, self.sources, self.offsets, self.offsets[1:])
        for index, image, (width, height), source, start, end in parts:
            # Copies: a result that is kept does not keep those of the whole batch.
            arrays = self.xyxy[start:end].copy(), self.class_id[start:end].copy(), self.confidence[start:end].copy()
            load = partial(self.load, source)
            yield index, Detections(image, width, height, *arrays, self.labels, load, self.note)


def unpack(
    packed: np.ndarray,
    pictures: Sequence[PreparedPicture],
    chosen: Chosen,
    preprocess: str,
    labels: Sequence[str],
    load: Callable[[Any], Image.Image],
    note: str = "",
) -> DetectionBatch:
    """Take what is reported out of packed detections.

    Args:
        packed: Packed detections [N, K + 1, 6] (see `detect_fixed`).
        pictures: The pictures.
        chosen: Which detections are reported.
        preprocess: How the images were prepared, `eval` or `hub`.
        labels: The names of all classes, the background first.
        load: Returns a picture, RGB, of its `source`.
        note: What is written along the bottom of drawings.
    """
    every = packed[:, :-1]  # [N, K, 6]
    counts = np.minimum((every[..., 5] >= chosen.threshold).sum(axis=1), packed[:, -1, 0].astype(int))
    if chosen.classes is None:
        counts = np.minimum(counts, chosen.max_detections)
    kept = np.arange(every.shape[1]) < counts[:, None]  # [N, K]
    if chosen.classes is not None:
        kept &= np.isin(every[..., 4], chosen.classes)
        kept &= kept.cumsum(axis=1) <= chosen.max_detections
    rows, counts = every[kept], kept.sum(axis=1)  # [M, 6], [N]
    sizes = [one.size for one in pictures]
    return DetectionBatch(
        indices=[one.index for one in pictures],
        images=[one.name for one in pictures],
        sizes=sizes,
        offsets=[0, *counts.cumsum().tolist()],
        xyxy=batch_to_pixels(rows[:, :4], sizes, counts, preprocess),
        class_id=rows[:, 4].astype(np.int64),
        confidence=rows[:, 5].copy(),
        labels=labels,
        sources=[one.source for one in pictures],
        load=load,
        note=note,
    )
