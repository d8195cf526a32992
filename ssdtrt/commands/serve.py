"""The command serve."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import click

from ssdtrt import config
from ssdtrt.commands.options import (
    check_apart,
    check_json,
    classes_option,
    decode_option,
    json_option,
    sha256_option,
    show,
    terminal,
    threshold_option,
)
from ssdtrt.commands.parameters.types import Positive
from ssdtrt.commands.text.tables import fill
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from ssdtrt.serving.service.records import ServeReport

_OF_SWAP = {"file", "ray", "swap", "sha256", "json_file"}
_OF_STOP = {"ray", "stop"}


@click.command()
@click.argument("file", required=False, metavar="FILE")
@click.option("--ray", metavar="ADDRESS", help="A Ray cluster, HOST:PORT or auto.  [default: one that is started here]")
@click.option(
    "--replicas",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="How many load FILE; more than there are GPUs share these.  "
    f"[default: 1, on a GPU one for {config.SERVE_CORES} cores, {config.SERVE_TOGETHER} at most]",
)
@click.option(
    "--host", default=config.SERVE_HOST, show_default=True, metavar="HOST",
    help="The address to listen at; 0.0.0.0 for everybody.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65535), default=config.SERVE_PORT, show_default=True, metavar="N",
    help="The port to listen at.",
)  # fmt: skip
@click.option(
    "--swap",
    is_flag=True,
    help="Put FILE into the service that runs, in place of its engine; the options of its start stay.",
)
@click.option("--stop", is_flag=True, help="End the service that runs, as SIGTERM does; without FILE.")
@threshold_option
@classes_option
@click.option(
    "--max-queue",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests that wait for a replica; more get 503.  "
    f"[default: {config.SERVE_QUEUE['cuda']}, on a CPU {config.SERVE_QUEUE['cpu']}]",
)
@click.option(
    "--max-queue-delay",
    type=click.IntRange(min=0),
    default=config.SERVE_QUEUE_DELAY,
    show_default=True,
    metavar="US",
    help="Microseconds that a picture may wait for others to fill a batch.",
)
@click.option(
    "--max-bytes", type=click.IntRange(min=1), default=config.SERVE_BYTES, show_default=True, metavar="N",
    help="Most bytes of a request's body.",
)  # fmt: skip
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=config.SERVE_PIXELS, show_default=True, metavar="N",
    help="Most pixels of a picture.",
)  # fmt: skip
@click.option(
    "--upload-timeout", type=Positive(), default=config.SERVE_UPLOAD_SECONDS, show_default=True, metavar="S",
    help="Seconds until a request's body is complete.",
)  # fmt: skip
@click.option(
    "--timeout", type=Positive(), default=config.SERVE_SECONDS, show_default=True, metavar="S",
    help="Seconds until a request is answered.",
)  # fmt: skip
@decode_option
@click.option(
    "--device", type=click.Choice(("cpu", "cuda")), help="For a module.  [default: cuda where there are GPUs]"
)
@sha256_option
@json_option
@click.pass_context
def serve(context, file, ray, swap, stop, sha256, json_file, **options):
    """Serve FILE by HTTP on Ray Serve: pictures in, detections out.

    POST a picture to /detect, or drop one on the page at /. FILE is an engine, a detector or a module. There is no
    authentication; without --host only this machine reaches it. Ctrl-C or SIGTERM ends it once all that it accepted is
    answered. Needs Ray (the extra `ray`).

    Example: ssdtrt serve ssd300.engine.ts
    """
    from ssdtrt.serving.service.service import end_service, start_service, stop_service, swap_engine, wait_for_end

    if stop:
        _check_alone(context, _OF_STOP, "--stop ends the one that runs.")
        url = end_service(ray=ray, progress=terminal.progress)
        terminal.done()
        click.echo(f"{url}: the service has ended")
        return
    if file is None:
        raise click.MissingParameter(ctx=context, param=context.command.params[0])
    check_apart({"--json": json_file}, [file, f"{file}.sha256"])
    if swap:
        _check_alone(context, _OF_SWAP, "--swap changes its engine alone.")
    check_json(json_file)
    if swap:
        show(swap_engine(file, ray=ray, sha256=sha256, progress=terminal.progress), json_file, _text)
        return
    report = start_service(file, ray=ray, sha256=sha256, progress=terminal.progress, **_fields(options))
    if report.service.note:
        terminal.note(report.service.note)
    show(report, json_file, _text)
    with contextlib.suppress(KeyboardInterrupt):
        wait_for_end()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Some send it to a process and to its group.
    terminal.progress("answering what was accepted")
    stop_service(own_cluster=ray is None)
    terminal.done()


def _check_alone(context: click.Context, allowed: set[str], why: str) -> None:
    """Refuse what is given of a service that is started."""
    given = click.core.ParameterSource.COMMANDLINE
    for one in context.command.params:
        if one.name not in allowed and one.expose_value and context.get_parameter_source(one.name) is given:
            name = "FILE" if one.name == "file" else one.opts[0]
            raise click.UsageError(f"{name} is for a service that starts; {why}")


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """The options under the names that the service has for them."""
    classes, most = options.pop("classes"), options.pop("max_queue")
    options["queue_delay"], options["upload_seconds"] = options.pop("max_queue_delay"), options.pop("upload_timeout")
    options["classes"] = classes and tuple(classes)
    return options | ({"max_queue": most} if most else {})


def _text(report: ServeReport, width: int) -> str:
    """Return where it listens, and what runs."""
    service = report.service
    runs = f"{service.engine.file}, {service.precision.upper()} on {service.device}"
    runs += "" if service.device == "cpu" else f", JPEGs decoded on the {service.decode.upper()}"
    before = f" in place of {report.before.file}" if report.before else ""
    return "\n".join(
        [
            fill(f"{report.url}: {runs}{before}, {counted(service.replicas, 'replica')}", width),
            fill(f"another engine: ssdtrt serve FILE --swap --ray {report.ray}", width),
        ]
    )
