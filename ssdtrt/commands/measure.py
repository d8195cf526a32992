"""The commands that measure saved files: bench, evaluate, profile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssdtrt import config
from ssdtrt.commands.options import (
    against_option,
    check_apart,
    check_json,
    decode_option,
    device_option,
    json_option,
    module_option,
    reading_options,
    sha256_option,
    show,
    terminal,
)
from ssdtrt.commands.parameters.types import BATCH_SIZE, Names, Sizes
from ssdtrt.commands.reports import (
    bench_report_options,
    check_bench,
    check_evaluation,
    evaluation_report_options,
    finish_bench,
    finish_evaluation,
)
from ssdtrt.commands.text.tables import LAYER_COLUMNS, fill, milliseconds, shorten, table
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from ssdtrt.reporting.records import ProfileReport

_LAYERS = 20  # that the table shows
_UNASKED = (("match_classes", config.CLASS_MATCHING[0]), ("decode", config.DECODE[0]))


def evaluating_options(required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the options on annotated pictures; the command takes them as the dict `evaluating`, the arguments of Evaluation."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--images",
            required=required,
            metavar="DIR",
            help="The folder of the pictures, a quoted pattern, or - for a list on stdin.",
        )
        @click.option(
            "--annotations", required=required, metavar="FILE", help="Their annotations, in COCO's instances format."
        )
        @click.option(
            "--match-classes",
            type=click.Choice(config.CLASS_MATCHING),
            default=config.CLASS_MATCHING[0],
            show_default=True,
            help="How classes are matched to categories.",
        )
        @click.option(
            "--orient", is_flag=True, help="Turn pictures by their EXIF orientation, for upright annotations."
        )
        @click.option("--subset", is_flag=True, help="Leave out the pictures that are not there, and their objects.")
        @decode_option
        @reading_options
        @functools.wraps(command)
        def with_evaluating(*arguments: Any, reading: dict[str, Any], **others: Any) -> Any:
            names = ("images", "annotations", "match_classes", "orient", "subset", "decode")
            evaluating = {name: others.pop(name) for name in names}
            return command(*arguments, evaluating={**evaluating, **reading}, **others)

        return with_evaluating

    return decorate


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--batch-size", type=Sizes(), metavar="N[,N...]", help="Batch sizes.  [default: the file's own]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 10, on a CPU 5]")
@click.option("--iterations", type=click.IntRange(min=1), help="Timed calls a round.  [default: 10, on a CPU 4]")
@click.option(
    "--warmup", type=click.IntRange(min=1), default=config.WARMUP, show_default=True, help="Calls before them."
)
@against_option
@click.option("--parts", is_flag=True, help="Also time the steps from picture to detections.")
@evaluating_options(required=False)
@module_option
@device_option
@json_option
@bench_report_options
def bench(files, against, module, json_file, evaluating, **options):
    """Measure FILEs against the FP32 eager model.

    Without FILEs it measures ssd300.engine.ts. The names for --against are eager-tf32, eager-fp16, eager-fp16-graph,
    eager-bf16, torchscript (the module), onnxruntime (its weights in ONNX Runtime), compile (torch.compile) and
    engine-plain (FILEs without a CUDA graph); eager-fp32, engine (FILEs) and on a GPU eager-fp16-graph are always
    measured. What cannot run here has a row with the reason.

    With --images and --annotations every row has the AP and its difference to FP32 too, as evaluate computes it; the
    other options about pictures are for these. That needs faster-coco-eval (the extra `eval`).

    Example: ssdtrt bench ssd300.engine.ts --against compile,engine-plain --json bench.json
    """
    files = [*dict.fromkeys(map(Path, files or (config.ENGINE_FILE,)))]  # Each once: a report has one row of a name.
    asked = {name for name, value in evaluating.items() if value and (name, value) not in _UNASKED}
    if asked and not {"images", "annotations"} <= asked:
        raise click.UsageError("The AP takes both --images DIR and --annotations FILE.")
    names = ("markdown_file", "plot_file", "min_speedup", "max_latency_ms")
    report_options = {name: options.pop(name) for name in names}
    check_bench([*files, module, evaluating["annotations"]], json_file, **report_options)
    from ssdtrt.bench import bench_files
    from ssdtrt.evaluate import Evaluation
    from ssdtrt.run import SAMPLES

    evaluation = Evaluation(**evaluating, progress=terminal.progress) if asked else None
    options |= {"against": against or (), "batch_sizes": options.pop("batch_size"), "module": module}
    report = bench_files(files, evaluation=evaluation, progress=terminal.progress, **options)
    finish_bench(report, json_file, **report_options)
    picture, here = SAMPLES / "coffee.jpg", Path.cwd()
    terminal.hint("detect", files[0], picture.relative_to(here) if here in picture.parents else picture)


@click.command()
@click.argument("engine", default=config.ENGINE_FILE)
@evaluating_options(required=True)
@click.option(
    "--against",
    type=Names(config.BASELINES),
    metavar="NAME[,NAME]",
    help=f"Also evaluate {' or '.join(config.BASELINES)}, and compare.",
)
@click.option("--coco", metavar="FILE", help="Write the detections as COCO's results.")
@module_option
@device_option
@sha256_option
@json_option
@evaluation_report_options
def evaluate(engine, against, coco, evaluating, json_file, **options):
    """Compute COCO's twelve figures for ENGINE.

    The settings are those of the published evaluation. Needs faster-coco-eval (the extra `eval`).

    Example: ssdtrt evaluate ssd300.engine.ts --images val2017 --annotations instances_val2017.json
    """
    if coco == "-":
        raise click.UsageError("--coco needs a file: the figures go to stdout.")
    report_options = {name: options.pop(name) for name in ("markdown_file", "min_ap", "max_ap_drop")}
    inputs = [engine, options["module"], evaluating["annotations"], f"{engine}.sha256"]
    check_evaluation(inputs, against, {"--json": json_file, "--coco": coco}, **report_options)
    from ssdtrt.evaluate import evaluate_file

    terminal.progress("loading")
    options |= {"against": against or (), "results": coco, "progress": terminal.progress}
    report = evaluate_file(engine, **evaluating, **options)
    finish_evaluation(report, json_file, **report_options)
    terminal.hint("bench", engine)


@click.command()
@click.argument("engine", default=config.ENGINE_FILE)
@click.option("--batch-size", type=BATCH_SIZE, metavar="N", help="Images in a call.  [default: the best of the engine]")
@click.option(
    "--calls", type=click.IntRange(min=1), default=config.PROFILE_CALLS, show_default=True, help="Timed calls."
)
@click.option("--all", "every", is_flag=True, help=f"Show every layer, not only the {_LAYERS} that take longest.")
@device_option
@sha256_option
@json_option
def profile(engine, batch_size, calls, every, device, sha256, json_file):
    """Show how long each layer of ENGINE takes, the longest first.

    ENGINE is a TensorRT engine. The layers run one after the other here, so that their sum is more than a call takes.

    Example: ssdtrt profile ssd300.engine.ts
    """
    check_apart({"--json": json_file}, [engine])
    from ssdtrt.profile import profile_engine

    check_json(json_file)
    report = profile_engine(
        engine, batch_size=batch_size, calls=calls, device=device, sha256=sha256, progress=terminal.progress
    )
    show(report, json_file, lambda found, width: profile_text(found, width, None if every else _LAYERS))
    terminal.hint("bench", engine)


def profile_text(report: ProfileReport, width: int, limit: int | None = None) -> str:
    """Return a table of the layers that take longest, and the sums.

    Args:
        report: The profile.
        width: The columns of the terminal.
        limit: How many layers are shown; None for all.
    """
    rows = [
        (
            shorten(one.layer.name, LAYER_COLUMNS),
            one.layer.dtype or "-",
            milliseconds(one.median_ms),
            f"{100 * one.share:.1f} %",
        )
        for one in report.layers[:limit]
    ]
    lines = [
        fill(f"{report.file}, batch {report.batch_size}: {counted(len(report.layers), 'layer')}", width),
        table(("layer", "type", "ms", "of the sum"), rows, width),
    ]
    rest = report.layers[len(rows) :]
    if rest:
        took = sum(one.median_ms for one in rest)
        lines.append(fill(f"{counted(len(rest), 'more layer')}: {milliseconds(took)} ms (--all shows them)", width))
    lines.append(
        fill(
            f"sum {milliseconds(report.sum_ms)} ms, with waits between layers; a call as a CUDA graph takes "
            f"{milliseconds(report.call_ms)} ms",
            width,
        )
    )
    return "\n".join(lines)
