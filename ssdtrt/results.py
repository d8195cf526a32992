"""What the library hands back: frozen dataclasses that hold numbers, know their verdict and become JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ssdtrt import config

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class Result:
    """A result that becomes plain JSON types with `as_dict`."""

    def as_dict(self) -> dict:
        """The result as a dict of JSON types; NaN and Inf, which JSON does not have, become None."""
        return _plain(dataclasses.asdict(self))


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Detection(Result):
    """One object found in a picture. `box` is (left, top, right, bottom) in the pixels of the original picture."""

    label: str
    label_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageDetections(Result):
    """The detections of one picture, best first, with its path and its size in pixels."""

    image: str
    width: int
    height: int
    detections: tuple[Detection, ...]


@dataclass(frozen=True)
class Found:
    """The detections of one picture as arrays, best first: `boxes` [K, 4] ltrb in its pixels, `labels` [K], `scores` [K].

    `image` is its path ("" where it has none), `picture` the picture itself, RGB, where that was asked for.
    """

    image: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    picture: Image.Image | None = None

    def named(self, labels: Sequence[str]) -> ImageDetections:
        """The same with the classes' names, edges rounded to 2 decimals and scores to 6."""
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist())
        detections = tuple(
            Detection(labels[label], label, round(score, 6), tuple(round(edge, 2) for edge in box))
            for label, score, box in rows
        )
        return ImageDetections(self.image, self.width, self.height, detections)


@dataclass(frozen=True)
class WeightsSource(Result):
    """Where a model's weights came from.

    `name` is `coco`, `random` or a file name; `sha256` is that of the tensors, `file_sha256` that of the file they were
    read from (None for `random`); `trained` is False for seeded random weights.
    """

    name: str
    sha256: str
    trained: bool
    file_sha256: str | None = None


@dataclass(frozen=True)
class OutputDistance(Result):
    """How far one output is from the reference: relative L2 distance, largest absolute difference, all finite."""

    name: str
    relative_l2: float
    max_abs: float
    finite: bool


@dataclass(frozen=True)
class DetectionAgreement(Result):
    """How the decoded detections of two runners compare.

    A detection is matched when the other side has one of the same class at IoU >= 0.5 (one to one, best scores first).
    `max_score_change` is over the matched pairs; None when there is none.
    """

    reference: int
    engine: int
    matched: int
    max_score_change: float | None

    @property
    def share(self) -> float | None:
        """Matched detections over the larger of the two counts, 0..1; None when there is nothing to compare."""
        larger = max(self.reference, self.engine)
        return self.matched / larger if larger else None

    def as_dict(self) -> dict:
        return {**super().as_dict(), "share": self.share}


@dataclass(frozen=True)
class ParityReport(Result):
    """An engine against the FP32 model on the same pictures.

    `bound` is the largest relative L2 distance allowed; `floor` the smallest that an engine of this precision can
    have (0 for FP32), from what eager PyTorch shows in that precision on the same pictures.
    """

    precision: str
    images: int
    batch_sizes: tuple[int, ...]
    bound: float
    floor: float
    outputs: tuple[OutputDistance, ...]
    detections: DetectionAgreement

    @property
    def distance(self) -> float:
        """The largest relative L2 distance over the outputs; NaN when one of them has none."""
        distances = [output.relative_l2 for output in self.outputs]
        return math.nan if any(map(math.isnan, distances)) else max(distances)

    @property
    def passed(self) -> bool:
        """Every output is finite and within the bound."""
        return all(output.finite and output.relative_l2 <= self.bound for output in self.outputs)

    def as_dict(self) -> dict:
        return {**super().as_dict(), "detections": self.detections.as_dict(), "passed": self.passed}


@dataclass(frozen=True)
class HostTimes(Result):
    """Milliseconds of host time of a call and the wait for its result.

    `returned_ms` is the median until the call came back, before the wait; None on a CPU, where there is no wait.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    returned_ms: float | None = None


@dataclass(frozen=True)
class BenchRow(Result):
    """One runner at one batch size. Times are milliseconds for a batch; they are None where `status` is "failed".

    `peer` is one of config.BENCH_PEERS ("" for a runner of the caller's own) and `file` the path where it is a file.
    `variation` is the standard deviation over the mean. `speedup` is over the FP32 eager row of the same batch size,
    `speedup_low` to `speedup_high` its 95 % confidence interval, None from fewer than three rounds. `memory_mib` is what
    loading and running the runner took from the GPU's free memory. `compile_seconds` is the first call of what compiles
    or captures in it, `first_call_ms` the host time of the first call after that. `agreement` is None where it was
    not compared. `reason` says why it failed.
    """

    name: str
    precision: str
    batch_size: int
    samples: int = 0
    median_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    speedup: float | None = None
    memory_mib: float | None = None
    build_seconds: float | None = None
    agreement: ParityReport | None = None
    peer: str = ""
    file: str | None = None
    worst_ms: float | None = None
    variation: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    host: HostTimes | None = None
    first_call_ms: float | None = None
    compile_seconds: float | None = None
    status: str = "ok"
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    def as_dict(self) -> dict:
        return {**super().as_dict(), "agreement": self.agreement.as_dict() if self.agreement else None}


@dataclass(frozen=True)
class PartTime(Result):
    """One part of the way from pictures to detections, timed apart: milliseconds of host time for a batch."""

    name: str
    batch_size: int
    median_ms: float
    p90_ms: float


@dataclass(frozen=True)
class BenchReport(Result):
    """Runners measured in one process on the same images, interleaved.

    `clock` in the settings says what was read: CUDA events on a GPU, the host's monotonic clock on a CPU. `notes` are
    what a reader of the figures must know, `parts` the parts of the whole way where they were asked for.
    """

    machine: dict
    settings: dict
    rows: tuple[BenchRow, ...]
    notes: tuple[str, ...] = field(default=())
    parts: tuple[PartTime, ...] = field(default=())

    def as_dict(self) -> dict:
        head = {"schema": config.BENCH_SCHEMA, "kind": "bench"}
        return {**head, **super().as_dict(), "rows": [row.as_dict() for row in self.rows]}


TRIAL = "trial build"
"""The check that builds an engine, which is made only where it is asked for."""


@dataclass(frozen=True)
class Finding(Result):
    """One check of `doctor`. `status` is ok, warning (an engine may still be built) or problem (none can be).

    `found` is what there is, `fix` the command or the sentence that mends it ("" where nothing is to be mended).
    """

    check: str
    status: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class DoctorReport(Result):
    """What `doctor` found, in the order in which one thing rests on the other."""

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What keeps a TensorRT engine from being built here."""
        return tuple(finding for finding in self.findings if finding.status == "problem")

    @property
    def can_build(self) -> bool:
        """Whether nothing is seen that keeps a TensorRT engine from being built here."""
        return not self.problems

    def as_dict(self) -> dict:
        return {"can_build": self.can_build, **super().as_dict()}
