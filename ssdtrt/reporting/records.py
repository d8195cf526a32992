"""The reports of `profile`, `detect`, `run`, `plot` and `report`. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.artifact.metadata import EngineMetadata, Metadata
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.detection.results import ImageDetections
from ssdtrt.reading.stage_times import StageTime
from ssdtrt.system.report import Report
from ssdtrt.system.versions import Machine, MeasuredOn, Versions


class LayerTime(Report, frozen=True):
    """The time of a layer.

    Attributes:
        layer: The layer.
        median_ms: The median of its milliseconds.
        share: The share of that in the sum of all layers, 0..1.
    """

    layer: EngineLayer
    median_ms: float
    share: float


class ProfileReport(Report, frozen=True):
    """The time of each layer of an engine, the longest first.

    Attributes:
        file: The engine.
        batch_size: The number of images in a call.
        calls: The number of calls that were timed.
        versions: The installed versions.
        machine: The machine.
        sum_ms: The sum of the medians of all layers. It is more than a call takes: the profiler waits for each layer, and
            with auxiliary streams the time of a layer has its wait for another stream in it.
        call_ms: The median of the milliseconds of a call, as a CUDA graph.
        layers: The layers, the longest first.
    """

    kind = "profile"

    file: str
    batch_size: int
    calls: int
    versions: Versions
    machine: Machine
    sum_ms: float
    call_ms: float
    layers: tuple[LayerTime, ...]


class DetectReport(Report, frozen=True):
    """What a run over pictures did; the detections themselves are in the files that it wrote.

    Attributes:
        file: What detected.
        precision: The precision that it computes in.
        machine: Where it ran.
        pictures: How many pictures were read.
        detections: How many objects were found in them.
        seconds: From the first picture to the last file that was written.
        images_per_second: Pictures read, run and written a second.
        folder: The folder with the annotated pictures; None where none were drawn.
        jsonl: The file of JSON lines, `-` for stdout; None without.
        coco: The file of COCO's results, likewise.
        failures: Why pictures could not be read.
        stages: How long each stage was busy; stages run beside each other.
    """

    kind = "detect"

    file: str
    precision: str
    machine: MeasuredOn
    pictures: int
    detections: int
    seconds: float
    images_per_second: float
    folder: str | None
    jsonl: str | None
    coco: str | None
    failures: tuple[str, ...]
    stages: tuple[StageTime, ...] = ()


class PlotLine(Report, frozen=True):
    """A line of a chart.

    Attributes:
        name: Its name in the legend.
        batch_sizes: Its batch sizes, ascending.
        median_ms: The milliseconds of a batch, at each.
        images_per_second: The images a second, at each.
        ap: The AP at each, None where it was not evaluated.
    """

    name: str
    batch_sizes: tuple[int, ...]
    median_ms: tuple[float, ...]
    images_per_second: tuple[float, ...]
    ap: tuple[float | None, ...] = ()


class PlotReport(Report, frozen=True):
    """What a chart shows.

    Attributes:
        file: The chart.
        reports: The benchmarks that it was drawn from.
        lines: Its lines.
    """

    kind = "plot"

    file: str
    reports: tuple[str, ...]
    lines: tuple[PlotLine, ...]


class PageReport(Report, frozen=True):
    """What a page was made of, and what it lacks.

    Attributes:
        file: The page.
        reports: The files that it was made of.
        not_measured: A sentence for each thing that none of them has, as the page says it.
    """

    kind = "page"

    file: str
    reports: tuple[str, ...]
    not_measured: tuple[str, ...]


class RunReport(Report, frozen=True):
    """The report of the whole job.

    Attributes:
        folder: The folder that everything was written to.
        trained: False if the weights are seeded random numbers.
        backend: The back end that built the engine.
        precision: The compute dtype of the engine, such as `fp16`.
        module: The metadata of the module.
        engine: The metadata of the engine.
        bench: The benchmark report of the engine.
        detections: The detections of each picture.
        notes: What was done differently than asked, and why.
        failures: The errors of pictures that could not be read.
    """

    kind = "run"
    schema = 2

    folder: Path
    trained: bool
    backend: str
    precision: str
    module: Metadata
    engine: EngineMetadata
    bench: BenchReport
    detections: tuple[ImageDetections, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict of JSON types; `bench` is what `ssdtrt bench --json` writes."""
        return {**super().as_dict(), "bench": self.bench.document()}
