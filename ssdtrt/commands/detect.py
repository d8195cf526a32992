"""The command detect."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssdtrt import config
from ssdtrt.commands.distributed.batch import ray_options
from ssdtrt.commands.options import (
    check_apart,
    check_json,
    classes_option,
    decode_option,
    device_option,
    end_with,
    hint_verify,
    json_option,
    module_option,
    reading_options,
    saving_options,
    sha256_option,
    show,
    terminal,
    threshold_option,
)
from ssdtrt.commands.parameters.addresses import address_options
from ssdtrt.commands.parameters.folders import check_folder_name
from ssdtrt.commands.parameters.types import Overlap
from ssdtrt.commands.text.tables import stages_text, summary_text
from ssdtrt.commands.video import video_options
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from ssdtrt.detect import Detector
    from ssdtrt.detection.results import Summary
    from ssdtrt.errors import ImageError
    from ssdtrt.evaluation.annotations import Annotations
    from ssdtrt.evaluation.pictures import CocoIds
    from ssdtrt.reporting.records import DetectReport
    from ssdtrt.runners.runner import FileRunner
    from ssdtrt.sinks.folder_sink import FolderSink
    from ssdtrt.sinks.json_sinks import CocoSink, JsonLinesSink

_SAVING = {"side_by_side": "--side-by-side", "save_crops": "--save-crops", "show_labels": "--no-labels"}


@click.command()
@click.argument("file")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="Annotated pictures and detections.json, in place of those of the run before.  "
    f"[default: {config.DETECT_DIR}, {config.DETECT_DIR}-2 and so on]",
)
@click.option("--jsonl", metavar="FILE", help="A line of JSON a picture instead, as they come; - for stdout.")
@click.option("--coco", metavar="FILE", help="COCO's results instead; - for stdout.")
@click.option("--annotations", metavar="FILE", help="A COCO file that gives --coco its picture and category ids.")
@threshold_option
@click.option(
    "--max-detections",
    type=click.IntRange(1, config.NUM_BOXES),
    default=config.MAX_DETECTIONS,
    show_default=True,
    help="Most detections of a picture.",
)
@classes_option
@click.option(
    "--nms-iou", type=Overlap(), default=config.NMS_IOU, show_default=True, help="The IoU of boxes that are one object."
)
@saving_options
@module_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads or processes that read.  [default: one per core]",
)
@reading_options
@partial(address_options, also="; for a video, the longest wait for data")
@decode_option
@click.option("--timing", is_flag=True, help="Also how busy each stage was, and which one the others wait for.")
@device_option
@sha256_option
@json_option
@ray_options
@video_options
def detect(
    file, images, output, jsonl, coco, annotations, saving, module, reading, device, sha256, json_file, **options
):
    """Detect objects in IMAGEs with FILE.

    IMAGE is a picture, its https or http address, a folder, a quoted pattern such as 'in/**/*.jpg', or - for a list on
    stdin. Annotated pictures and detections.json are written to DIR, where those of an earlier run are removed and
    nothing else is; with --jsonl or --coco only JSON is written. Or IMAGE is a video or a stream's address, and -o the
    annotated video, such as out.mp4, or a folder. With --ray a cluster detects, and Parquet files are written.

    Example: ssdtrt detect ssd300.engine.ts street.jpg -o out
    """
    draws, timing = bool(output) or not (jsonl or coco), options.pop("timing")
    _check_usage(output, draws, saving, annotations, coco)
    targets = {"-o": output and Path(output, config.DETECTIONS_FILE), "--jsonl": jsonl, "--coco": coco}
    targets["--json"] = json_file
    check_apart(targets, [file, module, annotations, f"{file}.sha256"])
    from ssdtrt.detect import Detector, detect_files
    from ssdtrt.evaluation.annotations import read_annotations
    from ssdtrt.reading.fetch import can_be_read, first_fetched
    from ssdtrt.reading.sources import expand
    from ssdtrt.runners.baseline import baseline_runners
    from ssdtrt.runners.runner import load_engine
    from ssdtrt.system.devices import use_more_queues
    from ssdtrt.system.outputs import new_folder

    check_json(jsonl, coco, json_file)
    failures: list[ImageError] = []
    coming = expand(images, failures=failures, output=output, addresses=True, note=terminal.note)
    # A list on stdin may arrive while detecting; COCO's ids are known before.
    known = None if "-" in images and not coco else list(coming)
    check_apart(targets, known or [])
    listed = read_annotations(annotations, objects_needed=False) if annotations else None
    terminal.progress("loading")
    options |= reading
    use_more_queues()  # Before CUDA starts.
    runner = load_engine(file, device, sha256=sha256)
    detector = Detector(runner, **options, note=terminal.note)
    first = _up_to_first(coming, can_be_read)
    given = first_fetched(known or [], detector.addresses, failures)
    if not any(map(can_be_read, [*first, *given])):
        detect_files(detector, [*first, *given], [], failures)  # A mistyped name must not replace earlier results.
        end_with(failures)
    baselines = baseline_runners(runner, module, config.BASELINES[:1] if saving.pop("side_by_side", False) else ())
    baseline = next((Detector(one, **options, note=terminal.note) for one in baselines.values()), None)
    ids = _coco_ids(known or (), runner.labels, listed) if coco else None  # Before anything is written.
    folder = new_folder(config.DETECT_DIR) if draws and not output else output
    sinks = _sinks(detector, folder, jsonl, coco, ids, baseline=baseline, **saving)
    total = None if known is None else len(known)
    pictures = itertools.chain(first, coming) if known is None else given
    summary = detect_files(detector, pictures, sinks, failures, total, terminal.progress)
    report = _detect_report(runner, summary, folder, jsonl, coco)
    crops = f", {counted(summary.detections, 'crop')}" if "save_crops" in saving else ""
    text = partial(_detect_text, summary=summary, crops=crops, timing=timing)
    show(report, json_file, text, err="-" in (jsonl, coco))
    end_with(summary.failures)
    if "-" not in (jsonl, coco, json_file):
        hint_verify(runner, file, module, summary.first, reading)


def _up_to_first(coming: Iterator[Any], fits: Callable[[Any], bool]) -> list[Any]:
    """Take what comes, up to the first that fits."""
    taken = []
    for one in coming:
        taken.append(one)
        if fits(one):
            break
    return taken


def _check_usage(
    output: str | None, draws: bool, saving: Mapping[str, Any], annotations: str | None, coco: str | None
) -> None:
    check_folder_name(output)
    if not draws and saving:
        raise click.UsageError(f"{_SAVING[next(iter(saving))]} draws pictures: give -o too.")
    if annotations and not coco:
        raise click.UsageError("--annotations has the ids for COCO's results: give --coco too.")


def _detect_report(
    runner: FileRunner, summary: Summary, folder: str | Path | None, jsonl: str | None, coco: str | None
) -> DetectReport:
    from ssdtrt.reporting.records import DetectReport
    from ssdtrt.system.versions import measured_on

    return DetectReport(
        file=str(runner.path),
        precision=runner.precision,
        machine=measured_on(runner.device),
        pictures=summary.pictures,
        detections=summary.detections,
        seconds=summary.seconds,
        images_per_second=summary.images_per_second,
        folder=None if folder is None else str(folder),
        jsonl=jsonl,
        coco=coco,
        failures=tuple(map(str, summary.failures)),
        stages=summary.stages,
    )


def _detect_text(report: DetectReport, width: int, summary: Summary, crops: str, timing: bool) -> str:
    """Return what was found, where it was written and, for `timing`, how busy each stage was."""
    pictures = counted(report.pictures, "picture")
    places = [f"{report.folder}: {pictures}{crops} and detections.json"] if report.folder else []
    places += [target for target in (report.jsonl, report.coco) if target and target != "-"]
    stages = ["", stages_text(summary.stages, width)] if timing else []
    return "\n".join([summary_text(summary, width), *(f"written to {place}" for place in places), *stages])


def _sinks(
    detector: Detector,
    folder: str | Path | None,
    jsonl: str | None,
    coco: str | None,
    ids: CocoIds | None,
    **drawing: Any,
) -> list[FolderSink | JsonLinesSink | CocoSink]:
    """Return the sinks of the detections: a folder, JSON lines, COCO's results."""
    from ssdtrt.detect import folder_sink
    from ssdtrt.sinks.json_sinks import CocoSink, JsonLinesSink

    labels = detector.runner.labels
    sinks: list[FolderSink | JsonLinesSink | CocoSink] = []
    if folder:
        sinks.append(folder_sink(detector, folder, **drawing))
    if jsonl:
        sinks.append(JsonLinesSink(sys.stdout if jsonl == "-" else jsonl, labels))
    if coco and ids is not None:
        sinks.append(CocoSink(sys.stdout if coco == "-" else coco, ids.images, ids.categories))
    return sinks


def _coco_ids(pictures: Sequence[str | Path], labels: Sequence[str], annotations: Annotations | None) -> CocoIds:
    """Return the ids for COCO's results, and show what does not fit the annotations."""
    from ssdtrt.evaluation.pictures import coco_ids
    from ssdtrt.reading.addresses import shown

    ids = coco_ids([shown(str(picture)) for picture in pictures], labels, annotations)
    for note in ids.notes:
        terminal.note(note)
    return ids
