"""Evaluate a saved file, and the eager model that it was made from, on annotated pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.detect import Detector
from ssdtrt.detection.json_sinks import CocoId, CocoResults, in_categories
from ssdtrt.errors import ImageError
from ssdtrt.evaluation.annotations import Annotations, match_categories, read_annotations
from ssdtrt.evaluation.coco import PictureDetections, evaluate_detections, load_coco_tools
from ssdtrt.evaluation.orientation import orientation_notes
from ssdtrt.evaluation.pictures import find_pictures
from ssdtrt.evaluation.report import EvalReport
from ssdtrt.images.levels import ValueRange
from ssdtrt.runners.baseline import EagerRunner, baseline_runners
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, ProgressBar, silent
from ssdtrt.system.report import counted
from ssdtrt.system.versions import measured_on


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
    load_coco_tools()
    progress("reading the annotations")
    known = read_annotations(annotations)
    known, pictures = find_pictures(known, images, subset=subset)
    progress("loading")
    runner = load_engine(path, device, sha256=sha256)
    match_categories(known.categories, runner.labels, match_classes)
    baselines = baseline_runners(runner, module, against)
    each = partial(
        _evaluate_runner,
        annotations=known,
        pictures=pictures,
        orient=orient,
        match_classes=match_classes,
        reading={"value_range": value_range, "max_pixels": max_pixels},
        progress=progress,
    )
    report, sizes = each(runner, Path(path).name, results=results)
    notes = (*orientation_notes(known, pictures, sizes, orient, progress), *report.notes)
    others = tuple(each(one, name)[0] for name, one in baselines.items())
    digest = sha256_file(annotations)
    settings = replace(
        report.settings,
        images=str(images),
        orient=orient,
        annotations_sha256=digest,
        match_classes=match_classes,
        value_range=value_range,
        max_pixels=max_pixels,
    )
    return replace(report, machine=measured_on(runner.device), settings=settings, against=others, notes=notes)


def _evaluate_runner(
    runner: FileRunner | EagerRunner,
    name: str,
    *,
    annotations: Annotations,
    pictures: dict[CocoId, Path],
    orient: bool,
    match_classes: str,
    progress: Progress,
    reading: Mapping[str, Any],
    results: str | Path | None = None,
) -> tuple[EvalReport, dict[CocoId, tuple[int, int]]]:
    """The figures of one runner on the pictures {image id: path}, and {image id: size} of those that could be read."""
    failures: list[ImageError] = []
    sizes: dict[CocoId, tuple[int, int]] = {}
    notes_of_run: list[str] = []
    detector = Detector(
        runner,
        threshold=config.MIN_SCORE,
        max_detections=config.MAX_DETECTIONS,
        orient=orient,
        note=notes_of_run.append,
        **reading,
    )

    def detections() -> Iterator[PictureDetections]:
        ids, paths = list(pictures), list(pictures.values())
        bar = ProgressBar(progress, f"evaluating {name}", len(paths))
        for done, (index, found) in enumerate(
            detector.stream(paths, failures, many=len(paths) >= config.MANY_PICTURES), 1
        ):
            sizes[ids[index]] = found.width, found.height
            bar.update(done + len(failures))
            yield PictureDetections(ids[index], found.xyxy, found.class_id, found.confidence)

    with contextlib.nullcontext() if results is None else CocoResults(results) as writer:
        every = detections()
        if writer is not None:
            categories, _ = match_categories(annotations.categories, runner.labels, match_classes)
            every = _written(every, writer, categories)
        report = evaluate_detections(annotations, every, runner.labels, match_classes)
    notes = [*report.notes, *notes_of_run]
    count = counted(len(pictures), "picture")
    if failures:
        notes.append(f"{len(failures)} of {count} could not be read; counted as without detections")
    if not runner.trained:
        notes.append("untrained: seeded random weights; the figures mean nothing")
    failed = tuple(map(str, failures))
    return replace(report, name=name, precision=runner.precision, notes=tuple(notes), failures=failed), sizes


def _written(
    detections: Iterable[PictureDetections], results: CocoResults, categories: Sequence[CocoId | None]
) -> Iterator[PictureDetections]:
    """The same detections, which are written as COCO's results on the way."""
    for found in detections:
        results.write(found.image_id, *in_categories(categories, found.xyxy, found.class_id, found.confidence))
        yield found
