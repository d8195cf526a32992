"""What the commands share: options, checks of paths, and the output of reports."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssdtrt import config
from ssdtrt.artifact.precision import BACKENDS, Backend
from ssdtrt.artifact.request import BatchRange
from ssdtrt.commands.parameters.types import (
    BATCH_SIZE,
    Device,
    Names,
    Range,
    Score,
    Values,
    complete_classes,
    complete_labels,
    complete_weights,
    split_names,
)
from ssdtrt.commands.terminal import Terminal, printable
from ssdtrt.system.report import Report

if TYPE_CHECKING:
    from ssdtrt.detection.results import ImageDetections
    from ssdtrt.runners.runner import FileRunner

R = TypeVar("R", bound=Report)
_INT8 = ("calibration", "calibrator", "calibration_table", "keep_fp16", "images", "annotations", "min_ap_ratio")

terminal = Terminal()

device_option = click.option("--device", type=Device(), help="cpu, cuda or cuda:1.  [default: that of the file]")
weights_option = click.option(
    "--weights",
    default=config.WEIGHTS,
    show_default=True,
    shell_complete=complete_weights,
    metavar="NAME",
    help=f"{', '.join(config.NAMED_WEIGHTS)}, or a checkpoint's path; scenes are those in the package.",
)
labels_option = click.option(
    "--labels",
    metavar="FILE",
    shell_complete=complete_labels,
    help="Class names, one a line, without the background; coco for COCO's.",
)
trust_option = click.option("--trust-weights", is_flag=True, help="Let the checkpoint run code while it loads.")
json_option = click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - for stdout.")
markdown_option = click.option(
    "--markdown", "markdown_file", metavar="FILE", help="Write the report for GitHub; - for stdout."
)
module_option = click.option("--module", metavar="FILE", help="The module the engine was built from.")
sha256_option = click.option("--sha256", metavar="DIGEST", help="The SHA-256 that the file must have.")
threshold_option = click.option(
    "--threshold", type=Score(), default=config.THRESHOLD, show_default=True, help="Lowest score, of 0..1."
)
classes_option = click.option(
    "--classes",
    metavar="A,B",
    callback=split_names,
    shell_complete=complete_classes,
    help="Only these, by name or number.  [default: all]",
)
batch_size_option = click.option(
    "--batch-size", type=BATCH_SIZE, metavar="N", help=f"One batch size.  [default: {config.BATCH_SIZE}]"
)
batch_range_option = click.option("--batch-range", type=Range(), metavar="MIN:OPT:MAX", help="A range of batch sizes.")
against_option = click.option(
    "--against", type=Names(config.BENCH_CASES), metavar="NAME[,NAME...]", help="More to measure."
)
preprocess_option = click.option(
    "--preprocess",
    type=click.Choice(config.PREPROCESSES),
    default=config.PREPROCESS,
    show_default=True,
    help="eval: the whole picture resized; hub: its center crop.",
)


def backend_option(default: str | None, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option --backend, with its default in words."""
    words = f"torchscript builds for the CPU.  [default: {text}]"
    return click.option("--backend", type=click.Choice(list(BACKENDS)), default=default, help=words)


def chosen_batch(backend: Backend | None, size: int | None, batch_range: BatchRange | None) -> BatchRange | int | None:
    """Return what --batch-size or --batch-range ask for, and refuse both, or one that the back end does not support."""
    if size and batch_range:
        raise click.UsageError("Give --batch-size or --batch-range, not both.")
    if (size or batch_range) and backend and not backend.fixed_batch:
        raise click.UsageError(f"The backend {backend.name} takes any batch: leave out --batch-size and --batch-range.")
    return batch_range or size


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options on how pictures are read; the command takes them as the dict `reading`."""

    @click.option(
        "--range",
        "value_range",
        type=Values(),
        metavar="LOW:HIGH",
        help="Which values of pictures of more than 8 bits become black and white.  [default: those that they fill]",
    )
    @click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        metavar="N",
        help="Most pixels of a picture.  [default: Pillow's 178956970]",
    )
    @functools.wraps(command)
    def with_reading(*arguments: Any, value_range: Any, max_pixels: int | None, **others: Any) -> Any:
        return command(*arguments, reading={"value_range": value_range, "max_pixels": max_pixels}, **others)

    return with_reading


decode_option = click.option(
    "--decode",
    type=click.Choice(config.DECODE),
    default=config.DECODE[0],
    show_default=True,
    help="Where JPEGs are decoded.  auto: on the GPU, where nvImageCodec is installed and that is faster.",
)


def int8_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --int8 and its options; the command takes those that were given as the dict `int8`, which is None without --int8."""

    @click.option("--int8", "wanted", is_flag=True, help="8-bit integers with TensorRT; needs --calibration.")
    @click.option("--calibration", metavar="DIR", help="INT8: pictures to measure ranges on.")
    @click.option(
        "--calibrator",
        type=click.Choice(config.CALIBRATORS),
        metavar="NAME",
        help=f"INT8: how ranges are found: {', '.join(config.CALIBRATORS[:-1])} or {config.CALIBRATORS[-1]}.  [default: {config.CALIBRATORS[0]}]",
    )
    @click.option("--calibration-table", metavar="FILE", help="INT8: ranges that were measured before.")
    @click.option(
        "--keep-fp16", metavar="NAMES", help="INT8: layers that stay in FP16: `auto`, `none` or names.  [default: auto]"
    )
    @click.option("--images", metavar="DIR", help="INT8: annotated pictures to judge it on.")
    @click.option("--annotations", metavar="FILE", help="INT8: their annotations, in COCO's instances format.")
    @click.option(
        "--min-ap-ratio",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="RATIO",
        help=f"INT8: the least AP on them, as a share of FP32's.  [default: {config.MIN_AP_RATIO}]",
    )
    @functools.wraps(command)
    def with_int8(*arguments: Any, wanted: bool, **others: Any) -> Any:
        int8 = {name: value for name in _INT8 if (value := others.pop(name)) is not None}
        if int8 and not wanted:
            raise click.UsageError(f"--{next(iter(int8)).replace('_', '-')} is for --int8.")
        return command(*arguments, int8=int8 if wanted else None, **others)

    return with_int8


def saving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options on what is drawn; the command takes them as the dict `saving`, which is empty without any."""

    @click.option("--save-crops", is_flag=True, help="Each detection cut out too, in DIR/crops/CLASS.")
    @click.option("--no-labels", is_flag=True, help="Draw boxes without classes and scores.")
    @click.option("--side-by-side", is_flag=True, help="Draw the FP32 model's detections beside each picture.")
    @functools.wraps(command)
    def with_saving(*arguments: Any, save_crops: bool, no_labels: bool, side_by_side: bool, **others: Any) -> Any:
        saving = {"side_by_side": True} if side_by_side else {}
        saving |= {"save_crops": True} if save_crops else {}
        saving |= {"show_labels": False} if no_labels else {}
        return command(*arguments, saving=saving, **others)

    return with_saving


def format_option(formats: Sequence[str], text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option --format, whose default is the first of the formats."""
    return click.option(
        "--format", "file_format", type=click.Choice(formats), default=formats[0], show_default=True, help=text
    )


def check_json(*files: str | None) -> None:
    """Refuse paths that a report cannot be written to, before any work is done.

    An existing file that is not text, such as a picture or an engine, is refused too. Devices and pipes are accepted.
    """
    from ssdtrt.system.files import is_special
    from ssdtrt.system.outputs import check_output

    for file in files:
        if not file or file == "-" or is_special(file):
            continue
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                if b"\0" in opened.read(1024):
                    raise click.UsageError(f"{file} exists and is not a text file; give another path for the report.")
        check_output(file, "")


def check_apart(outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse a path that is given for two outputs, or for an output and an input.

    Args:
        outputs: The paths of the outputs, by option; `-` is stdout.
        inputs: The paths of the inputs.
    """
    seen: dict[str, str] = {}
    read = {os.path.realpath(path) for path in inputs if path}
    for option, path in outputs.items():
        if path is None:
            continue
        place = "-" if path == "-" else os.path.realpath(path)
        if place in read:
            raise click.UsageError(f"{path} is an input; give another path for {option}.")
        if place in seen:
            where = "go to stdout" if path == "-" else f"be written to {path}"
            raise click.UsageError(f"Only one of {seen[place]} and {option} can {where}.")
        seen[place] = option


def show(
    report: R,
    json_file: str | None,
    text: Callable[[R, int], str],
    markdown_file: str | None = None,
    markdown: Callable[[R], str] | None = None,
    err: bool = False,
) -> None:
    """Show a report as text on stdout, and write it as JSON and Markdown if requested.

    In GitHub Actions the Markdown is also appended to the job summary.

    Args:
        report: The report.
        json_file: The path for JSON, or `-` for JSON on stdout instead of the text.
        text: Renders the report for a terminal with a number of columns.
        markdown_file: The path for Markdown, or `-` for Markdown on stdout instead of the text.
        markdown: Renders the report as Markdown.
        err: Whether the text goes to stderr, as stdout has something else.
    """
    terminal.done()
    data = json.dumps(report.document(), indent=1) + "\n"
    page = markdown(report) if markdown else ""
    shown = data if json_file == "-" else page if markdown_file == "-" else ""
    shown = shown or printable(text(report, terminal.width()), "\n")
    click.echo(shown, nl=not shown.endswith("\n"), err=err)
    for file, written in ((json_file, data), (markdown_file, page)):
        if file and file != "-":
            from ssdtrt.system.files import write_text

            write_text(Path(file), written)
    if page:
        from ssdtrt.commands.text.tables import append_summary

        if problem := append_summary(page):
            terminal.note(problem)


def end_with(failures: Iterable[object], code: int = 1) -> None:
    """Show a line for each failure, and exit with this code if there is one."""
    terminal.done()
    lines = [printable(f"Error: {failure}") for failure in failures]
    if lines:
        click.echo("\n".join(lines), err=True)
        sys.exit(code)


def hint_verify(
    runner: FileRunner,
    file: str,
    module: str | None,
    pictures: Sequence[ImageDetections],
    reading: dict[str, Any],
) -> None:
    """Show how to verify a file on the first picture; where its module is not there, how to measure it."""
    from ssdtrt.runners.baseline import find_module

    if not terminal.hints:
        return
    if find_module(runner, module)[0] is None:
        terminal.hint("bench", file)
        return
    bounds, pixels = reading["value_range"], reading["max_pixels"]
    words: list[Any] = ["--module", module] if module else []
    words += ["--range", f"{bounds[0]!r}:{bounds[1]!r}"] if bounds else []
    words += ["--max-pixels", pixels] if pixels else []
    words += ["--allow-private"] if reading["allow_private"] else []
    terminal.hint("verify", file, *(found.image for found in pictures[:1]), *words)
