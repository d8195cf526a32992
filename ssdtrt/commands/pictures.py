"""The commands that run on pictures: detect, evaluate, run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssdtrt import config
from ssdtrt.commands.build import engine_text
from ssdtrt.commands.options import (
    check_apart,
    check_json,
    device_option,
    end_with,
    json_option,
    labels_option,
    module_option,
    preprocess_option,
    reading_options,
    sha256_option,
    show,
    terminal,
    threshold_option,
    trust_option,
    weights_option,
)
from ssdtrt.commands.params import BATCH_SIZE, Names
from ssdtrt.commands.tables import fill, shorten, table

if TYPE_CHECKING:
    from ssdtrt.detect import Detector
    from ssdtrt.detection.folder_sink import FolderSink
    from ssdtrt.detection.json_sinks import CocoSink, JsonLinesSink
    from ssdtrt.detection.results import ImageDetections, Summary
    from ssdtrt.errors import ImageError
    from ssdtrt.evaluation.report import EvalReport


@click.command()
@click.argument("file")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o", "--output", metavar="DIR", help=f"Annotated pictures and detections.json.  [default: {config.DETECT_DIR}]"
)
@click.option("--jsonl", metavar="FILE", help="A line of JSON a picture instead, as they come; - for stdout.")
@click.option("--coco", metavar="FILE", help="COCO's results instead; - for stdout.")
@threshold_option
@click.option(
    "--max-detections", type=click.IntRange(1, config.NUM_BOXES), default=config.MAX_DETECTIONS, show_default=True
)
@click.option("--side-by-side", is_flag=True, help="Draw the FP32 model's detections beside each picture.")
@module_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads or processes that read.  [default: one per core]",
)
@reading_options
@device_option
@sha256_option
def detect(
    file, images, output, jsonl, coco, threshold, max_detections, side_by_side, module, workers, reading, device, sha256
):
    """Detect objects in IMAGEs with FILE.

    IMAGE is a picture, a folder, a quoted pattern such as 'in/**/*.jpg', or - for a list on stdin. Annotated pictures
    and detections.json are written to DIR; with --jsonl or --coco only JSON is written.

    Example: ssdtrt detect ssd300.engine.ts street.jpg -o out
    """
    if side_by_side and (jsonl or coco) and not output:
        raise click.UsageError("--side-by-side draws pictures: give -o too.")
    folder = output or (None if jsonl or coco else config.DETECT_DIR)
    targets = {"-o": folder and Path(folder, "detections.json"), "--jsonl": jsonl, "--coco": coco}
    check_apart(targets, [file, module, f"{file}.sha256"])
    from ssdtrt.detect import Detector, detect_files
    from ssdtrt.images.sources import expand
    from ssdtrt.runners.baseline import baseline_runners
    from ssdtrt.runners.runner import load_engine

    check_json(jsonl, coco)
    failures: list[ImageError] = []
    coming = expand(images, sys.stdin, failures, output=folder, note=terminal.note)
    known = None if "-" in images else list(coming)  # A list on stdin may arrive while detecting.
    check_apart(targets, known or [])
    terminal.progress("loading")
    options = {"threshold": threshold, "max_detections": max_detections, "workers": workers, **reading}
    runner = load_engine(file, device, sha256=sha256)
    detector = Detector(runner, note=terminal.note, **options)
    if known is not None and not any(map(os.path.isfile, known)):
        detect_files(detector, known, [], failures)  # A mistyped name must not replace earlier results.
        end_with(failures)
    baselines = baseline_runners(runner, module, config.BASELINES[:1] if side_by_side else ())
    baseline = next((Detector(one, **options) for one in baselines.values()), None)
    sinks = _sinks(detector, folder, jsonl, coco, known, baseline, failures)
    total = None if known is None else len(known)
    summary = detect_files(detector, coming if known is None else known, sinks, failures, total, terminal.progress)
    terminal.done()
    places = [f"{folder}: {summary.pictures} pictures and detections.json"] if folder else []
    places += [target for target in (jsonl, coco) if target and target != "-"]
    text = [summary_text(summary, terminal.width()), *(f"written to {place}" for place in places)]
    click.echo("\n".join(text), err="-" in (jsonl, coco))
    end_with(summary.failures)
    if "-" not in (jsonl, coco):
        terminal.hint("verify", file, *(found.image for found in summary.first[:1]))


def _sinks(
    detector: Detector,
    folder: str | None,
    jsonl: str | None,
    coco: str | None,
    pictures: Sequence[Path] | None,
    baseline: Detector | None,
    failures: list[ImageError],
) -> list[FolderSink | JsonLinesSink | CocoSink]:
    """Return the sinks of the detections: a folder, JSON lines, COCO's results."""
    from ssdtrt.detect import folder_sink
    from ssdtrt.detection.json_sinks import CocoSink, JsonLinesSink

    labels = detector.runner.labels
    sinks: list[FolderSink | JsonLinesSink | CocoSink] = []
    if folder:
        sinks.append(folder_sink(detector, folder, pictures, baseline))
    if jsonl:
        sinks.append(JsonLinesSink(sys.stdout if jsonl == "-" else jsonl, labels))
    if coco:
        sinks.append(CocoSink(sys.stdout if coco == "-" else coco, labels, failures))
    return sinks


@click.command()
@click.argument("engine", default=config.ENGINE_FILE)
@click.option("--images", required=True, metavar="DIR", help="The folder of the pictures.")
@click.option("--annotations", required=True, metavar="FILE", help="Their annotations, in COCO's instances format.")
@click.option(
    "--against",
    type=Names(config.BASELINES),
    metavar="NAME[,NAME]",
    help=f"Also evaluate {' or '.join(config.BASELINES)}, and compare.",
)
@click.option("--coco", metavar="FILE", help="Write the detections as COCO's results.")
@module_option
@reading_options
@device_option
@sha256_option
@json_option
def evaluate(engine, images, annotations, against, coco, module, reading, device, sha256, json_file):
    """Compute COCO's twelve figures for ENGINE.

    The settings are those of the published evaluation. Needs faster-coco-eval: pip install 'ssdtrt[eval]'

    Example: ssdtrt evaluate ssd300.engine.ts --images val2017 --annotations instances_val2017.json
    """
    if coco == "-":
        raise click.UsageError("--coco needs a file: the figures go to stdout.")
    check_apart({"--json": json_file, "--coco": coco}, [engine, module, annotations, f"{engine}.sha256"])
    from ssdtrt.evaluate import evaluate_file

    check_json(json_file, coco)
    terminal.progress("loading")
    report = evaluate_file(
        engine,
        images,
        annotations,
        module=module,
        device=device,
        against=against or (),
        results=coco,
        sha256=sha256,
        progress=terminal.progress,
        **reading,
    )
    show(report, json_file, evaluation_text)
    end_with(report.failures)
    terminal.hint("bench", engine)


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@weights_option
@preprocess_option
@labels_option
@trust_option
@click.option("--batch-size", type=BATCH_SIZE, default=config.BATCH_SIZE, show_default=True, metavar="N")
@threshold_option
@reading_options
@click.option("-o", "--output", default=config.RUN_DIR, show_default=True, metavar="DIR")
def run(images, weights, preprocess, labels, trust_weights, batch_size, threshold, reading, output):
    """Do the whole job: export, compile, bench and detect.

    Everything and a report.json are written to DIR. Without IMAGEs it runs on sample photographs. Without a GPU it
    builds a CPU engine, and without access to COCO's weights it uses untrained ones; a note says so.

    Example: ssdtrt run street.jpg -o out
    """
    from ssdtrt.commands.bench_text import bench_text
    from ssdtrt.model.labels import read_labels
    from ssdtrt.run import run_job

    report = run_job(
        images,
        output,
        weights=weights,
        preprocess=preprocess,
        labels=read_labels(labels) if labels else None,
        trust=trust_weights,
        batch=batch_size,
        threshold=threshold,
        progress=terminal.progress,
        note=terminal.note,
        **reading,
    )
    terminal.done()
    click.echo(engine_text(report.folder / config.ENGINE_FILE, report.engine, terminal.width()))
    click.echo("\n" + bench_text(report.bench, terminal.width()) + "\n")
    click.echo(detections_text(report.detections, terminal.width()))
    click.echo(f"written to {report.folder}: report.json, detections.json and {len(report.detections)} pictures")
    end_with(report.failures)
    terminal.hint("detect", report.folder / config.ENGINE_FILE, "IMAGE...")


def detections_text(results: Sequence[ImageDetections], width: int) -> str:
    """Return a line for each picture, with the number of objects and the best one."""
    rows = []
    for found in results:
        best = found.detections[0] if found.detections else None
        rows.append((found.image, str(len(found.detections)), f"{best.label} {best.score:.2f}" if best else "-"))
    return table(("picture", "objects", "best"), rows, width) if rows else "no picture was read"


def summary_text(summary: Summary, width: int) -> str:
    """Return a line for each of the first twenty pictures, and the totals with the throughput."""
    lines = [detections_text(summary.first, width)]
    if summary.pictures > len(summary.first):
        lines.append(f"and {summary.pictures - len(summary.first)} more")
    rate = summary.images_per_second
    if summary.pictures:
        lines.append(fill(f"{summary.detections} objects in {summary.pictures} pictures, {rate:,.1f} images/s", width))
    return "\n".join(lines)


def evaluation_text(report: EvalReport, width: int) -> str:
    """Return COCO's figures, with those of the baselines and the differences, then all classes, and the notes."""
    from ssdtrt.evaluation.report import FIGURES

    settings = report.settings
    head = [
        *([report.machine.line] if report.machine else []),
        f"{report.name} {report.precision.upper()} on {settings.annotations}: {report.images} pictures, "
        f"{report.objects} objects, {report.detections} detections, {report.images_per_second:,.1f} images/s",
        f"score > {settings.min_score:g}, NMS at IoU {settings.nms_iou:g}, at most {settings.max_detections} "
        "detections a picture, EXIF orientation ignored",
    ]
    header = ["figure", "engine" if report.against else "value"]
    for baseline in report.against:
        header += [baseline.name, f"vs {baseline.name}"]
    figures = table(header, [_figure_cells(report, name) for name in FIGURES], width)
    parts = ["\n".join(fill(line, width) for line in head), figures, _classes_table(report, width)]
    if report.notes:
        parts.append("\n".join(fill(f"note: {note}", width) for note in report.notes))
    return "\n\n".join(parts)


def _figure_cells(report: EvalReport, name: str) -> list[str]:
    """Return one figure of the report, then for each baseline its figure and the signed difference to it."""
    cells = [name, _fraction(report.figures[name])]
    for baseline in report.against:
        difference = report.minus(baseline)[name]
        cells += [_fraction(baseline.figures[name]), "-" if difference is None else f"{difference:+.4f}"]
    return cells


def _classes_table(report: EvalReport, width: int) -> str:
    """Return a table of the classes by AP, those without objects last; names are shortened if it is too wide."""
    header = ("class", "AP", "AP50", "objects")
    ordered = sorted(report.classes, key=lambda row: (row.ap is None, -(row.ap or 0.0)))
    rows = [(row.name, _fraction(row.ap), _fraction(row.ap50), str(row.objects)) for row in ordered]
    room = width - sum(2 + max(map(len, column)) for column in list(zip(header, *rows))[1:])
    return table(header, [(shorten(name, max(room, 8)), *cells) for name, *cells in rows], width)


def _fraction(value: float | None) -> str:
    """Return a figure of 0..1 with three decimals, as COCO does."""
    return "-" if value is None else f"{value:.3f}"
