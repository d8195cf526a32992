"""From pictures to detections, in batches, with any file that ssdtrt writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssdtrt import config
from ssdtrt.draw import draw_detections
from ssdtrt.errors import ArtifactError, ImageError
from ssdtrt.files import Progress, replacing, silent, write_text
from ssdtrt.image import load_image, normalise, prepare, to_pixels
from ssdtrt.model import boxes
from ssdtrt.results import Detection, ImageDetections
from ssdtrt.runner import load_engine

UNTRAINED = "untrained: random weights"


class Detector:
    """Detects with a saved module or engine.

    `threshold` is the lowest score reported, 0..1; `max_detections` the most for one picture. Scores of 0.05 and less
    are never reported. Raises what `load_engine` raises.
    """

    def __init__(
        self,
        path: str | Path = config.ENGINE_FILE,
        device: str | torch.device | None = None,
        *,
        threshold: float = config.THRESHOLD,
        max_detections: int = config.MAX_DETECTIONS,
    ):
        self.runner = load_engine(path, device)
        self.threshold, self.max_detections = threshold, max_detections
        self.batch_size = self.runner.batch.max if self.runner.batch else config.DETECT_BATCH
        self.default_boxes = boxes.default_boxes().to(self.runner.device)

    def __call__(self, pictures: Sequence[str | Path | Image.Image | np.ndarray]) -> list[ImageDetections]:
        """The detections of each picture (a path, a PIL image, or an array [H, W, 3] of uint8), in their order.

        Raises ImageError for one that cannot be read.
        """
        if isinstance(pictures, (str, Path)):
            raise ImageError(f"{pictures} is one picture; expected a list of pictures.")
        return [found for _, found in self.stream(pictures)]

    def stream(self, pictures, failures: list[ImageError] | None = None) -> Iterator[tuple[Image.Image, ImageDetections]]:
        """Each picture, upright in RGB, with its detections, as the batches are done.

        One that cannot be read goes to `failures` and the others go on; without `failures` it raises.
        """
        loaded: list[tuple[str, Image.Image]] = []
        for picture in pictures:
            try:
                image = load_image(picture)
            except ImageError as error:
                if failures is None:
                    raise
                failures.append(error)
                continue
            loaded.append((str(picture) if isinstance(picture, (str, Path)) else "", image))
            if len(loaded) == self.batch_size:
                yield from self._detect(loaded)
                loaded = []
        if loaded:
            yield from self._detect(loaded)

    def _detect(self, loaded: list[tuple[str, Image.Image]]) -> Iterator[tuple[Image.Image, ImageDetections]]:
        images = torch.stack([prepare(image) for _, image in loaded]).to(self.runner.device)  # [N, 3, 300, 300]
        loc, conf = self.runner(normalise(images))
        results = boxes.detect(loc, conf, self.default_boxes, self.max_detections)
        for (name, image), result in zip(loaded, results):
            yield image, ImageDetections(name, *image.size, self._detections(result, *image.size))

    def _detections(self, result, width: int, height: int) -> tuple[Detection, ...]:
        boxes_ltrb, labels, scores = (part.cpu() for part in result)
        good = scores >= self.threshold
        pixels = to_pixels(boxes_ltrb[good], width, height).tolist()
        names = self.runner.labels
        return tuple(
            Detection(names[label], label, round(score, 6), tuple(round(edge, 2) for edge in box))
            for label, score, box in zip(labels[good].tolist(), scores[good].tolist(), pixels)
        )


def detect_to_folder(
    detector: Detector, pictures: Sequence[str | Path], folder: str | Path, progress: Progress = silent
) -> tuple[list[ImageDetections], list[ImageError]]:
    """Detects in picture files, and writes into `folder` each picture with its boxes and `detections.json`.

    Pictures of the same name are numbered, and one that lies in `folder` itself is not written over. Returns what was
    found and what could not be read; the good pictures are done either way. Raises ArtifactError where the folder
    cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        results: list[ImageDetections] = []
        failures: list[ImageError] = []
        names = {Path(path).name.lower() for path in pictures if Path(path).parent.resolve() == folder.resolve()}
        note = "" if detector.runner.trained else UNTRAINED
        for image, found in detector.stream(pictures, failures):
            with replacing(folder / unused_name(Path(found.image).stem, names)) as temporary:
                draw_detections(image, found.detections, note).save(temporary, format="JPEG", quality=92)
            results.append(found)
            progress(f"detecting, {len(results)} of {len(pictures)} pictures")
        write_text(folder / "detections.json", json.dumps([found.as_dict() for found in results], indent=1) + "\n")
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error.strerror or error}. Give another with -o.") from error
    return results, failures


def unused_name(stem: str, names: set[str]) -> str:
    """`stem`.jpg, or `stem`-2.jpg and so on where that was given out; adds it to `names`."""
    name, number = f"{stem}.jpg", 1
    while name.lower() in names:
        number += 1
        name = f"{stem}-{number}.jpg"
    names.add(name.lower())
    return name
