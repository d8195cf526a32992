"""The command line: parse, one library call, show."""

import contextlib
import logging
import os
import signal
import sys
import threading

import click

from ssdtrt import __version__, config
from ssdtrt.artifact.capabilities import BACKENDS
from ssdtrt.commands.machine import doctor
from ssdtrt.commands.options import (
    check_apart,
    check_json,
    device_option,
    json_option,
    labels_option,
    module_option,
    preprocess_option,
    sha256_option,
    show,
    show_engine,
    terminal,
    trust_option,
    weights_option,
)
from ssdtrt.commands.params import BATCH_SIZE, Batch, Names, Sizes
from ssdtrt.commands.pictures import detect, evaluate, run
from ssdtrt.commands.reports import check_demands, compare, demands, finish_bench, plot
from ssdtrt.commands.saved_files import inspect
from ssdtrt.commands.terminal import lenient
from ssdtrt.errors import ParityError, SsdtrtError


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


@contextlib.contextmanager
def ending_on_sigterm():
    """Inside, SIGTERM raises Terminated."""

    def terminate(*_):
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def drop_stdout():
    """Gives up what stdout still holds where it cannot be written, so that the interpreter does not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Group(click.Group):
    """Turns the library's errors into one message and exit code 1, Ctrl-C into 130 and SIGTERM into 143."""

    def invoke(self, ctx):
        try:
            with ending_on_sigterm():
                return super().invoke(ctx)
        except SsdtrtError as error:
            terminal.done()
            if isinstance(error, ParityError) and error.report is not None:
                from ssdtrt.commands.report_text import parity_text

                click.echo(parity_text(error.report, terminal.width()), err=True)
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            terminal.done()
            logging.getLogger(__name__).debug("what the system refused", exc_info=True)
            place = f"{error.filename}: " if error.filename else ""
            drop_stdout()
            raise click.ClickException(f"{place}{error.strerror or error}") from error
        except RuntimeError as error:
            if "torch" not in sys.modules:
                raise
            from ssdtrt.system.gpu_errors import gpu_error

            known = gpu_error(error)
            if known is None:
                raise
            terminal.done()
            raise click.ClickException(str(known)) from error
        except KeyboardInterrupt as error:
            terminal.done()
            terminated = isinstance(error, Terminated)
            word = "terminated" if terminated else "interrupted"
            click.echo(f"{word}; finished files are whole, nothing half-written is left", err=True)
            sys.exit(config.INTERRUPTED[terminated])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ssdtrt")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no hints.")
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries say.")
def main(quiet, verbose):
    """SSD300 from a checkpoint to a proven and measured Torch-TensorRT engine.

    On a GPU machine: ssdtrt export && ssdtrt compile --fp16 && ssdtrt bench
    """
    lenient()
    terminal.begin(quiet)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, stream=sys.stderr)


@main.command()
@weights_option
@click.option("--method", type=click.Choice(["trace", "script"]), default=config.METHOD, show_default=True)
@preprocess_option
@labels_option
@click.option("--sha256", metavar="DIGEST", help="The SHA-256 that the checkpoint must have.")
@trust_option
@click.option("-o", "--output", default=config.MODULE_FILE, show_default=True, metavar="FILE")
def export(weights, method, preprocess, labels, sha256, trust_weights, output):
    """Write the FP32 model as a TorchScript module.

    Example: ssdtrt export --weights coco -o ssd300.ts
    """
    check_apart({"-o": output}, [weights, labels])
    from ssdtrt.export import export_module
    from ssdtrt.model.labels import read_labels
    from ssdtrt.model.weights import build_model
    from ssdtrt.system.outputs import check_output

    check_output(output)
    terminal.progress("loading the weights")
    names = read_labels(labels) if labels else None
    options = {"progress": terminal.progress, "note": terminal.note}
    model = build_model(weights, labels=names, sha256=sha256, trust=trust_weights, **options)
    path = export_module(model, output, method=method, preprocess=preprocess, progress=terminal.progress)
    terminal.done()
    how = {"trace": "traced", "script": "scripted"}[method]
    click.echo(f"{path}: {how}, {model.num_classes - 1} classes, weights {model.source.name}")
    terminal.hint("compile", path)


@main.command("compile")
@click.argument("module", default=config.MODULE_FILE)
@click.option("--fp16", is_flag=True, help="Half precision (the default with TensorRT).")
@click.option("--fp32", is_flag=True, help="Single precision, TF32 off.")
@click.option("--bf16", is_flag=True, help="Bfloat16, with the backend torchscript.")
@click.option("--batch-size", type=BATCH_SIZE, metavar="N", help="One batch size.  [default: 1]")
@click.option("--batch-range", type=Batch(), metavar="MIN:OPT:MAX", help="A range of batch sizes.")
@click.option(
    "--streams",
    type=click.IntRange(0, config.MOST_STREAMS),
    default=config.STREAMS,
    metavar="N",
    help="Let kernels run beside each other on N more streams (try 4): faster in a CUDA graph of small batches.",
)
@click.option(
    "--workspace-mib", type=click.IntRange(min=1), default=config.WORKSPACE_MIB, show_default=True, metavar="MIB"
)
@click.option(
    "--backend",
    type=click.Choice(list(BACKENDS)),
    default=config.BACKEND,
    show_default=True,
    help="torchscript is for machines without a GPU.",
)
@click.option("--detector", is_flag=True, help="Pictures in, detections out: with decoding and NMS inside.")
@click.option("--no-cache", is_flag=True, help="Build it, also where one like it was built before.")
@device_option
@sha256_option
@click.option(
    "-o", "--output", metavar="FILE", help=f"[default: {config.ENGINE_FILE}, a detector {config.DETECTOR_FILE}]"
)
def compile_(
    module,
    batch_size,
    batch_range,
    streams,
    workspace_mib,
    backend,
    detector,
    no_cache,
    device,
    sha256,
    output,
    **precisions,
):
    """Build an engine from MODULE and prove it against the FP32 model.

    The file appears only when every output is within the bound (relative L2: 2e-2 in 16 bits, 1e-4 in FP32).

    Example: ssdtrt compile --fp16 --batch-size 8 -o ssd300-b8.engine.ts
    """
    if batch_size and batch_range:
        raise click.UsageError("Give --batch-size or --batch-range, not both.")
    asked = [name for name, given in precisions.items() if given]
    if len(asked) > 1:
        raise click.UsageError(f"Give only one of {' and '.join(f'--{name}' for name in asked)}.")
    precision = asked[0] if asked else None
    if precision and precision not in BACKENDS[backend].precisions:
        allowed = " or ".join(f"--{name}" for name in BACKENDS[backend].precisions)
        raise click.UsageError(f"The backend {backend} takes {allowed}, not --{precision}.")
    if backend == "torchscript" and (batch_size or batch_range):
        raise click.UsageError("The backend torchscript takes any batch: leave --batch-size and --batch-range out.")
    if streams and (batch_range or backend == "torchscript"):
        raise click.UsageError("--streams is for one batch size and the backend tensorrt.")
    check_apart({"-o": output}, [module])
    from ssdtrt.artifact.metadata import read_metadata
    from ssdtrt.compile import compile_engine

    path = compile_engine(
        module,
        output,
        detector=detector,
        precision=precision,
        batch=batch_range or batch_size or config.BATCH_SIZE,
        streams=streams,
        workspace_mib=workspace_mib,
        backend=backend,
        device=device,
        sha256=sha256,
        cache=not no_cache,
        progress=terminal.progress,
    )
    terminal.done()
    show_engine(path, read_metadata(path))
    terminal.hint("bench", path, *(["--against", "engine-graph"] if streams else []))


@main.command()
@click.argument("engine", default=config.ENGINE_FILE)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@module_option
@device_option
@sha256_option
@json_option
def verify(engine, images, module, device, sha256, json_file):
    """Compare ENGINE with the FP32 model, on your IMAGEs or on seeded ones.

    Example: ssdtrt verify ssd300.engine.ts street.jpg
    """
    check_apart({"--json": json_file}, [engine, module, *images])
    from ssdtrt.commands.report_text import parity_text
    from ssdtrt.verify import verify_engine

    check_json(json_file)
    terminal.progress("comparing with FP32 eager")
    report = verify_engine(engine, images, module=module, device=device, sha256=sha256)
    show(report, json_file, parity_text)
    if not report.passed:
        sys.exit(1)
    terminal.hint("bench", engine)


@main.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--batch-size", type=Sizes(), metavar="N[,N...]", help="Batch sizes.  [default: the file's own]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 10, on a CPU 5]")
@click.option("--iterations", type=click.IntRange(min=1), help="Timed calls a round.  [default: 10, on a CPU 4]")
@click.option("--warmup", type=click.IntRange(min=1), default=config.WARMUP, show_default=True)
@click.option("--against", type=Names(config.BENCH_PEERS), metavar="NAME[,NAME...]", help="What else to measure.")
@click.option("--parts", is_flag=True, help="Time the way from picture to detections part by part too.")
@module_option
@device_option
@json_option
@demands
def bench(files, batch_size, rounds, iterations, warmup, against, parts, module, device, json_file, **wanted):
    """Measure FILEs (default ssd300.engine.ts) against the FP32 eager model.

    NAMEs: eager-tf32, eager-fp16, eager-fp16-graph, eager-bf16, torchscript (the module), compile (torch.compile),
    engine-graph (FILEs in a CUDA graph). eager-fp32 and engine (FILEs) are always there. What cannot run here is named.

    Example: ssdtrt bench ssd300.engine.ts --against compile,engine-graph --json bench.json
    """
    files = files or (config.ENGINE_FILE,)
    check_demands([*files, module], json_file, **wanted)
    from ssdtrt.bench import bench_files

    report = bench_files(
        files,
        against=against or (),
        parts=parts,
        module=module,
        device=device,
        batch_sizes=batch_size,
        rounds=rounds,
        iterations=iterations,
        warmup=warmup,
        progress=terminal.progress,
    )
    finish_bench(report, json_file, **wanted)
    terminal.hint("detect", files[0], "IMAGE...")


for command in (compare, detect, doctor, evaluate, inspect, plot, run):
    main.add_command(command)
