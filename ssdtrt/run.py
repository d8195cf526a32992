"""The whole job in one go: weights, module, engine, benchmark and detections, with one report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ssdtrt import config
from ssdtrt.artifact import runtime
from ssdtrt.artifact.capabilities import BACKENDS
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.bench import bench_files
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.compile import compile_engine
from ssdtrt.detect import Detector
from ssdtrt.detection.results import ImageDetections
from ssdtrt.detection.sinks import detect_to_folder
from ssdtrt.errors import ArtifactError, FetchError
from ssdtrt.export import export_module
from ssdtrt.images.decode import load_image
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import build_model
from ssdtrt.system.files import write_text
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.report import Report

SAMPLES = Path(__file__).parent / "samples"


class RunReport(Report, frozen=True):
    """What the whole job did. `notes` are the departures from what was asked; `failures` the unreadable pictures."""

    folder: Path
    trained: bool
    backend: str
    precision: str
    module: dict
    engine: dict
    bench: BenchReport
    detections: tuple[ImageDetections, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]

    def as_dict(self) -> dict:
        return {**super().as_dict(), "bench": self.bench.as_dict()}


def run_job(
    pictures: Sequence[str | Path] = (),
    folder: str | Path = config.RUN_DIR,
    *,
    weights: str | Path = config.WEIGHTS,
    preprocess: str = config.PREPROCESS,
    labels: Sequence[str] | None = None,
    trust: bool = False,
    batch: str | int = config.BATCH_SIZE,
    threshold: float = config.THRESHOLD,
    progress: Progress = silent,
    note: Progress = silent,
) -> RunReport:
    """Export, compile, bench and detect into `folder`, with the sample photographs where no picture is given.

    Where the `coco` weights cannot be fetched it goes on with `random` ones, and where no TensorRT engine can be built
    with a TorchScript engine for the CPU; `note` is called with each such departure, and the report holds it. Raises
    what the steps raise.
    """
    folder, notes = Path(folder), []

    def depart(text: str) -> None:
        notes.append(text)
        note(text)

    pictures = pictures or sorted(SAMPLES.glob("*.jpg"))
    if not any(map(os.path.isfile, pictures)):
        load_image(pictures[0])  # Raises: better now than after all else was done.
    make_folder(folder)
    backend = choose_backend(depart)
    if backend == "torchscript" and str(batch) != str(config.BATCH_SIZE):
        depart(f"A CPU engine takes any batch, and is measured at {config.BATCH_SIZE}, not at {batch}.")
    model = get_model(weights, labels, trust, progress, depart)
    module = export_module(model, folder / config.MODULE_FILE, preprocess=preprocess, progress=progress)
    engine = compile_engine(module, folder / config.ENGINE_FILE, backend=backend, batch=batch, progress=progress)
    report = bench_files([engine], progress=progress)
    found, failures = detect_to_folder(Detector(engine, threshold=threshold, note=depart), pictures, folder, progress)
    result = RunReport(
        folder=folder,
        trained=model.source.trained,
        backend=backend,
        precision=BACKENDS[backend].precisions[0],
        module=read_metadata(module),
        engine=read_metadata(engine),
        bench=report,
        detections=tuple(found),
        notes=tuple(notes),
        failures=tuple(map(str, failures)),
    )
    write_text(folder / "report.json", json.dumps(result.as_dict(), indent=1) + "\n")
    return result


def make_folder(folder: Path) -> None:
    """Makes the output folder, or raises ArtifactError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be made: {error.strerror}. Give another folder with -o.") from error


def choose_backend(depart: Progress) -> str:
    """TensorRT where it can be used, else TorchScript on the CPU, and says so."""
    reason = runtime.why_not()
    if reason is None:
        return config.BACKEND
    depart(f"CPU engine instead of TensorRT. {reason.split(runtime.CPU_BACKEND)[0].strip()}")
    return "torchscript"


def get_model(weights, labels, trust: bool, progress: Progress, depart: Progress) -> SSD300:
    """The model with the weights asked for, or with random ones where `coco` cannot be fetched, and says so."""
    try:
        return build_model(weights, labels=labels, trust=trust, progress=progress, note=depart)
    except FetchError as error:
        depart(f"Untrained random weights instead of COCO's, so the detections mean nothing. {error}")
        return build_model("random", labels=labels, progress=progress)
