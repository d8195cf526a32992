"""The commands for servers that are not ours: triton, triton-check."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from ssdtrt import config
from ssdtrt.commands.options import (
    check_apart,
    check_json,
    end_with,
    json_option,
    reading_options,
    show,
    terminal,
    threshold_option,
)
from ssdtrt.commands.parameters.types import BATCH_SIZE, Positive
from ssdtrt.commands.text.tables import fill, table

if TYPE_CHECKING:
    from ssdtrt.serving.triton.report import TritonCheck, TritonReport


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    if not re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3})*", value):
        raise click.BadParameter(f"{value!r} is not a list of GPUs, such as 0,1.", context, option)
    return tuple(sorted({int(part) for part in value.split(",")}))


@click.command()
@click.argument("engines", nargs=-1, required=True, metavar="ENGINE...")
@click.option("--repository", required=True, metavar="DIR", help="The model repository; it may be new.")
@click.option("--name", metavar="NAME", help="The model's name, for one ENGINE.  [default: the file's]")
@click.option(
    "--instances",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="How many run at once, on each GPU.",
)
@click.option("--gpus", metavar="N[,N...]", callback=_numbers, help="On these GPUs.  [default: all]")
@click.option(
    "--max-queue-delay",
    type=click.IntRange(min=0),
    default=config.TRITON_QUEUE_DELAY,
    show_default=True,
    metavar="US",
    help="Microseconds that a picture may wait for others to fill a batch.",
)
@click.option(
    "--max-batch",
    type=BATCH_SIZE,
    metavar="N",
    help=f"The largest batch, for a CPU engine.  [default: {config.TRITON_BATCH}]",
)
@json_option
def triton(engines, repository, name, instances, gpus, max_queue_delay, max_batch, json_file):
    """Write ENGINEs into a model repository of NVIDIA's Triton Inference Server.

    Engines and detectors run in its PyTorch back end, plans in its TensorRT back end. An ENGINE becomes the next version
    of its model. Nothing is overwritten but the configuration that this command wrote; a note names the container.

    Example: ssdtrt triton ssd300.detector.ts --repository models
    """
    check_apart({"--json": json_file}, engines)
    from ssdtrt.serving.triton.config import TritonOptions
    from ssdtrt.serving.triton.repository import write_repository

    check_json(json_file)
    options = TritonOptions(instances, gpus, max_queue_delay, max_batch)
    report = write_repository(engines, repository, name=name, options=options, progress=terminal.progress)
    for model in report.models:
        for note in model.notes:
            terminal.note(note)
    show(report, json_file, _triton_text)
    first = report.models[0]
    server = f"localhost:{config.TRITON_PORT}"
    terminal.hint("triton-check", server, "IMAGE", "--engine", first.file, "--model", first.name)


def _triton_text(report: TritonReport, width: int) -> str:
    """Return a line for each model."""
    lines = []
    for model in report.models:
        done = "written" if model.written else "there already, configuration written again"
        lines.append(fill(f"{model.folder}: {model.file}, backend {model.backend}, {done}", width))
    return "\n".join(lines)


@click.command("triton-check")
@click.argument("url")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--engine", metavar="FILE", help="The file that it serves, to compare with.")
@click.option("--model", metavar="NAME", help="The model.  [default: that of --engine, or the only one]")
@click.option(
    "--calls",
    type=click.IntRange(1, 100_000),
    default=config.TRITON_CALLS,
    show_default=True,
    metavar="N",
    help="How often each picture is sent, for the latency.",
)
@click.option(
    "--timeout",
    type=Positive(),
    default=config.TRITON_SECONDS,
    show_default=True,
    metavar="S",
    help="Seconds until an answer is there.",
)
@threshold_option
@reading_options
@json_option
def triton_check(url, images, engine, model, calls, timeout, threshold, reading, json_file):
    """Send IMAGEs to the Triton server at URL, and compare its answers with the file itself.

    URL is HOST:PORT of its gRPC protocol, or grpcs://HOST:PORT with TLS. IMAGE is a picture, a folder or a quoted
    pattern. Exit code 1 if it serves another file, answers otherwise than the file does, or too late. Needs tritonclient
    (the extra `triton`).

    Example: ssdtrt triton-check localhost:8001 street.jpg --engine ssd300.detector.ts
    """
    check_apart({"--json": json_file}, [engine, *images])
    from ssdtrt.reading.sources import expand
    from ssdtrt.serving.triton.check import check_server

    check_json(json_file)
    report = check_server(
        url,
        expand(images, note=terminal.note),
        engine=engine,
        model=model,
        threshold=threshold,
        calls=calls,
        timeout=timeout,
        progress=terminal.progress,
        **reading,
    )
    for note in report.notes:
        terminal.note(note)
    show(report, json_file, _check_text)
    end_with(report.failures)


def _check_text(report: TritonCheck, width: int) -> str:
    """Return the server, a row for each picture, and the latency."""
    rows = [
        (
            one.image,
            str(one.detections),
            *(
                ("-", "-", "-", "-")
                if one.passed is None
                else (
                    str(one.expected),
                    str(one.matched),
                    "-" if one.relative_l2 is None else f"{one.relative_l2:.1e}",
                    "yes" if one.passed else "no",
                )
            ),
        )
        for one in report.pictures
    ]
    header = ("picture", "server", "file", "same", "rel. L2", "passed")
    times = report.latency
    return "\n".join(
        [
            fill(f"{report.model} version {report.version} on {report.url}, Triton {report.server}", width),
            table(header, rows, width),
            fill(
                f"{times.calls} calls: p50 {times.p50_ms:.1f} ms, p90 {times.p90_ms:.1f}, p99 {times.p99_ms:.1f}, max "
                f"{times.max_ms:.1f}",
                width,
            ),
        ]
    )
