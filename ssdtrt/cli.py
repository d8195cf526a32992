"""The command line: parse, one library call, show."""

import json
import logging
import sys
from pathlib import Path

import click

from ssdtrt import __version__, config
from ssdtrt.errors import ParityError, SsdtrtError
from ssdtrt.params import Batch, Device, Sizes
from ssdtrt.terminal import Terminal

terminal = Terminal()


class Group(click.Group):
    """Turns the library's errors into one message and exit code 1, and Ctrl-C into 130."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except SsdtrtError as error:
            terminal.done()
            if isinstance(error, ParityError) and error.report is not None:
                from ssdtrt.report import parity_text

                click.echo(parity_text(error.report, terminal.width()), err=True)
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            terminal.done()
            logging.getLogger(__name__).debug("what the system refused", exc_info=True)
            place = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{place}{error.strerror or error}") from error
        except KeyboardInterrupt:
            terminal.done()
            click.echo("interrupted; finished files are whole, nothing half-written is left", err=True)
            sys.exit(130)


device_option = click.option(
    "--device", type=Device(), help="Where it runs: cpu, cuda, cuda:1.  [default: what the file is for]"
)
weights_option = click.option(
    "--weights", default=config.WEIGHTS, show_default=True, help="coco, random, or a checkpoint's path."
)
labels_option = click.option("--labels", metavar="FILE", help="Class names, one a line, without the background.")
trust_option = click.option("--trust-weights", is_flag=True, help="Let the checkpoint run code while it loads.")
json_option = click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - for stdout.")
module_option = click.option("--module", metavar="FILE", help="The module the engine was built from.")
threshold_option = click.option(
    "--threshold", type=click.FloatRange(0, 1), default=config.THRESHOLD, show_default=True, help="Lowest score."
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ssdtrt")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no hints.")
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries say.")
def main(quiet, verbose):
    """SSD300 from a checkpoint to a proven and measured Torch-TensorRT engine.

    On a GPU machine: ssdtrt export && ssdtrt compile --fp16 && ssdtrt bench
    """
    terminal.begin(quiet)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, stream=sys.stderr)


@main.command()
@weights_option
@click.option("--method", type=click.Choice(["trace", "script"]), default=config.METHOD, show_default=True)
@labels_option
@click.option("--sha256", metavar="DIGEST", help="The SHA-256 that the checkpoint must have.")
@trust_option
@click.option("-o", "--output", default=config.MODULE_FILE, show_default=True, metavar="FILE")
def export(weights, method, labels, sha256, trust_weights, output):
    """Write the FP32 model as a TorchScript module.

    Example: ssdtrt export --weights coco -o ssd300.ts
    """
    from ssdtrt.artifact import check_output
    from ssdtrt.export import export_module
    from ssdtrt.model.weights import build_model, read_labels

    check_output(output)
    terminal.progress("loading the weights")
    names = read_labels(labels) if labels else None
    model = build_model(weights, labels=names, sha256=sha256, trust=trust_weights, progress=terminal.progress)
    path = export_module(model, output, method=method, progress=terminal.progress)
    terminal.done()
    how = {"trace": "traced", "script": "scripted"}[method]
    click.echo(f"{path}: {how}, {model.num_classes - 1} classes, weights {model.source.name}")
    terminal.hint(f"ssdtrt compile {path}")


@main.command("compile")
@click.argument("module", default=config.MODULE_FILE)
@click.option("--fp16", "precision", flag_value="fp16", help="Half precision (the default with TensorRT).")
@click.option("--fp32", "precision", flag_value="fp32", help="Single precision, TF32 off.")
@click.option("--bf16", "precision", flag_value="bf16", help="Bfloat16, with the backend torchscript.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="One batch size.  [default: 1]")
@click.option("--batch-range", type=Batch(), metavar="MIN:OPT:MAX", help="A range of batch sizes.")
@click.option(
    "--workspace-mib", type=click.IntRange(min=1), default=config.WORKSPACE_MIB, show_default=True, metavar="MIB"
)
@click.option(
    "--backend",
    type=click.Choice(list(config.PRECISION_OF_BACKEND)),
    default=config.BACKEND,
    show_default=True,
    help="torchscript is for machines without a GPU.",
)
@device_option
@click.option("-o", "--output", default=config.ENGINE_FILE, show_default=True, metavar="FILE")
def compile_(module, precision, batch_size, batch_range, workspace_mib, backend, device, output):
    """Build an engine from MODULE and prove it against the FP32 model.

    The file appears only when every output is within the bound (relative L2: 2e-2 in 16 bits, 1e-4 in FP32).

    Example: ssdtrt compile --fp16 --batch-size 8 -o ssd300-b8.engine.ts
    """
    if batch_size and batch_range:
        raise click.UsageError("Give --batch-size or --batch-range, not both.")
    if precision and precision not in config.PRECISIONS_OF_BACKEND[backend]:
        allowed = " or ".join(f"--{name}" for name in config.PRECISIONS_OF_BACKEND[backend])
        raise click.UsageError(f"The backend {backend} takes {allowed}, not --{precision}.")
    if backend == "torchscript" and (batch_size or batch_range):
        raise click.UsageError("The backend torchscript takes any batch: leave --batch-size and --batch-range out.")
    from ssdtrt.artifact import read_metadata
    from ssdtrt.compile import compile_engine

    path = compile_engine(
        module,
        output,
        precision=precision,
        batch=batch_range or batch_size or config.BATCH_SIZE,
        workspace_mib=workspace_mib,
        backend=backend,
        device=device,
        progress=terminal.progress,
    )
    terminal.done()
    show_engine(path, read_metadata(path))
    terminal.hint(f"ssdtrt bench {path}")


def show_engine(path, metadata):
    """What was built, and how near it came."""
    build, parity = metadata["build"], metadata["parity"]
    figures = ", ".join(f"{output['name']} {output['relative_l2']:.1e}" for output in parity["outputs"])
    batch = f"batch {build['batch']}" if build["batch"] else "any batch"
    click.echo(f"{path}: {build['precision'].upper()} {build['backend']}, {batch}, built in {build['seconds']:.0f} s")
    click.echo(f"relative L2 to FP32 eager: {figures} (bound {parity['bound']:.0e})")
    found = parity["detections"]
    matched = "none to compare" if found["share"] is None else f"{100 * found['share']:.1f} % matched"
    click.echo(f"detections: {found['reference']} FP32, {found['engine']} engine, {matched}")


@main.command()
@click.argument("engine", default=config.ENGINE_FILE)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@module_option
@device_option
@json_option
def verify(engine, images, module, device, json_file):
    """Compare ENGINE with the FP32 model, on your IMAGEs or on seeded ones.

    Example: ssdtrt verify ssd300.engine.ts street.jpg
    """
    from ssdtrt.report import parity_text
    from ssdtrt.verify import verify_engine

    check_json(json_file)
    terminal.progress("comparing with FP32 eager")
    report = verify_engine(engine, images, module=module, device=device)
    show(report, json_file, parity_text)
    if not report.passed:
        sys.exit(1)
    terminal.hint(f"ssdtrt bench {engine}")


@main.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--batch-size", type=Sizes(), metavar="N[,N...]", help="Batch sizes.  [default: the file's own]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 10, on a CPU 5]")
@click.option("--iterations", type=click.IntRange(min=1), help="Timed calls a round.  [default: 10, on a CPU 4]")
@click.option("--warmup", type=click.IntRange(min=1), default=config.WARMUP, show_default=True)
@module_option
@device_option
@json_option
def bench(files, batch_size, rounds, iterations, warmup, module, device, json_file):
    """Measure FILEs (default ssd300.engine.ts) against the FP32 eager model.

    Example: ssdtrt bench ssd300-b1.engine.ts ssd300-b8.engine.ts --json bench.json
    """
    from ssdtrt.bench import bench_files
    from ssdtrt.report import bench_text

    check_json(json_file)
    files = files or (config.ENGINE_FILE,)
    report = bench_files(
        files,
        module=module,
        device=device,
        batch_sizes=batch_size,
        rounds=rounds,
        iterations=iterations,
        warmup=warmup,
        progress=terminal.progress,
    )
    show(report, json_file, bench_text)
    terminal.hint(f"ssdtrt detect {files[0]} IMAGE...")


@main.command()
@click.argument("file")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", default=config.DETECT_DIR, show_default=True, metavar="DIR")
@threshold_option
@click.option("--max-detections", type=click.IntRange(min=1), default=config.MAX_DETECTIONS, show_default=True)
@device_option
def detect(file, images, output, threshold, max_detections, device):
    """Detect in IMAGEs with FILE: annotated pictures and detections.json in DIR.

    Example: ssdtrt detect ssd300.engine.ts street.jpg -o out
    """
    from ssdtrt.detect import Detector, detect_to_folder
    from ssdtrt.report import detections_text

    terminal.progress("loading")
    detector = Detector(file, device, threshold=threshold, max_detections=max_detections)
    results, failures = detect_to_folder(detector, images, output, terminal.progress)
    terminal.done()
    click.echo(detections_text(results, terminal.width()))
    click.echo(f"written to {output}: {len(results)} pictures and detections.json")
    end_with(failures)
    terminal.hint(f"ssdtrt verify {file} {images[0]}")


@main.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@weights_option
@labels_option
@trust_option
@click.option("--batch-size", type=click.IntRange(min=1), default=config.BATCH_SIZE, show_default=True, metavar="N")
@threshold_option
@click.option("-o", "--output", default=config.RUN_DIR, show_default=True, metavar="DIR")
def run(images, weights, labels, trust_weights, batch_size, threshold, output):
    """Do the whole job: export, compile, bench and detect, with a report.

    Without IMAGEs it takes sample photographs. Without a GPU it builds a CPU engine, and without COCO's weights it
    uses untrained ones; either is said.

    Example: ssdtrt run street.jpg -o out
    """
    from ssdtrt.model.weights import read_labels
    from ssdtrt.report import bench_text, detections_text
    from ssdtrt.run import run_job

    report = run_job(
        images,
        output,
        weights=weights,
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
    terminal.hint(f"ssdtrt detect {report.folder / config.ENGINE_FILE} IMAGE...")


def check_json(json_file):
    """Refuses a JSON path that cannot be written, before any work."""
    if json_file and json_file != "-":
        from ssdtrt.artifact import check_output

        check_output(json_file)


def show(report, json_file, text):
    """The report as text on stdout and as JSON where it was asked for; `-` gives JSON instead of the text."""
    terminal.done()
    data = json.dumps(report.as_dict(), indent=1)
    if json_file == "-":
        click.echo(data)
        return
    click.echo(text(report, terminal.width()))
    if json_file:
        from ssdtrt.files import write_text

        write_text(Path(json_file), data + "\n")


def end_with(failures):
    """One line for each picture that could not be read, and exit code 1 if there is one."""
    terminal.done()
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if failures:
        sys.exit(1)
