"""From a saved module to an engine file: build it in a child process, prove it, and only then give it its name."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt.engine import cache as kept
from ssdtrt import config
from ssdtrt.system import machine
from ssdtrt.engine import parity, timing_cache
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.metadata import add_metadata, check_file, check_output, new_metadata, writing
from ssdtrt.engine.modules import BatchRange
from ssdtrt.errors import CompileError, ParityError
from ssdtrt.system.files import Progress, sha256_file, silent
from ssdtrt.system.host import child_environment
from ssdtrt.images.tensors import normalise, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_batch
from ssdtrt.results import ParityReport
from ssdtrt.artifact.runner import eager_model

LOG_LINES = 15
DETECTOR_BOUND = 1e-4  # of a box's edge or a score, both 0..1
logger = logging.getLogger(__name__)


def compile_engine(
    module: str | Path = config.MODULE_FILE,
    out: str | Path | None = None,
    *,
    detector: bool = False,
    precision: str | None = None,
    batch: BatchRange | str | int = config.BATCH_SIZE,
    streams: int = config.STREAMS,
    workspace_mib: int = config.WORKSPACE_MIB,
    backend: str = config.BACKEND,
    device: str | torch.device | None = None,
    sha256: str | None = None,
    cache: bool = True,
    progress: Progress = silent,
) -> Path:
    """Builds an engine from an exported module, proves it against FP32 eager, writes it to `out` and returns its path.

    With `detector` the file takes uint8 images and gives detections: it normalises, runs the engine, decodes and
    suppresses. `out` is by default ssd300.engine.ts or ssd300.detector.ts. `precision` is fp16 or fp32 for the backend
    `tensorrt`, fp32 or bf16 for `torchscript` (the module frozen, for the CPU, any batch size); by default fp16 and
    fp32. `batch` is a size, or "MIN:OPT:MAX". With `streams`, for one batch size, TensorRT may run kernels beside each
    other on so many more streams, which pays in a CUDA graph of small batches: such an engine is built through
    TensorRT's own API (see `native`), and with `cache` its kernels' times are kept for the next one. `sha256` is the
    digest that the module must have. With `cache` an engine that was built and proven before, of the same weights and
    settings with the same versions on the same GPU, is taken instead (see `cache`). Nothing is written unless the
    engine passes: relative L2 distance of each output at most 2e-2 (FP16, BF16) or 1e-4 (FP32) and, in 16 bits, signs
    that it is what it is called. Raises ArtifactError, CompileError, ParityError.
    """
    out = check_output(out or (config.DETECTOR_FILE if detector else config.ENGINE_FILE))
    module = Path(module)
    batch = batch if isinstance(batch, BatchRange) else BatchRange.parse(batch)
    precision = precision or config.PRECISION_OF_BACKEND.get(backend)
    check_request(backend, precision, workspace_mib, device)
    check_streams(streams, backend, batch)
    metadata = check_file(module, ("module",), sha256=sha256)
    target = torch.device("cpu") if backend == "torchscript" else machine.pick_device(device)
    known = timing_cache.file_for(target) if cache and streams else None
    request = {
        "module": str(module.resolve()),
        "backend": backend,
        "precision": precision,
        "batch": str(batch),
        "streams": streams,
        "workspace_mib": workspace_mib,
        "device": str(target),
        "detector": detector,
        "preprocess": metadata["model"]["preprocess"],
        "parent": os.getpid(),
        "timings": known and str(known),
    }
    key = kept.key_of(request, module, metadata) if cache else ""
    with writing(out) as temporary:
        built = kept.take(key, temporary) if cache else None
        cached = built is not None
        if not cached:
            built = build_and_prove(temporary, module, request, progress)
            if cache:
                kept.keep(key, temporary, built)
        add_metadata(temporary, engine_metadata(metadata, module, request, built, cached))
    return out


def check_request(backend: str, precision: str, workspace_mib: int, device) -> None:
    """Raises CompileError for what cannot be built, or not here."""
    allowed = config.PRECISIONS_OF_BACKEND.get(backend)
    if allowed is None:
        raise CompileError(f"Unknown backend {backend!r}; expected {' or '.join(config.PRECISIONS_OF_BACKEND)}.")
    if precision not in allowed:
        raise CompileError(f"The backend {backend} builds {' or '.join(allowed)}, not {precision}.")
    if precision == "bf16" and machine.emulates_bf16():
        raise CompileError(
            "This processor has no BF16 arithmetic; emulated, it takes many times as long as FP32. Build in FP32, or "
            "build where the engine is to run."
        )
    if workspace_mib < 1:
        raise CompileError(f"The workspace is in MiB and at least 1; found {workspace_mib}.")
    if backend == "tensorrt":
        reason = runtime.why_not()
        if reason:
            raise CompileError(reason)
    if device is not None and torch.device(device).type != ("cuda" if backend == "tensorrt" else "cpu"):
        raise CompileError(f"The backend {backend} does not build for {device}.")


def check_streams(streams: int, backend: str, batch: BatchRange) -> None:
    """Raises CompileError for streams that an engine cannot have."""
    if not 0 <= streams <= config.MOST_STREAMS:
        raise CompileError(f"More streams are 0 to {config.MOST_STREAMS}; found {streams}.")
    if streams and backend != "tensorrt":
        raise CompileError(f"More streams are for the backend tensorrt; found {backend}.")
    if streams and not batch.static:
        raise CompileError(f"More streams are for one batch size; found the range {batch}.")


def build_and_prove(out: Path, module: Path, request: dict, progress: Progress) -> dict:
    """Builds the engine into `out`; returns what was used, how long it took and how near it came. Raises as it fails."""
    built = build_in_child({**request, "out": str(out.resolve())}, progress)
    progress("proving the engine against FP32 eager")
    return {**built, "parity": prove(out, module, request, progress).as_dict()}


def build_in_child(request: dict, progress: Progress) -> dict:
    """Runs `ssdtrt.engine.worker` in a process of its own and returns its result. Interrupting ends that process at once."""
    with tempfile.TemporaryDirectory(prefix="ssdtrt-build-") as folder:
        request_path, log_path = Path(folder, "request.json"), Path(folder, "log.txt")
        request_path.write_text(json.dumps(request), encoding="utf-8")
        with open(log_path, "wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "ssdtrt.engine.worker", str(request_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(),
            )
            size = f"batch {request['batch']}" if request["backend"] == "tensorrt" else "any batch"
            wait(child, f"building the {request['precision'].upper()} engine for {size}", progress)
        result_path = request_path.with_name("result.json")
        said = log_path.read_text(encoding="utf-8", errors="replace").strip()
        logger.debug("the building process said:\n%s", said)
        if not result_path.exists():
            last = "\n".join(said.splitlines()[-LOG_LINES:])
            raise CompileError(f"The building process ended with {child.returncode} and no engine.\n{last}".rstrip())
        result = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in result:
        raise CompileError(result["error"])
    return result


def wait(child: subprocess.Popen, doing: str, progress: Progress) -> None:
    """Waits for the child, saying every second how long it has been; kills it when the wait is broken off."""
    started = time.monotonic()
    try:
        while child.poll() is None:
            progress(f"{doing}, {time.monotonic() - started:.0f} s")
            try:
                child.wait(timeout=1)
            except subprocess.TimeoutExpired:
                pass
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def prove(engine: Path, module: Path, request: dict, progress: Progress) -> ParityReport:
    """Loads the built file afresh and compares it with FP32 eager on seeded pictures. Raises ParityError."""
    device, precision = torch.device(request["device"]), request["precision"]
    batch = BatchRange.parse(request["batch"])
    tensorrt = request["backend"] == "tensorrt"
    sizes = batch.sizes if tensorrt else (1, config.PARITY_BATCH["cpu"])
    reference = eager_model(module, device)
    if precision != "fp32":
        check_size(engine, reference, precision)
    if tensorrt:
        runtime.import_torch_tensorrt()
        torch.cuda.set_device(device)
    loaded = torchscript.load(engine, device)
    network = loaded.engine if request["detector"] else loaded
    pictures = synthetic_pictures(max(config.PARITY_IMAGES, *sizes), seed=config.SEED + 1).to(device)
    images = normalise(pictures, request["preprocess"])
    with contextlib.nullcontext() if tensorrt else torchscript.fusing():  # As FileRunner runs it.
        report = parity.compare(network, reference, images, precision=precision, batch_sizes=sizes)
    parity.check(report)
    if request["detector"]:
        for size in sizes:
            check_detector(loaded, pictures[:size], images[:size])
    return report


def check_detector(detector: torch.jit.ScriptModule, pictures: Tensor, images: Tensor) -> None:
    """Raises ParityError unless it finds in `pictures`, uint8, what its engine's outputs for `images` decode to."""
    with torch.no_grad():
        found = detector(pictures)
        expected = detect_batch(*detector.engine(images), default_boxes().to(images.device))
    for name, a, b in zip(("boxes", "labels", "scores", "counts"), found, expected):
        difference = float((a.double() - b.double()).abs().max())
        if not difference <= DETECTOR_BOUND:
            raise ParityError(
                f"The detector's {name} are {difference:.1e} from those of its own engine; nothing was written."
            )


def check_size(engine: Path, reference: torch.nn.Module, precision: str) -> None:
    """Raises ParityError when the file is too large to hold 16-bit weights: a sign besides the distance to FP32."""
    parameters = sum(parameter.numel() for parameter in reference.parameters())
    per_parameter = engine.stat().st_size / parameters
    if per_parameter > config.MAX_BYTES_PER_PARAMETER_16:
        raise ParityError(
            f"The engine is not {precision.upper()}: it takes {per_parameter:.2f} bytes a parameter, as FP32 weights do; "
            f"expected at most {config.MAX_BYTES_PER_PARAMETER_16}."
        )


def engine_metadata(base: dict, module: Path, request: dict, built: dict, cached: bool) -> dict:
    """The metadata of an engine: the module's, what it was built with, and how near it came."""
    tensorrt = request["backend"] == "tensorrt"
    build = {
        "backend": request["backend"],
        "front_end": None if request["streams"] else "torchscript",
        "streams": request["streams"] if tensorrt else None,
        "precision": request["precision"],
        "batch": request["batch"] if tensorrt else None,
        "workspace_mib": request["workspace_mib"] if tensorrt else None,
        "disable_tf32": True,
        "seconds": built["seconds"],
        "cached": cached,
        "method": base["build"]["method"],
    }
    return {
        **base,
        **(detector_metadata() if request["detector"] else new_metadata("engine")),
        "versions": built["versions"],
        "machine": built["machine"],
        "module": {"file": module.name, "sha256": sha256_file(module)},
        "build": build,
        "parity": built["parity"],
    }


def detector_metadata() -> dict:
    """What a detector file's metadata has of its own: what goes in and comes out."""
    images = {"name": "images", "shape": ["N", 3, config.IMAGE_SIZE, config.IMAGE_SIZE], "dtype": "uint8"}
    rows = ["N", config.MAX_DETECTIONS]
    outputs = [
        {"name": "boxes_ltrb", "shape": [*rows, 4], "dtype": "float32"},
        {"name": "labels", "shape": rows, "dtype": "int64"},
        {"name": "scores", "shape": rows, "dtype": "float32"},
        {"name": "counts", "shape": ["N"], "dtype": "int64"},
    ]
    return {**new_metadata("detector"), "inputs": [images], "outputs": outputs}
