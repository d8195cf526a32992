"""COCO's twelve figures for an engine, and for the eager model it came from, on pictures whose objects are known."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.artifact.baseline import EagerRunner, baseline_runners
from ssdtrt.artifact.runner import FileRunner, load_engine
from ssdtrt.detect import Detector
from ssdtrt.detection.json_writers import CocoResults, to_xywh
from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.evaluation.annotations import Annotations, find_pictures, listed, match_categories, read_annotations
from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.versions import installed, installed_versions, this_machine

Found = "tuple[int, np.ndarray, np.ndarray, np.ndarray]"
"""(image id, boxes_xyxy [K, 4] in pixels, labels [K] in 1..C-1, scores [K])"""

PROGRESS_EVERY = 20  # pictures between two progress lines


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
    progress: Progress = silent,
) -> EvalReport:
    """Runs a saved engine or module over every picture of an annotation file, and gives COCO's figures.

    `images` is the pictures' directory. The settings are those of the published evaluation: score > 0.05, NMS at IoU
    0.5, 200 detections a picture, EXIF orientation ignored. `against` names peers of config.PEERS that are run on the
    same pictures, with the weights of the module that the engine was built from (see `find_module`). `results` is where
    the detections are written as COCO's results, `sha256` the digest that the file must have. A picture that cannot be
    read counts as one without detections and stands in the report's `failures`. Raises SsdtrtError, before the first
    picture where it can be known by then.
    """
    coco_tools()
    progress("reading the annotations")
    known = read_annotations(annotations)
    places = find_pictures(known, images)
    progress("loading")
    runner = load_engine(path, device, sha256=sha256)
    match_categories(known.categories, runner.labels)
    peers = baseline_runners(runner, module, against)
    report = evaluate_runner(runner, Path(path).name, known, places, results, progress)
    others = [evaluate_runner(peer, name, known, places, None, progress) for name, peer in peers.items()]
    versions = {**installed_versions(), "faster_coco_eval": installed("faster-coco-eval")}
    return replace(
        report,
        machine={**this_machine(runner.device), "versions": versions},
        settings={**report.settings, "images": str(images)},
        against=tuple(others),
    )


def evaluate_runner(
    runner: FileRunner | EagerRunner,
    name: str,
    annotations: Annotations,
    places: dict[int, Path],
    results: str | Path | None = None,
    progress: Progress = silent,
) -> EvalReport:
    """One runner on the pictures `places` {image id: path}, with notes on those that do not fit the annotations."""
    failures: list[ImageError] = []
    sizes: dict[int, tuple[int, int]] = {}
    halved: list[str] = []
    found = counted(detections_of(runner, places, failures, sizes, halved.append), name, len(places), progress)
    with contextlib.nullcontext() if results is None else CocoResults(results) as writer:
        if writer is not None:
            found = written(found, writer, annotations, runner.labels)
        report = evaluate_detections(annotations, found, runner.labels)
    notes = [*report.notes, *halved]
    odd = [image for image, size in sizes.items() if size != annotations.sizes.get(image, size)]
    if odd:
        names = listed([annotations.images[image] for image in odd])
        notes.append(f"not of the size in the annotations, so boxes cannot fit: {len(odd)} of {len(places)} ({names})")
    if failures:
        notes.append(f"{len(failures)} of {len(places)} pictures could not be read; they count as without detections")
    if not runner.trained:
        notes.append("untrained: seeded random weights; the figures mean nothing")
    failed = tuple(map(str, failures))
    return replace(report, name=name, precision=runner.precision, notes=tuple(notes), failures=failed)


def detections_of(
    runner: FileRunner | EagerRunner,
    places: dict[int, Path],
    failures: list[ImageError],
    sizes: dict[int, tuple[int, int]],
    note: Progress = silent,
) -> Iterator[Found]:
    """Each readable picture's detections, with the published settings. The one place that knows Detector.

    What cannot be read goes to `failures`, and the (width, height) of what can to `sizes`, by image id; `note` is told
    when the GPU's memory is too small for the batch.
    """
    settings = {"threshold": config.MIN_SCORE, "max_detections": config.MAX_DETECTIONS, "orient": False}
    detector = Detector(runner, **settings, note=note)
    numbers = list(places)
    for index, found in detector.stream(list(places.values()), failures, many=len(places) >= config.MANY):
        sizes[numbers[index]] = found.width, found.height
        yield numbers[index], found.boxes, found.labels, found.scores


def counted(found: Iterable[Found], name: str, total: int, progress: Progress) -> Iterator[Found]:
    """Passes detections on, and says how far they are."""
    for done, one in enumerate(found, 1):
        if done % PROGRESS_EVERY == 0 or done == total:
            progress(f"evaluating {name}, {done} of {total} pictures")
        yield one


def written(
    found: Iterable[Found], results: CocoResults, annotations: Annotations, labels: Sequence[str]
) -> Iterator[Found]:
    """Passes detections on, and writes them as COCO's results."""
    categories, _ = match_categories(annotations.categories, labels)
    for image, boxes_xyxy, numbers, scores in found:
        results.write(image, *in_categories(categories, boxes_xyxy, numbers, scores))
        yield image, boxes_xyxy, numbers, scores


def evaluate_detections(
    annotations: Annotations, detections: Iterable[Found], labels: Sequence[str] = config.COCO_LABELS
) -> EvalReport:
    """COCO's figures for boxes.

    `detections` are (image id, boxes_xyxy [K, 4] in pixels, labels [K] in 1..C-1, scores [K]), a picture once; one that
    does not come has no detections. `labels` are the model's, background first. Raises SsdtrtError for a picture that
    the annotations do not list or that comes twice, and for what is not finite.
    """
    categories, notes = match_categories(annotations.categories, labels)
    rows: list[dict] = []
    seen: set[int] = set()
    started = time.perf_counter()
    for image, boxes_xyxy, numbers, scores in detections:
        if image not in annotations.images or image in seen:
            raise SsdtrtError(f"Detections of picture {image} came twice, or {annotations.path} does not list it.")
        seen.add(image)
        rows += coco_rows(image, *in_categories(categories, boxes_xyxy, numbers, scores))
    seconds = time.perf_counter() - started
    figures, classes = coco_figures(annotations, rows)
    return EvalReport(
        name="",
        precision="",
        figures=figures,
        classes=classes,
        images=len(annotations.images),
        objects=sum(row.objects for row in classes),
        detections=len(rows),
        seconds=seconds,
        images_per_second=len(seen) / seconds if seconds > 0 else 0.0,
        settings={
            "annotations": str(annotations.path),
            "min_score": config.MIN_SCORE,
            "nms_iou": config.NMS_IOU,
            "max_detections": config.MAX_DETECTIONS,
        },
        notes=(*annotations.notes, *notes),
    )


def in_categories(
    categories: Sequence[int | None], boxes_xyxy, labels, scores
) -> tuple[np.ndarray, list[int], np.ndarray]:
    """The detections whose label has a category: boxes_xyxy [K, 4], category ids [K], scores [K]."""
    found = [categories[label] for label in np.asarray(labels).tolist()]
    good = [index for index, category in enumerate(found) if category is not None]
    boxes_xyxy, scores = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    return boxes_xyxy[good], [found[index] for index in good], scores[good]


def coco_rows(image: int, boxes_xyxy: np.ndarray, category_ids: Sequence[int], scores: np.ndarray) -> list[dict]:
    """One picture's detections as COCO's dicts. Raises SsdtrtError for what is not finite."""
    boxes_xywh = to_xywh(boxes_xyxy)
    if not (np.isfinite(boxes_xywh).all() and np.isfinite(scores).all()):
        raise SsdtrtError(f"Picture {image}: a box or score is not finite: the engine overflows (see ssdtrt verify).")
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score, "area": box[2] * box[3]}
        for box, category, score in zip(boxes_xywh.tolist(), category_ids, scores.tolist())
    ]


def coco_tools():
    """faster-coco-eval's COCO and COCOeval_faster. Raises SsdtrtError where it is not installed."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise SsdtrtError(f"Evaluation needs faster-coco-eval ({error}): pip install 'ssdtrt[eval]'") from error
    return COCO, COCOeval_faster


def coco_figures(
    annotations: Annotations, rows: list[dict]
) -> tuple[dict[str, float | None], tuple[ClassFigures, ...]]:
    """The twelve figures, and those of each category, by id, from detections as COCO's dicts, which it numbers."""
    coco, coco_eval = coco_tools()
    images = [{"id": image} for image in annotations.images]
    categories = [{"id": number, "name": name} for number, name in annotations.categories.items()]

    def dataset(objects):
        # Numbered from 1: a 0 means "not matched" to COCO's evaluation, and a file may repeat its ids.
        for index, one in enumerate(objects, 1):
            one["id"] = index
        return coco({"images": images, "categories": categories, "annotations": objects})

    truth = dataset([dict(one) for one in annotations.objects])
    run = coco_eval(truth, dataset(rows), iouType="bbox", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    counts = dict.fromkeys(annotations.categories, 0)
    for one in annotations.objects:
        counts[one["category_id"]] += not one["iscrowd"]
    precision = run.eval["precision"][..., 0, -1]  # [IoU, recall, category]: objects of any size, 100 detections
    classes = tuple(
        ClassFigures(name, number, _mean(precision[:, :, index]), _mean(precision[0, :, index]), counts[number])
        for index, (number, name) in enumerate(annotations.categories.items())
    )
    return {name: _figure(value) for name, value in zip(FIGURES, run.stats)}, classes


def _mean(values: np.ndarray) -> float | None:
    """The mean of those that are not -1, which COCO has where there is no object."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _figure(value: float) -> float | None:
    return None if value < 0 else float(value)
