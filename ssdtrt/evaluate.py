"""Evaluate a saved file, and the eager model that it was made from, on annotated pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.detect import Detector
from ssdtrt.detection.json_sinks import CocoResults
from ssdtrt.errors import ImageError
from ssdtrt.evaluation.annotations import Annotations, find_pictures, listed, match_categories, read_annotations
from ssdtrt.evaluation.coco import PictureDetections, evaluate_detections, in_categories, load_coco_tools
from ssdtrt.evaluation.report import EvalReport
from ssdtrt.images.levels import ValueRange
from ssdtrt.runners.baseline import EagerRunner, baseline_runners
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.system.progress import Progress, ProgressBar, silent
from ssdtrt.system.versions import measured_on


def evaluate_file(
    path: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    against: Sequence[str] = (),
    results: str | Path | None = None,
    sha256: str | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    progress: Progress = silent,
) -> EvalReport:
    """Run a saved file over every picture of an annotation file, and compute COCO's figures.

    The settings are those of the published evaluation: score > 0.05, NMS at IoU 0.5, at most 200 detections a picture,
    EXIF orientation ignored. A picture that cannot be read counts as one without detections and is listed in
    the report's `failures`. Needs faster-coco-eval: pip install 'ssdtrt[eval]'

    Args:
        path: An engine, a detector or a module that ssdtrt wrote.
        images: The folder of the pictures.
        annotations: The annotation file, in COCO's `instances` format.
        module: The module that the file was built from, for the baselines; by default searched beside the file.
        device: The device, such as `cuda:1`; by default the one that the file is made for.
        against: Baselines to run on the same pictures: names of config.BASELINES, `eager-fp32` and `eager-fp16`.
        results: A file for the detections, as COCO's results.
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
    pictures = find_pictures(known, images)
    progress("loading")
    runner = load_engine(path, device, sha256=sha256)
    match_categories(known.categories, runner.labels)
    baselines = baseline_runners(runner, module, against)
    reading = {"value_range": value_range, "max_pixels": max_pixels}
    report = _evaluate_runner(runner, Path(path).name, known, pictures, results, progress, reading)
    others = [_evaluate_runner(one, name, known, pictures, None, progress, reading) for name, one in baselines.items()]
    settings = replace(report.settings, images=str(images))
    return replace(report, machine=measured_on(runner.device), settings=settings, against=tuple(others))


def _evaluate_runner(
    runner: FileRunner | EagerRunner,
    name: str,
    annotations: Annotations,
    pictures: dict[int, Path],
    results: str | Path | None,
    progress: Progress,
    reading: Mapping[str, Any],
) -> EvalReport:
    """The figures of one runner on the pictures {image id: path}, with notes on what does not fit the annotations."""
    failures: list[ImageError] = []
    other_size: list[str] = []
    memory_notes: list[str] = []
    detector = Detector(
        runner,
        threshold=config.MIN_SCORE,
        max_detections=config.MAX_DETECTIONS,
        orient=False,
        note=memory_notes.append,
        **reading,
    )

    def detections() -> Iterator[PictureDetections]:
        ids, paths = list(pictures), list(pictures.values())
        bar = ProgressBar(progress, f"evaluating {name}", len(paths))
        for done, (index, found) in enumerate(
            detector.stream(paths, failures, many=len(paths) >= config.MANY_PICTURES), 1
        ):
            size = found.width, found.height
            if annotations.sizes.get(ids[index], size) != size:
                other_size.append(annotations.images[ids[index]])
            bar.update(done + len(failures))
            yield PictureDetections(ids[index], found.xyxy, found.class_id, found.confidence)

    with contextlib.nullcontext() if results is None else CocoResults(results) as writer:
        every = detections() if writer is None else _written(detections(), writer, annotations, runner.labels)
        report = evaluate_detections(annotations, every, runner.labels)
    notes = [*report.notes, *memory_notes]
    count = len(pictures)
    if other_size:
        names = listed(other_size)
        notes.append(f"{len(other_size)} of {count} pictures have another size than in the annotations ({names})")
    if failures:
        notes.append(f"{len(failures)} of {count} pictures could not be read; they count as without detections")
    if not runner.trained:
        notes.append("untrained: seeded random weights; the figures mean nothing")
    failed = tuple(map(str, failures))
    return replace(report, name=name, precision=runner.precision, notes=tuple(notes), failures=failed)


def _written(
    detections: Iterable[PictureDetections], results: CocoResults, annotations: Annotations, labels: Sequence[str]
) -> Iterator[PictureDetections]:
    """The same detections, which are written as COCO's results on the way."""
    categories, _ = match_categories(annotations.categories, labels)
    for found in detections:
        results.write(found.image_id, *in_categories(categories, found))
        yield found
