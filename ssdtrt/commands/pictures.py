"""The commands on pictures: detect, evaluate, and the whole job."""

import os
import sys
from pathlib import Path

import click

from ssdtrt import config
from ssdtrt.commands.options import (
    check_apart,
    check_json,
    device_option,
    end_with,
    json_option,
    labels_option,
    module_option,
    preprocess_option,
    sha256_option,
    show,
    show_engine,
    terminal,
    threshold_option,
    trust_option,
    weights_option,
)
from ssdtrt.commands.params import BATCH_SIZE, Names


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
@click.option("--side-by-side", is_flag=True, help="Draw what the FP32 model sees beside it.")
@module_option
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Threads or processes that read.  [default: one a core]"
)
@device_option
@sha256_option
def detect(file, images, output, jsonl, coco, threshold, max_detections, side_by_side, module, workers, device, sha256):
    """Detect in IMAGEs with FILE: annotated pictures and detections.json in DIR, or JSON alone.

    IMAGE is a picture, a folder, a quoted pattern such as 'in/**/*.jpg', or - for a list on stdin.

    Example: ssdtrt detect ssd300.engine.ts street.jpg -o out
    """
    pictures_json = Path(output or config.DETECT_DIR, "detections.json") if output or not (jsonl or coco) else None
    written = {"-o": pictures_json, "--jsonl": jsonl, "--coco": coco}
    check_apart(written, [file, module, f"{file}.sha256"])
    if side_by_side and (jsonl or coco) and not output:
        raise click.UsageError("--side-by-side draws pictures: give -o too.")
    from ssdtrt.artifact.baseline import baseline_runners
    from ssdtrt.artifact.runner import load_engine
    from ssdtrt.commands.report_text import summary_text
    from ssdtrt.detect import Detector
    from ssdtrt.detection.sinks import CocoSink, FolderSink, JsonLinesSink, detect_files
    from ssdtrt.images.sources import expand

    for target in (jsonl, coco):
        check_json(target)
    failures = []
    pictures, total = expand(images, sys.stdin, failures), None
    if "-" not in images:
        pictures = list(pictures)
        total = len(pictures)
        check_apart(written, pictures)
    terminal.progress("loading")
    options = {"threshold": threshold, "max_detections": max_detections, "workers": workers, "note": terminal.note}
    detector = Detector(load_engine(file, device, sha256=sha256), **options)
    if total is not None and not any(map(os.path.isfile, pictures)):
        detect_files(detector, pictures, [], failures)  # Nothing that lies there is lost to a name mistyped.
        end_with(failures)
    outputs = []
    if output or not (jsonl or coco):
        peers = baseline_runners(detector.runner, module, ["eager-fp32"]) if side_by_side else {}
        peer = Detector(peers["eager-fp32"], **options) if peers else None
        outputs.append(FolderSink(output or config.DETECT_DIR, detector, pictures if total is not None else None, peer))
    if jsonl:
        outputs.append(JsonLinesSink(sys.stdout if jsonl == "-" else jsonl, detector.runner.labels))
    if coco:
        outputs.append(CocoSink(sys.stdout if coco == "-" else coco, detector.runner.labels, failures))
    summary = detect_files(detector, pictures, outputs, failures, total, terminal.progress)
    terminal.done()
    text = [summary_text(summary, terminal.width())]
    if output or not (jsonl or coco):
        text.append(f"written to {output or config.DETECT_DIR}: {summary.pictures} pictures and detections.json")
    text += [f"written to {target}" for target in (jsonl, coco) if target and target != "-"]
    click.echo("\n".join(text), err="-" in (jsonl, coco))
    end_with(summary.failures)
    if "-" not in (jsonl, coco):
        terminal.hint("verify", file, *(found.image for found in summary.first[:1]))


@click.command()
@click.argument("engine", default=config.ENGINE_FILE)
@click.option("--images", required=True, metavar="DIR", help="Where the pictures are.")
@click.option("--annotations", required=True, metavar="FILE", help="What is in them, in COCO's instances format.")
@click.option(
    "--against",
    type=Names(config.BASELINES),
    metavar="NAME[,NAME]",
    help="Also evaluate eager-fp32 or eager-fp16, and compare.",
)
@click.option("--coco", metavar="FILE", help="Write the detections as COCO's results.")
@module_option
@device_option
@sha256_option
@json_option
def evaluate(engine, images, annotations, against, coco, module, device, sha256, json_file):
    """COCO's twelve figures for ENGINE, with the settings of the published evaluation.

    Needs faster-coco-eval: pip install 'ssdtrt[eval]'

    Example: ssdtrt evaluate ssd300.engine.ts --images val2017 --annotations instances_val2017.json --against eager
    """
    if coco == "-":
        raise click.UsageError("--coco needs a file: the figures go to stdout.")
    check_apart({"--json": json_file, "--coco": coco}, [engine, module, annotations, f"{engine}.sha256"])
    from ssdtrt.commands.report_text import evaluation_text
    from ssdtrt.evaluate import evaluate_file

    check_json(json_file)
    check_json(coco)
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
@click.option("-o", "--output", default=config.RUN_DIR, show_default=True, metavar="DIR")
def run(images, weights, preprocess, labels, trust_weights, batch_size, threshold, output):
    """Do the whole job: export, compile, bench and detect, with a report.

    Without IMAGEs it takes sample photographs. Without a GPU it builds a CPU engine, and without COCO's weights it
    uses untrained ones; either is said.

    Example: ssdtrt run street.jpg -o out
    """
    from ssdtrt.commands.bench_text import bench_text
    from ssdtrt.commands.report_text import detections_text
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
    )
    terminal.done()
    show_engine(report.folder / config.ENGINE_FILE, report.engine)
    click.echo("\n" + bench_text(report.bench, terminal.width()) + "\n")
    click.echo(detections_text(report.detections, terminal.width()))
    click.echo(f"written to {report.folder}: report.json, detections.json and {len(report.detections)} pictures")
    end_with(report.failures)
    terminal.hint("detect", report.folder / config.ENGINE_FILE, "IMAGE...")
