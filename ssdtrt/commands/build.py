"""The commands that build and verify saved files: export, compile, verify."""

from __future__ import annotations

import click

from ssdtrt import config
from ssdtrt.artifact.parity_report import OutputDistance, ParityReport
from ssdtrt.artifact.precision import BACKENDS, Backend
from ssdtrt.commands.options import (
    backend_option,
    batch_range_option,
    batch_size_option,
    check_apart,
    check_json,
    chosen_batch,
    device_option,
    end_with,
    format_option,
    int8_options,
    json_option,
    labels_option,
    module_option,
    preprocess_option,
    reading_options,
    sha256_option,
    show,
    terminal,
    trust_option,
    weights_option,
)
from ssdtrt.commands.parameters.addresses import address_options
from ssdtrt.commands.parameters.types import Device
from ssdtrt.commands.text.tables import engine_text, fill, match_rate, repeatability_lines, scientific, table
from ssdtrt.quantization.options import Int8Options
from ssdtrt.system.report import counted
from ssdtrt.system.versions import other_backend


@click.command()
@weights_option
@format_option(config.FORMATS, "onnx: opset 17, for any ONNX runtime (needs the extra `onnx`).")
@click.option("--detector", is_flag=True, help="With onnx: include normalization, decoding and NMS.")
@click.option(
    "--method", type=click.Choice(["trace", "script"]), help=f"How TorchScript is made.  [default: {config.METHOD}]"
)
@preprocess_option
@labels_option
@click.option("--sha256", metavar="DIGEST", help="The SHA-256 that the checkpoint must have.")
@trust_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"The file to write.  [default: {config.MODULE_FILE}, as ONNX {config.ONNX_FILE}, a detector {config.ONNX_DETECTOR_FILE}]",
)
@json_option
def export(weights, file_format, detector, method, preprocess, labels, sha256, trust_weights, output, json_file):
    """Write the FP32 model as a TorchScript module, or as an ONNX file.

    The file is only written if it agrees with the eager model (for ONNX: in ONNX Runtime).

    Example: ssdtrt export --weights coco -o ssd300.ts
    """
    if file_format != "onnx" and detector:
        raise click.UsageError(
            "--detector needs --format onnx; a TorchScript detector is built: ssdtrt compile --detector."
        )
    if file_format == "onnx" and method:
        raise click.UsageError("--method is how TorchScript is made: leave it out with --format onnx.")
    if file_format == "onnx":
        output = output or (config.ONNX_DETECTOR_FILE if detector else config.ONNX_FILE)
    output = output or config.MODULE_FILE
    check_apart({"-o": output, "--json": json_file}, [weights, labels])
    from ssdtrt.artifact.inspection import inspect_file
    from ssdtrt.export import export_module, export_onnx
    from ssdtrt.model.labels import read_labels
    from ssdtrt.model.weights import build_model
    from ssdtrt.system.outputs import check_output

    check_output(output)
    check_json(json_file)
    if file_format == "onnx":
        from ssdtrt.runners.onnx_runtime import check_installed

        check_installed("onnx", "onnxruntime")
    terminal.progress("loading the weights")
    names = read_labels(labels, terminal.note) if labels else None
    model = build_model(
        weights, labels=names, sha256=sha256, trust=trust_weights, progress=terminal.progress, note=terminal.note
    )
    assert model.source is not None
    prepared = {"preprocess": preprocess, "progress": terminal.progress}
    if file_format == "onnx":
        path = export_onnx(model, output, detector=detector, **prepared)
        how = f"ONNX {'detector' if detector else 'module'}, opset {config.ONNX_OPSET}"
        following = ["bench", output]
    else:
        path = export_module(model, output, method=method or config.METHOD, **prepared)
        how, following = "scripted" if method == "script" else "traced", ["compile", output, *other_backend()]
    described = f"{path}: {how}, {counted(model.num_classes - 1, 'class')}, weights {model.source.name}"
    show(inspect_file(path), json_file, lambda *_: described)
    terminal.hint(*following)


@click.command("compile")
@click.argument("module", default=config.MODULE_FILE)
@click.option("--fp16", is_flag=True, help="Half precision (the default with TensorRT).")
@click.option("--fp32", is_flag=True, help="Single precision, TF32 disabled.")
@click.option("--bf16", is_flag=True, help="Bfloat16, with the backend torchscript.")
@int8_options
@batch_size_option
@batch_range_option
@click.option(
    "--front-end",
    type=click.Choice(["auto", *BACKENDS["tensorrt"].front_ends]),
    default=config.FRONT_END,
    show_default=True,
    metavar="NAME",
    help="How TensorRT gets the network: `tensorrt`, through its API; `torchscript`, by Torch-TensorRT; or `auto`.",
)
@click.option(
    "--streams",
    type=click.IntRange(0, config.MAX_STREAMS),
    metavar="N",
    help=f"Run kernels side by side on N auxiliary streams.  [default: {config.STREAMS} with --front-end tensorrt]",
)
@click.option(
    "--workspace-mib",
    type=click.IntRange(min=1),
    default=config.WORKSPACE_MIB,
    show_default=True,
    metavar="MIB",
    help="Memory that TensorRT may use while it chooses kernels.",
)
@backend_option(config.BACKEND, config.BACKEND)
@format_option(config.ENGINE_FORMATS, "plan: TensorRT's engine by itself, for trtexec, Triton, DeepStream, C++.")
@click.option("--detector", is_flag=True, help="Include normalization, decoding and NMS: uint8 images to detections.")
@click.option("--no-cache", is_flag=True, help="Build even if the same engine was built before.")
@click.option("--device", type=Device(), help="The GPU to build on: cuda or cuda:1.  [default: the current one]")
@sha256_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"The file to write.  [default: {config.ENGINE_FILE}, {config.DETECTOR_FILE} or {config.PLAN_FILE}]",
)
@json_option
def compile_(
    module,
    batch_size,
    batch_range,
    front_end,
    streams,
    workspace_mib,
    backend,
    file_format,
    detector,
    no_cache,
    device,
    sha256,
    output,
    json_file,
    int8,
    **flags,
):
    """Build an engine from MODULE and compare it with the FP32 model.

    The file is only written if every output is within the bound (relative L2: 2e-2 in 16 bits, 1e-4 in FP32),
    and in INT8 if it is accurate and faster than FP16.

    Example: ssdtrt compile --fp16 --batch-size 8 -o ssd300-b8.engine.ts
    """
    batch = chosen_batch(BACKENDS[backend], batch_size, batch_range) or config.BATCH_SIZE
    precision = _one_precision({**flags, "int8": int8 is not None}, BACKENDS[backend])
    _check_front_end(BACKENDS[backend], front_end, streams, file_format == "plan", detector)
    default = config.PLAN_FILE if file_format == "plan" else config.DETECTOR_FILE if detector else config.ENGINE_FILE
    read = [module, *((int8 or {}).get(name) for name in ("calibration_table", "annotations"))]
    check_apart({"-o": output or default, "--json": json_file}, read)
    from ssdtrt.artifact.inspection import inspect_file
    from ssdtrt.artifact.metadata import EngineMetadata, read_metadata
    from ssdtrt.compile import compile_engine

    check_json(json_file)
    where = {"backend": backend, "device": device, "workspace_mib": workspace_mib, "sha256": sha256}
    path = compile_engine(
        module,
        output,
        detector=detector,
        precision=precision,
        batch=batch,
        front_end=front_end,
        streams=streams,
        file_format=file_format,
        int8=None if int8 is None else Int8Options(**int8),
        cache=not no_cache,
        progress=terminal.progress,
        note=terminal.note,
        **where,
    )
    metadata = read_metadata(path)
    assert isinstance(metadata, EngineMetadata)
    show(inspect_file(path), json_file, lambda _, width: engine_text(path, metadata, width))
    terminal.hint("bench", output or path)


@click.command()
@click.argument("engine", default=config.ENGINE_FILE)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@module_option
@reading_options
@address_options
@device_option
@sha256_option
@json_option
def verify(engine, images, module, reading, device, sha256, json_file):
    """Compare ENGINE with the FP32 model.

    The comparison runs on the IMAGEs, or on seeded ones if none is given. IMAGE is a picture, its address, a
    folder, a quoted pattern, or - for a list on stdin. The exit code is 1 if ssdtrt compile would refuse such an engine.

    Example: ssdtrt verify ssd300.engine.ts street.jpg
    """
    check_apart({"--json": json_file}, [engine, module, *images])
    from ssdtrt.verify import verify_engine

    check_json(json_file)
    terminal.progress("loading")
    options = {"module": module, "device": device, "sha256": sha256, **reading}
    report = verify_engine(engine, images, progress=terminal.progress, note=terminal.note, **options)
    show(report, json_file, parity_text)
    end_with(filter(None, [report.failure]))
    terminal.hint("bench", engine)


def _one_precision(flags: dict[str, bool], backend: Backend) -> str | None:
    """Return the precision whose flag is set; None if none is."""
    asked = [name for name, given in flags.items() if given]
    if len(asked) > 1:
        raise click.UsageError(f"Give only one of {' and '.join(f'--{name}' for name in asked)}.")
    if asked and asked[0] not in backend.precisions:
        allowed = " or ".join(f"--{name}" for name in backend.precisions)
        raise click.UsageError(f"The backend {backend.name} takes {allowed}, not --{asked[0]}.")
    return asked[0] if asked else None


def _check_front_end(backend: Backend, front_end: str, streams: int | None, plan: bool, detector: bool) -> None:
    """Refuse auxiliary streams and a front end that the back end does not have, and the two where they do not go together."""
    if streams and not backend.streams:
        able = " or ".join(one.name for one in BACKENDS.values() if one.streams)
        raise click.UsageError(f"--streams is for the backend {able}.")
    if front_end != "auto" and not backend.front_ends:
        raise click.UsageError(f"The backend {backend.name} has no front ends: leave out --front-end.")
    if front_end == "torchscript" and streams:
        raise click.UsageError("--streams needs --front-end tensorrt.")
    if plan and (detector or backend.name != "tensorrt" or front_end == "torchscript"):
        raise click.UsageError("--format plan is TensorRT's engine alone: no --detector, and --front-end tensorrt.")


def parity_text(report: ParityReport, width: int) -> str:
    """Return the figures and the verdict of a comparison with FP32."""
    found = report.detections
    sizes = ", ".join(map(str, report.batch_sizes))
    change = "-" if found.max_score_change is None else f"{found.max_score_change:.4f}"
    header = ("output", "relative L2", "bound", "max abs", "finite")
    counts = f"detections: {found.reference} FP32, {found.engine} engine, {found.matched} matched ({match_rate(found)})"
    return "\n".join(
        [
            fill(
                f"{report.precision.upper()} against FP32 eager on {counted(report.images, 'picture')}, batch {sizes}",
                width,
            ),
            table(header, [_output_cells(output, report.bound) for output in report.outputs], width),
            fill(counts, width),
            f"largest score change: {change}",
            *repeatability_lines(report.repeatability, width),
            "passed" if report.passed else "FAILED",
        ]
    )


def _output_cells(output: OutputDistance, bound: float) -> tuple[str, ...]:
    distances = (scientific(output.relative_l2, 2), f"{bound:.0e}", scientific(output.max_abs, 2))
    return output.name, *distances, "yes" if output.finite else "NO"
