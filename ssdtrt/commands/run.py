"""The command run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ssdtrt import config
from ssdtrt.artifact.precision import BACKENDS
from ssdtrt.commands.options import (
    against_option,
    backend_option,
    batch_range_option,
    batch_size_option,
    check_apart,
    check_json,
    chosen_batch,
    end_with,
    json_option,
    labels_option,
    preprocess_option,
    reading_options,
    show,
    terminal,
    threshold_option,
    trust_option,
    weights_option,
)
from ssdtrt.commands.parameters.addresses import address_options
from ssdtrt.commands.parameters.folders import check_folder_name
from ssdtrt.commands.text.tables import detections_text, engine_text
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from ssdtrt.reporting.records import RunReport


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@weights_option
@preprocess_option
@labels_option
@trust_option
@backend_option(None, "tensorrt, or torchscript where that cannot be built")
@batch_size_option
@batch_range_option
@against_option
@threshold_option
@reading_options
@address_options
@click.option("-o", "--output", default=config.RUN_DIR, show_default=True, metavar="DIR", help="The folder to write.")
@json_option
def run(
    images,
    weights,
    preprocess,
    labels,
    trust_weights,
    backend,
    batch_size,
    batch_range,
    against,
    threshold,
    reading,
    output,
    json_file,
):
    """Do the whole job: export, compile, bench and detect.

    Everything, a report.json and the page report.html are written to DIR. IMAGE is a picture, its address, a
    folder, a quoted pattern, or - for a list on stdin; without any it runs on sample pictures. Without a GPU it builds
    a CPU engine, and without access to COCO's weights it uses those of the package, which find shapes in generated
    scenes; a note says so. The names for --against are those of ssdtrt bench.

    Example: ssdtrt run street.jpg -o out
    """
    batch = chosen_batch(BACKENDS[backend] if backend else None, batch_size, batch_range)
    check_apart({"--json": json_file}, [weights, labels, *images])
    check_folder_name(output)
    from ssdtrt.model.labels import read_labels
    from ssdtrt.run import run_job

    check_json(json_file)
    report = run_job(
        images,
        output,
        weights=weights,
        preprocess=preprocess,
        labels=read_labels(labels, terminal.note) if labels else None,
        trust=trust_weights,
        backend=backend,
        batch=batch,
        against=against or (),
        threshold=threshold,
        progress=terminal.progress,
        note=terminal.note,
        **reading,
    )
    show(report, json_file, _run_text)
    end_with(report.failures)
    terminal.hint("verify", os.path.join(output, config.ENGINE_FILE))


def _run_text(report: RunReport, width: int) -> str:
    """Return what was built, measured and found, and where everything is."""
    from ssdtrt.commands.text.bench import bench_text

    files = f"report.html, report.json, detections.json and {counted(len(report.detections), 'picture')}"
    parts = (
        engine_text(report.folder / config.ENGINE_FILE, report.engine, width),
        bench_text(report.bench, width),
        f"{detections_text(report.detections, width)}\nwritten to {report.folder}: {files}",
    )
    return "\n\n".join(parts)
