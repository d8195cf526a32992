"""Build an engine file from a saved module in a child process, and write it only if it is accepted."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Literal, cast

import torch

from ssdtrt import config
from ssdtrt.artifact.metadata import (
    BuildInfo,
    DetectorMetadata,
    EngineMetadata,
    Metadata,
    ModuleFile,
    add_metadata,
    check_file,
    now,
)
from ssdtrt.artifact.precision import Backend, find_backend
from ssdtrt.artifact.quantization import Int8Verdict
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.artifact.tensors import detector_tensors
from ssdtrt.engine.cache import graph_digest
from ssdtrt.engine.cached_build import BuiltEngine, EngineBuilder
from ssdtrt.errors import ArtifactError, CompileError
from ssdtrt.formats.plan_file import record_path
from ssdtrt.quantization.job import build_int8, table_path
from ssdtrt.quantization.options import Int8Options
from ssdtrt.runners import runtime
from ssdtrt.system.devices import emulates_bf16, named_device, pick_device
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.outputs import check_output, writing
from ssdtrt.system.progress import Progress, silent


def compile_engine(
    module: str | Path = config.MODULE_FILE,
    out: str | Path | None = None,
    *,
    detector: bool = False,
    precision: str | None = None,
    batch: BatchRange | str | int = config.BATCH_SIZE,
    front_end: str = config.FRONT_END,
    streams: int | None = None,
    workspace_mib: int = config.WORKSPACE_MIB,
    backend: str = config.BACKEND,
    file_format: str = config.ENGINE_FORMATS[0],
    device: str | torch.device | None = None,
    sha256: str | None = None,
    int8: Int8Options | None = None,
    cache: bool = True,
    progress: Progress = silent,
    note: Progress = silent,
) -> Path:
    """Build an engine from an exported module, compare it with FP32 eager, and write it if it is accepted.

    An engine is accepted if the relative L2 distance of each output is at most 2e-2 (FP16, BF16) or 1e-4 (FP32). In 16
    bits, a file as large or as close to FP32 as an FP32 engine is refused too. So is an engine that gives something else
    in another place of a batch, in a second run or as a CUDA graph. Where TensorRT's engine cannot be built or has wrong
    values, it is built once more from a plainer layout of the network.

    Args:
        module: The file that `export_module` wrote.
        out: The file to write; by default ssd300.engine.ts, ssd300.detector.ts or ssd300.plan.
        detector: Whether to include normalization, decoding and NMS, so that the file takes uint8 images and returns
            detections.
        precision: `fp16`, `fp32` or `int8` for the back end `tensorrt`, `fp32` or `bf16` for `torchscript`; by default the
            first.
        batch: A batch size from 1, or "MIN:OPT:MAX", for the back end `tensorrt`. Engines of the other take any size.
        front_end: How the network is given to TensorRT: `tensorrt` layer by layer through TensorRT's own API, or
            `torchscript` through Torch-TensorRT's TorchScript front end. `auto` takes `tensorrt`, which gives the
            faster engine, unless the installed TensorRT lacks a part of that API.
        streams: How many auxiliary streams TensorRT may use, 0 to 16, which the front end `tensorrt` can do; by default
            4 with it.
        workspace_mib: The memory that TensorRT may use while it chooses kernels, in MiB, at least 1.
        backend: `tensorrt`, or `torchscript` for a CPU engine: the frozen module.
        file_format: `torchscript`, or `plan` for TensorRT's serialized engine by itself, which other programs of
            TensorRT take. Its metadata is written to a file beside it, OUT.json. A plan has no detector.
        device: The GPU to build on, `cuda` or `cuda:N`.
        sha256: The SHA-256 that the module must have.
        int8: The options of `int8`, which it needs.
        cache: Whether to take the engine from the cache if one of the same request was built with the same versions on
            the same GPU, and to add a new one to it (see `ssdtrt.engine.cache`).
        progress: Called with one line about the progress of the build, every second.
        note: Called with one line where not the fastest engine can be built, where a second build is needed, and where
            older engines are removed from the cache.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: If the module cannot be read, or the file cannot be written.
        CompileError: If such an engine cannot be built, or not on this machine, or an INT8 engine fails its gate.
        CalibrationError: If the pictures or the calibration table of INT8 cannot be used.
        ParityError: If the engine is refused; nothing is written.

    Example:
        >>> from ssdtrt import compile_engine, load_engine
        >>> engine = compile_engine("ssd300.ts", "ssd300.engine.ts", backend="torchscript")
        >>> load_engine(engine).precision
        'fp32'
    """
    default = config.PLAN_FILE if file_format == "plan" else config.DETECTOR_FILE if detector else config.ENGINE_FILE
    out, module = check_output(out or default), Path(module)
    batch = batch if isinstance(batch, BatchRange) else BatchRange.parse(batch)
    chosen = find_backend(backend)
    precision = precision or chosen.precisions[0]
    _check_format(file_format, out, chosen, front_end, detector)
    instead = runtime.cpu_command(module, detector, out)
    _check_request(backend, precision, workspace_mib, device, file_format, instead)
    _check_streams(streams, chosen, front_end)
    _check_int8(precision, int8, front_end)
    own_api = file_format == "plan" or int8 is not None
    chosen_front_end = _choose_front_end("tensorrt" if own_api else front_end, chosen, streams, note)
    metadata = check_file(module, ("module",), sha256=sha256)
    if metadata.format != "torchscript":
        raise ArtifactError(f"{module} is an ONNX file; an engine is built from a TorchScript module: ssdtrt export.")
    target = pick_device(device) if chosen.on_gpu else torch.device("cpu")
    request = BuildRequest(
        weights=metadata.model.weights.sha256 if metadata.model.weights else sha256_file(module),
        graph=graph_digest(module),
        preprocess=metadata.model.preprocess,
        backend=backend,
        precision="fp16" if int8 else precision,  # INT8 is built beside it.
        batch=str(batch) if chosen.fixed_batch else None,
        front_end=chosen_front_end,
        streams=_choose_streams(streams, chosen_front_end),
        workspace_mib=workspace_mib,
        format=cast(Literal["torchscript", "plan"], file_format),
        detector=detector,
    )
    _write(out, metadata, request, EngineBuilder(module, target, cache, progress, note), int8)
    return out


def _check_format(file_format: str, out: Path, backend: Backend, front_end: str, detector: bool) -> None:
    """Raise CompileError for a format that does not exist, or that the engine cannot have."""
    if file_format not in config.ENGINE_FORMATS:
        raise CompileError(f"The format of an engine is {' or '.join(config.ENGINE_FORMATS)}; found {file_format!r}.")
    if file_format != "plan":
        if out.suffix == ".plan":
            raise CompileError(f"{out} has the name of a plan; give --format plan, or another name.")
        if out.suffix == ".onnx":
            raise CompileError(
                f"{out} has the name of an ONNX file, which ssdtrt export --format onnx writes; give another."
            )
        return
    if detector:
        raise CompileError("A plan holds the network alone, without NMS; leave out the detector, or --format plan.")
    if not backend.front_ends:
        raise CompileError(f"A plan is TensorRT's; the backend {backend.name} builds none. Leave out --format plan.")
    if front_end not in ("auto", "tensorrt"):
        raise CompileError("A plan is built through TensorRT's own API: the front end is tensorrt, or auto.")
    check_output(record_path(out))


def _write(out: Path, base: Metadata, request: BuildRequest, builder: EngineBuilder, int8: Int8Options | None) -> None:
    """Write an accepted engine with its metadata, or a plan and its record, completely or not at all."""
    with contextlib.ExitStack() as stack:
        # The record of a plan appears last: a plan without one is refused.
        record = stack.enter_context(writing(record_path(out))) if request.format == "plan" else None
        given = Path(int8.calibration_table) if int8 and int8.calibration_table else None
        table = stack.enter_context(writing(table_path(out))) if int8 and not given else None
        temporary = stack.enter_context(writing(out))
        verdict = None
        if int8 is None:
            engine = builder.build(request, temporary)
        else:
            name = (given or table_path(out)).name
            request, engine, verdict = build_int8(temporary, table, name, base, request, builder, int8)
        recorded = _engine_metadata(base, builder.module, request, engine, verdict)
        if record is None:
            add_metadata(temporary, recorded)
        else:
            record.write_bytes(recorded.to_json())


def _check_request(
    backend: str,
    precision: str,
    workspace_mib: int,
    device: str | torch.device | None,
    file_format: str,
    instead: str,
) -> None:
    """Raise CompileError for what the back end cannot build, or not on this machine; `instead` is what it could."""
    chosen = find_backend(backend)
    if precision not in chosen.precisions:
        raise CompileError(f"The backend {backend} builds {' or '.join(chosen.precisions)}, not {precision}.")
    if precision == "bf16" and emulates_bf16():
        raise CompileError(
            "This processor has no BF16 arithmetic, and emulating it takes many times as long as FP32. Build in FP32, "
            "or build on the machine where the engine will run."
        )
    if workspace_mib < 1:
        raise CompileError(f"The workspace is in MiB and at least 1; found {workspace_mib}.")
    reason = runtime.why_not(file_format == "plan", instead) if chosen.on_gpu else None
    if reason:
        raise CompileError(reason)
    if device is not None and named_device(device).type != chosen.device_type:
        raise CompileError(f"The backend {backend} does not build for {device}.")


def _check_int8(precision: str, int8: Int8Options | None, front_end: str) -> None:
    """Raise CompileError for INT8 without its options or the reverse, or through Torch-TensorRT's front end."""
    if precision == "int8" and int8 is None:
        raise CompileError(
            "INT8 needs calibration pictures: give int8=Int8Options(calibration=...), or --calibration DIR."
        )
    if precision != "int8" and int8 is not None:
        raise CompileError(f"The options of INT8 are for the precision int8; found {precision}.")
    if int8 is not None and front_end == "torchscript":
        raise CompileError("INT8 is built through TensorRT's own API: the front end is tensorrt, or auto.")


def _check_streams(streams: int | None, backend: Backend, front_end: str) -> None:
    """Raise CompileError for auxiliary streams that the engine cannot use."""
    if not 0 <= (streams or 0) <= config.MAX_STREAMS:
        raise CompileError(f"Auxiliary streams are 0 to {config.MAX_STREAMS}; found {streams}.")
    if streams and not backend.streams:
        raise CompileError(f"Auxiliary streams need the backend tensorrt; found {backend.name}.")
    if streams and front_end == "torchscript":
        raise CompileError(f"Auxiliary streams need the front end tensorrt; found {front_end}.")


def _choose_front_end(name: str, backend: Backend, streams: int | None, note: Progress) -> str | None:
    """Return the front end to use; raise CompileError for one that the back end lacks."""
    if name != "auto":
        if name not in backend.front_ends:
            able = " or ".join(("auto", *backend.front_ends))
            raise CompileError(f"The front end of the backend {backend.name} is {able}; found {name!r}.")
        return name
    if not backend.front_ends:
        return None
    lacking = None if streams else runtime.lacking_in_tensorrt()
    if lacking:
        note(f"the network goes through the front end torchscript, without auxiliary streams: {lacking}")
    return "torchscript" if lacking else "tensorrt"


def _choose_streams(streams: int | None, front_end: str | None) -> int | None:
    """Return how many auxiliary streams to use; None for a back end without front ends."""
    if front_end is None:
        return None
    return (config.STREAMS if front_end == "tensorrt" else 0) if streams is None else streams


def _engine_metadata(
    base: Metadata, module: Path, request: BuildRequest, engine: BuiltEngine, verdict: Int8Verdict | None
) -> EngineMetadata:
    """Return the metadata of an engine: that of the module, the request, the build and the parity report."""
    inputs, outputs = detector_tensors() if request.detector else (base.inputs, base.outputs)
    kind, built = DetectorMetadata if request.detector else EngineMetadata, engine.built
    return kind(
        schema=config.SCHEMA,
        format=request.format,
        created=now(),
        versions=built.versions,
        machine=built.machine,
        model=base.model,
        inputs=inputs,
        outputs=outputs,
        export=base.export,
        # The name as its record takes it.
        module=ModuleFile(re.sub(r"[\\\x00-\x1f\x7f]", "_", module.name), sha256_file(module)),
        request=request,
        build=BuildInfo(built.seconds, engine.cached, request.front_end, merged_projections=built.merged_projections),
        parity=engine.parity,
        plan=built.plan,
        layers=built.layers,
        int8=verdict,
    )
