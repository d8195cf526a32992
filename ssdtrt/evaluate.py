"""Evaluate a saved file, and the eager model that it was made from, on annotated pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.detect import Detector
from ssdtrt.errors import ImageError
from ssdtrt.evaluation.annotations import match_categories, read_annotations
from ssdtrt.evaluation.coco import PictureDetections, evaluate_detections, load_coco_tools
from ssdtrt.evaluation.orientation import orientation_notes
from ssdtrt.evaluation.pictures import find_pictures
from ssdtrt.evaluation.report import EvalReport, EvalSettings
from ssdtrt.images.gpu_decode import decoder_for
from ssdtrt.images.levels import ValueRange
from ssdtrt.runners.baseline import EagerRunner, baseline_runners
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.sinks.json_sinks import CocoId, CocoResults, in_categories
from ssdtrt.system.devices import use_more_queues
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, ProgressBar, silent
from ssdtrt.system.report import counted
from ssdtrt.system.versions import installed, measured_on

UNTRAINED = "untrained: seeded random weights; the figures mean nothing"
"""The note of a report on untrained weights."""


def evaluate_file(
    path: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    against: Sequence[str] = (),
    match_classes: str = config.CLASS_MATCHING[0],
    results: str | Path | None = None,
    orient: bool = False,
    subset: bool = False,
    sha256: str | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    decode: str = config.DECODE[0],
    progress: Progress = silent,
) -> EvalReport:
    """Run a saved file over every picture of an annotation file, and compute COCO's figures.

    The settings are those of the published evaluation: score > 0.05, NMS at IoU 0.5, at most 200 detections a picture,
    EXIF orientation ignored (but that of TIFFs, by which Pillow turns them when it reads them). A picture that cannot
    be read counts as one without detections and is listed in the report's `failures`. Needs faster-coco-eval (the
    extra `eval`).

    Args:
        path: An engine, a detector or a module that ssdtrt wrote.
        images: The folder of the pictures, below which the annotations' file names are; or a pattern, or `-` for a list
            on stdin, whose paths end with these names.
        annotations: The annotation file, in COCO's `instances` format.
        module: The module that the file was built from, for the baselines; by default searched beside the file.
        device: The device, such as `cuda:1`; by default the one that the file is made for.
        against: Baselines to run on the same pictures: names of config.BASELINES, `eager-fp32` and `eager-fp16`.
        match_classes: How the classes are matched to the categories: by `name`, or by `position` in order of id.
        results: A file for the detections, as COCO's results.
        orient: Whether pictures are turned by their EXIF orientation, for annotations of upright pictures. A note says
            where the pictures or the annotations call for the other way.
        subset: Whether pictures that are not in the folder are left out, with their objects and a note.
        sha256: The SHA-256 that the file must have.
        value_range: Which values of pictures of more than 8 bits become black and white (see `load_image`).
        max_pixels: The most pixels of a picture (see `load_image`).
        decode: Where JPEGs are decoded (see `Detector`).
        progress: Called with a line about the progress.

    Returns:
        The figures, those of each category, and the reports of the baselines.

    Raises:
        SsdtrtError: If the file, the annotations, the pictures or the baselines cannot be used, or faster-coco-eval is
            not installed: before the first picture, if possible.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> import ssdtrt
        >>> pictures = Path(ssdtrt.__file__).parent / "samples"
        >>> annotations = {
        ...     "images": [{"id": 1, "file_name": "astronaut.jpg"}],
        ...     "categories": [{"id": 1, "name": "person"}],
        ...     "annotations": [{"image_id": 1, "category_id": 1, "bbox": [20, 0, 250, 300]}],
        ... }
        >>> Path("annotations.json").write_text(json.dumps(annotations)) > 0
        True
        >>> module = ssdtrt.export_module(ssdtrt.build_model("random"), "ssd300.ts")
        >>> report = ssdtrt.evaluate_file(module, pictures, "annotations.json", device="cpu")
        >>> report.images, report.objects, 0 <= report.figures["AP"] <= 1
        (1, 1, True)
    """
    evaluation = Evaluation(
        images,
        annotations,
        match_classes=match_classes,
        orient=orient,
        subset=subset,
        value_range=value_range,
        max_pixels=max_pixels,
        decode=decode,
        progress=progress,
    )
    progress("loading")
    use_more_queues()  # Before CUDA starts.
    runner = load_engine(path, device, sha256=sha256)
    evaluation.check(runner.labels)
    baselines = baseline_runners(runner, module, against)
    report = evaluation.of(runner, Path(path).name, results=results)
    others = tuple(evaluation.of(one, name) for name, one in baselines.items())
    return replace(report, machine=measured_on(runner.device), against=others)


class Evaluation:
    """Annotated pictures, on which any number of runners are evaluated in the same way.

    That the annotations are intact and the pictures are there is checked when it is made.

    Args:
        images: As for `evaluate_file`, and so are all others.
        annotations: The annotation file.
        match_classes: How the classes are matched to the categories.
        orient: Whether pictures are turned by their EXIF orientation.
        subset: Whether pictures that are not there are left out.
        value_range: Which values of pictures of more than 8 bits become black and white.
        max_pixels: The most pixels of a picture.
        decode: Where JPEGs are decoded.
        progress: Called with a line about the progress.

    Raises:
        SsdtrtError: If the annotations or the pictures cannot be used, or faster-coco-eval is not installed.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> import ssdtrt
        >>> pictures = Path(ssdtrt.__file__).parent / "samples"
        >>> person = {"image_id": 1, "category_id": 1, "bbox": [20, 0, 250, 300]}
        >>> listed = {"images": [{"id": 1, "file_name": "astronaut.jpg"}], "categories": [{"id": 1, "name": "person"}]}
        >>> Path("annotations.json").write_text(json.dumps({**listed, "annotations": [person]})) > 0
        True
        >>> evaluation = ssdtrt.Evaluation(pictures, "annotations.json")
        >>> module = ssdtrt.export_module(ssdtrt.build_model("random"), "ssd300.ts")
        >>> few = {"rounds": 1, "iterations": 1, "warmup": 1}
        >>> row = ssdtrt.bench_files([module], device="cpu", evaluation=evaluation, **few).rows[1]
        >>> row.accuracy.images, row.accuracy.difference, row.images_per_second > 0
        (1, 0.0, True)
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        match_classes: str = config.CLASS_MATCHING[0],
        orient: bool = False,
        subset: bool = False,
        value_range: ValueRange | None = None,
        max_pixels: int | None = None,
        decode: str = config.DECODE[0],
        progress: Progress = silent,
    ):
        load_coco_tools()
        progress("reading the annotations")
        self._annotations, self._pictures = find_pictures(read_annotations(annotations), images, subset=subset)
        self._progress = progress
        self._orientation: tuple[str, ...] | None = None
        self.settings = EvalSettings(
            annotations=str(annotations),
            min_score=config.MIN_SCORE,
            nms_iou=config.NMS_IOU,
            max_detections=config.MAX_DETECTIONS,
            images=str(images),
            faster_coco_eval=installed("faster-coco-eval"),
            orient=orient,
            annotations_sha256=sha256_file(annotations),
            match_classes=match_classes,
            value_range=value_range,
            max_pixels=max_pixels,
            decode=decode,
        )

    def check(self, *models: Sequence[str]) -> None:
        """Raise AnnotationsError for a model whose labels, the background first, do not fit the categories."""
        for labels in models:
            match_categories(self._annotations.categories, labels, self.settings.match_classes)

    def check_decoding(self, *files: tuple[torch.device, str]) -> None:
        """Raise SsdtrtError where JPEGs are to be decoded on a GPU, for a file's device or preprocessing that cannot."""
        for device, preprocess in files:
            decoder_for(self.settings.decode, device, preprocess, self.settings.decode == "gpu")

    def of(self, runner: FileRunner | EagerRunner, name: str, *, results: str | Path | None = None) -> EvalReport:
        """Return the figures of one runner.

        Args:
            runner: The runner.
            name: The name of the report.
            results: A file for the detections, as COCO's results.

        Raises:
            SsdtrtError: If its classes do not fit, or a box or a score is not finite.
        """
        failures: list[ImageError] = []
        sizes: dict[CocoId, tuple[int, int]] = {}
        notes_of_run: list[str] = []
        known, settings = self._annotations, self.settings
        with contextlib.nullcontext() if results is None else CocoResults(results) as writer:
            every = self._detections(runner, name, sizes, failures, notes_of_run.append)
            if writer is not None:
                categories, _ = match_categories(known.categories, runner.labels, settings.match_classes)
                every = _written(every, writer, categories)
            report = evaluate_detections(known, every, runner.labels, settings.match_classes)
        if self._orientation is None:
            self._orientation = orientation_notes(known, self._pictures, sizes, settings.orient, self._progress)
        notes = [*self._orientation, *report.notes, *notes_of_run]
        count = counted(len(self._pictures), "picture")
        if failures:
            notes.append(f"{len(failures)} of {count} could not be read; counted as without detections")
        if not runner.trained:
            notes.append(UNTRAINED)
        return replace(
            report,
            name=name,
            precision=runner.precision,
            settings=settings,
            notes=tuple(notes),
            failures=tuple(map(str, failures)),
        )

    def _detections(
        self,
        runner: FileRunner | EagerRunner,
        name: str,
        sizes: dict[CocoId, tuple[int, int]],
        failures: list[ImageError],
        note: Progress,
    ) -> Iterator[PictureDetections]:
        """The detections of each picture that can be read, whose size is added to `sizes` {image id: size}."""
        detector = Detector(
            runner,
            threshold=self.settings.min_score,
            max_detections=self.settings.max_detections,
            orient=self.settings.orient,
            note=note,
            value_range=self.settings.value_range,
            max_pixels=self.settings.max_pixels,
            decode=self.settings.decode,
        )
        ids, paths = list(self._pictures), list(self._pictures.values())
        bar = ProgressBar(self._progress, f"evaluating {name}", len(paths))
        stream = detector.stream(paths, failures, many=len(paths) >= config.MANY_PICTURES)
        for done, (index, found) in enumerate(stream, 1):
            sizes[ids[index]] = found.width, found.height
            bar.update(done + len(failures))
            yield PictureDetections(ids[index], found.xyxy, found.class_id, found.confidence)


def _written(
    detections: Iterable[PictureDetections], results: CocoResults, categories: Sequence[CocoId | None]
) -> Iterator[PictureDetections]:
    """The same detections, which are written as COCO's results on the way."""
    for found in detections:
        results.write(found.image_id, *in_categories(categories, found.xyxy, found.class_id, found.confidence))
        yield found
