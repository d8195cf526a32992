"""The pictures that ranges are measured on, and those that an INT8 engine is judged on."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import CalibrationError
from ssdtrt.evaluation.annotations import Annotations, match_categories, read_annotations
from ssdtrt.evaluation.coco import PictureDetections, evaluate_detections, load_coco_tools
from ssdtrt.evaluation.pictures import find_pictures
from ssdtrt.quantization.agreement import Detections
from ssdtrt.reading.read_ahead import worker_count
from ssdtrt.reading.reader import PictureReader, readable
from ssdtrt.reading.sources import STDIN, expand
from ssdtrt.sinks.json_sinks import CocoId
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, ProgressBar, silent
from ssdtrt.system.report import counted

_AHEAD = 64  # pictures


@dataclass(frozen=True)
class CalibrationPictures:
    """Pictures to measure ranges on, and the SHA-256 of their files.

    Attributes:
        images: uint8 [N, 3, 300, 300].
        digests: The SHA-256 of each file [N].
    """

    images: Tensor
    digests: tuple[str, ...]

    @property
    def measured(self) -> CalibrationPictures:
        """Those that the ranges are measured on: four of five."""
        return self._chosen([number for number in range(len(self.digests)) if number % config.HELD_OUT])

    @property
    def held_out(self) -> CalibrationPictures:
        """Those that the network is judged on: every fifth."""
        return self._chosen(list(range(0, len(self.digests), config.HELD_OUT)))

    def _chosen(self, numbers: list[int]) -> CalibrationPictures:
        return CalibrationPictures(self.images[numbers], tuple(self.digests[number] for number in numbers))


@dataclass(frozen=True)
class AnnotatedPictures:
    """Annotated pictures.

    Attributes:
        annotations: Their annotations.
        ids: Their ids in the annotations [N].
        images: uint8 [N, 3, 300, 300].
        sizes: Their (width, height) [N].
        digests: The SHA-256 of each file [N].
        labels: The names of the network's classes, the background first.
    """

    annotations: Annotations
    ids: tuple[CocoId, ...]
    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    digests: tuple[str, ...]
    labels: Sequence[str]

    def average_precision(self, found: Detections) -> float:
        """Return COCO's AP of detections in these pictures, 0..1; 0 where no category has objects."""

        def rows() -> Iterable[PictureDetections]:
            for image, (width, height), (boxes, labels, scores) in zip(self.ids, self.sizes, found):
                pixels = boxes.clamp(0, 1) * torch.tensor([width, height, width, height])
                yield PictureDetections(image, pixels.numpy(), labels.numpy(), scores.numpy())

        return evaluate_detections(self.annotations, rows(), self.labels).figures["AP"] or 0.0


def read_calibration(
    source: str | Path,
    preprocess: str,
    *,
    any_number: bool = False,
    progress: Progress = silent,
    note: Progress = silent,
) -> CalibrationPictures:
    """Read the pictures of a folder, a pattern, a list on stdin (`-`), or a text file with a path in each line.

    Args:
        source: The pictures.
        preprocess: `eval` or `hub`.
        any_number: Whether fewer than 100 are accepted.
        progress: Called with lines about how many are read.
        note: Called with a line for fewer than 500, and on what was left out of a folder.

    Raises:
        CalibrationError: If there are too few, or the source does not exist.
        ImageError: If one cannot be read.
    """
    paths = list(_paths(source, note))
    few = len(paths) < config.MIN_CALIBRATION_PICTURES
    if (few and not any_number) or not paths:
        raise CalibrationError(
            f"{source} has {counted(len(paths), 'picture')}; INT8 is calibrated on {config.CALIBRATION_PICTURES} or more "
            f"like those that it will see, at least {config.MIN_CALIBRATION_PICTURES}."
        )
    if len(paths) < config.CALIBRATION_PICTURES and not any_number:
        note(
            f"{counted(len(paths), 'picture')} to calibrate on; ranges are surer from {config.CALIBRATION_PICTURES} on."
        )
    images, _, digests = _read(paths, preprocess, True, progress, "reading the calibration pictures")
    return CalibrationPictures(images, digests)


def read_annotated(
    images: str | Path, annotations: str | Path, labels: Sequence[str], preprocess: str, progress: Progress = silent
) -> AnnotatedPictures:
    """Read the pictures that an annotation file lists.

    Args:
        images: Their folder, or a pattern (see `find_pictures`).
        annotations: The file, in COCO's `instances` format.
        labels: The names of the network's classes, the background first.
        preprocess: `eval` or `hub`.
        progress: Called with lines about how many are read.

    Raises:
        SsdtrtError: If faster-coco-eval is missing, or the annotations or the pictures cannot be used.
    """
    load_coco_tools()
    known, paths = find_pictures(read_annotations(annotations), images)
    match_categories(known.categories, labels)
    pixels, sizes, digests = _read(list(paths.values()), preprocess, False, progress, "reading the annotated pictures")
    return AnnotatedPictures(known, tuple(paths), pixels, sizes, digests, labels)


def check_disjoint(annotated: AnnotatedPictures, calibration: Iterable[str]) -> None:
    """Check that no annotated picture is among the calibration pictures, given by their SHA-256.

    Raises:
        CalibrationError: If one is.
    """
    shared = set(annotated.digests) & set(calibration)
    if shared:
        raise CalibrationError(
            f"{len(shared)} of the {counted(len(annotated.digests), 'annotated picture')} were calibrated on too, so that their "
            "AP would flatter INT8: calibrate on others."
        )


def _paths(source: str | Path, note: Progress) -> Iterable[Path]:
    """Yield the paths of the pictures of a source."""
    path = Path(source)
    if str(source) != STDIN and path.suffix.lower() in (".txt", ".lst") and path.is_file():
        with open(path, "rb") as stream:
            yield from map(Path, expand([STDIN], stream, note=note))
    elif str(source) == STDIN or glob.has_magic(str(source)) or path.exists():
        yield from map(Path, expand([source], note=note))
    else:
        raise CalibrationError(f"{source} does not exist; expected pictures: a folder, a pattern, or a list of paths.")


def _read(
    paths: Sequence[Path], preprocess: str, orient: bool, progress: Progress, step: str
) -> tuple[Tensor, tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Return the images, uint8 [N, 3, 300, 300], the sizes of the pictures and the SHA-256 of their files."""
    reader = PictureReader(preprocess, orient, worker_count(), _AHEAD)
    images = torch.empty(len(paths), 3, config.IMAGE_SIZE, config.IMAGE_SIZE, dtype=torch.uint8)
    sizes, digests = [], []
    progress(step)
    bar = ProgressBar(progress, step, len(paths), "picture", rate=False)
    for number, one in enumerate(readable(reader.with_threads(paths), None)):
        images[number] = torch.from_numpy(one.pixels).permute(2, 0, 1)
        sizes.append(one.size)
        digests.append(sha256_file(paths[number]))
        bar.add(1)
    return images, tuple(sizes), tuple(digests)
