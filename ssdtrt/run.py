"""The whole job in one call: weights, module, engine, benchmark and detections, with one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ssdtrt import config
from ssdtrt.artifact.metadata import EngineMetadata, read_metadata
from ssdtrt.artifact.precision import find_backend
from ssdtrt.artifact.request import BatchRange
from ssdtrt.bench import bench_files
from ssdtrt.benchmarking.baselines import check_names
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.compile import compile_engine
from ssdtrt.detect import Detector, detect_files, folder_sink
from ssdtrt.detection.results import ImageDetections
from ssdtrt.detection.settings import check_settings
from ssdtrt.errors import ArtifactError, CompileError, FetchError, ImageError
from ssdtrt.export import export_module
from ssdtrt.formats.packed_weights import read_packed_record
from ssdtrt.images.levels import ValueRange
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import build_model
from ssdtrt.reading.addresses import AddressRules
from ssdtrt.reading.fetch import Fetched, can_be_read, first_fetched, load_picture
from ssdtrt.reading.sources import expand
from ssdtrt.report import write_page
from ssdtrt.reporting.records import RunReport
from ssdtrt.runners import runtime
from ssdtrt.system.files import write_text
from ssdtrt.system.progress import Progress, silent

SAMPLES = Path(__file__).parent / "samples"
SCENES = SAMPLES / "scenes" / "images"
_REPORT_FILE = "report.json"


def run_job(
    pictures: Sequence[str | Path] = (),
    folder: str | Path = config.RUN_DIR,
    *,
    weights: str | Path = config.WEIGHTS,
    preprocess: str = config.PREPROCESS,
    labels: Sequence[str] | None = None,
    trust: bool = False,
    backend: str | None = None,
    batch: BatchRange | str | int | None = None,
    against: Sequence[str] = (),
    threshold: float = config.THRESHOLD,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    allow_private: bool = False,
    max_bytes: int = config.MAX_BYTES,
    timeout: float = config.FETCH_SECONDS,
    progress: Progress = silent,
    note: Progress = silent,
) -> RunReport:
    """Export, compile, bench and detect, and write everything, a report.json and a page of it into a folder.

    If the `coco` weights cannot be fetched, those of `scenes` are used, and if no TensorRT engine can be built here and
    `backend` does not ask for one, a TorchScript engine for the CPU.

    Args:
        pictures: Files, addresses, folders, patterns, or `-` for a list on stdin, as `verify_engine` takes them; by
            default the sample photographs of the package, and with the weights `scenes` its sample scenes.
        folder: The folder to write to, which is created.
        weights: `coco`, `scenes`, `random`, or the path of a checkpoint.
        preprocess: How pictures are prepared for the network: `eval`, the whole picture resized, or `hub`, its center
            crop.
        labels: The names of the classes, without the background; by default those of COCO or of the checkpoint.
        trust: Whether the checkpoint may run code while it is loaded.
        backend: `tensorrt` or `torchscript`; by default the first of them that can be built here.
        batch: The batch size, or "MIN:OPT:MAX", of a TensorRT engine; by default 1. Engines of the back end
            `torchscript` take any size.
        against: More cases to measure, as for `bench_files`.
        threshold: The lowest score of a detection, 0..1.
        value_range: Which values of pictures of more than 8 bits become black and white (see `load_image`).
        max_pixels: The most pixels of a picture (see `load_image`).
        allow_private: Whether pictures are also fetched from this machine and from private networks.
        max_bytes: The most bytes of a picture that is fetched.
        timeout: Seconds in which one must be there, all in all.
        progress: Called with a line of text for each step.
        note: Called with each thing that is done differently than asked; the report has them too.

    Returns:
        What was built, measured and found.

    Raises:
        SsdtrtError: As `build_model`, `export_module`, `compile_engine`, `bench_files` and `Detector` do.
        CompileError: Before anything is done, for a back end that cannot be built here, or that takes any batch size
            where one is given.

    Example:
        >>> from ssdtrt import run_job
        >>> report = run_job(weights="random", folder="job")
        >>> report.trained, len(report.detections)
        (False, 3)
    """
    folder, notes = Path(folder), []

    def notice(text: str) -> None:
        notes.append(text)
        note(text)

    settings: dict[str, Any] = {"threshold": threshold, "value_range": value_range, "max_pixels": max_pixels}
    rules: dict[str, Any] = {"allow_private": allow_private, "max_bytes": max_bytes, "timeout": timeout}
    check_settings(**settings, max_bytes=max_bytes, timeout=timeout)
    failures: list[ImageError] = []
    paths = _find_pictures(pictures, folder, AddressRules(**rules), failures, notice)
    check_names(against)
    building = _building(backend, batch, folder, notice)
    model = _get_model(weights, labels, trust, progress, notice)
    paths = paths or _samples(model)
    module = export_module(model, folder / config.MODULE_FILE, preprocess=preprocess, progress=progress)
    engine = compile_engine(module, folder / config.ENGINE_FILE, **building, progress=progress, note=notice)
    bench = bench_files([engine], against=against, progress=progress)
    found, unreadable = detect_to_folder(Detector(engine, note=notice, **settings, **rules), paths, folder, progress)
    texts = tuple(notes), tuple(map(str, [*failures, *unreadable]))
    report = _report(folder, module, engine, bench, tuple(found), *texts)
    _write(report)
    return report


def _report(
    folder: Path,
    module: Path,
    engine: Path,
    bench: BenchReport,
    detections: tuple[ImageDetections, ...],
    notes: tuple[str, ...],
    failures: tuple[str, ...],
) -> RunReport:
    metadata = cast(EngineMetadata, read_metadata(engine, ("engine",)))
    return RunReport(
        folder=folder,
        trained=metadata.trained,
        backend=metadata.request.backend,
        precision=metadata.precision,
        module=read_metadata(module),
        engine=metadata,
        bench=bench,
        detections=detections,
        notes=notes,
        failures=failures,
    )


def _write(report: RunReport) -> None:
    """Write report.json, and the page of it."""
    path = report.folder / _REPORT_FILE
    write_text(path, json.dumps(report.document(), indent=1) + "\n")
    write_page([path], report.folder / config.PAGE_FILE)


def _find_pictures(
    pictures: Sequence[str | Path], folder: Path, rules: AddressRules, failures: list[ImageError], notice: Progress
) -> list[str | Path | Fetched]:
    """Return the pictures, none where none were given; raise an error now, and not after everything else is done."""
    paths = list(expand(pictures, failures=failures, output=folder, addresses=True, note=notice))
    found = first_fetched(paths, rules, failures)
    if pictures and not found:
        raise failures[0]
    if found and not any(map(can_be_read, found)):
        load_picture(found[0], rules)
    return found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be made: {error.strerror}. Give another folder with -o.") from error


def _building(
    backend: str | None, batch: BatchRange | str | int | None, folder: Path, notice: Progress
) -> dict[str, Any]:
    """Return the back end and the batch sizes of the engine, and make the folder once these can be built."""
    sizes = batch if batch is None or isinstance(batch, BatchRange) else BatchRange.parse(batch)
    if backend is not None:
        _check_backend(backend, sizes)
    _make_folder(folder)
    if backend is None:
        backend, sizes = _choose_backend(sizes, notice)
    return {"backend": backend, "batch": sizes or config.BATCH_SIZE}


def _choose_backend(batch: BatchRange | None, notice: Progress) -> tuple[str, BatchRange | None]:
    """Return `tensorrt` if it can be used here, else `torchscript`, with a note, and the batch sizes of such an engine."""
    missing = runtime.missing_parts()
    if not missing:
        return config.BACKEND, batch
    notice(f"CPU engine instead of a TensorRT engine; missing for that: {', and '.join(missing)}.")
    if batch is not None and batch.sizes != (config.BATCH_SIZE,):
        notice(f"A CPU engine takes any batch, and is measured at {config.BATCH_SIZE}, not at {batch}.")
    return "torchscript", None


def _check_backend(name: str, batch: BatchRange | None) -> None:
    """Raise CompileError for a back end that cannot be built here, or that does not take the batch sizes."""
    backend = find_backend(name)
    if batch is not None and not backend.fixed_batch:
        raise CompileError(f"The backend {name} takes any batch: leave out the batch; found {batch}.")
    reason = runtime.why_not(instead="--backend torchscript") if backend.on_gpu else None
    if reason:
        raise CompileError(reason)


def _get_model(
    weights: str | Path, labels: Sequence[str] | None, trust: bool, progress: Progress, notice: Progress
) -> SSD300:
    """Return the model with these weights, or with those of `scenes` and a note if `coco` cannot be fetched."""
    try:
        return build_model(weights, labels=labels, trust=trust, progress=progress, note=notice)
    except FetchError as error:
        model = build_model("scenes")
        record = read_packed_record(config.SCENES_WEIGHTS)
        notice(
            f"Weights of {len(record.labels) - 1} shapes in generated scenes (AP {record.figures['AP']:.2f} on "
            f"{record.images:,} of them) instead of COCO's: in other pictures the detections mean nothing."
            f"{' The labels that were given are not used.' if labels else ''} {error}"
        )
        return model


def _samples(model: SSD300) -> list[str | Path | Fetched]:
    """Return the package's scenes for a model with its own weights, and its photographs for any other."""
    own = model.source is not None and model.source.name == "scenes"
    return [*sorted((SCENES if own else SAMPLES).glob("*.jpg"))]


def detect_to_folder(
    detector: Detector, pictures: Sequence[str | Path | Fetched], folder: str | Path, progress: Progress = silent
) -> tuple[list[ImageDetections], list[ImageError]]:
    """Detect in picture files, and write each with its boxes, and `detections.json`, into a folder.

    Args:
        detector: The detector.
        pictures: The files, addresses, or what was fetched.
        folder: The folder, which is made (see FolderSink).
        progress: Called with a line about how far it is.

    Returns:
        The detections, and the errors of the pictures that cannot be read.

    Raises:
        ArtifactError: Where the folder cannot be written.
    """
    failures: list[ImageError] = []
    found: list[ImageDetections] = []
    sinks = [folder_sink(detector, folder)]
    labels = detector.runner.labels
    detect_files(
        detector, pictures, sinks, failures, len(pictures), progress, lambda one: found.append(one.named(labels))
    )
    return found, failures
