"""The distance of an engine to the FP32 model, and whether it is accepted. Imports no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ssdtrt import config
from ssdtrt.system.report import Report

_ANOTHER = "Build it for another batch size (--batch-size), or in FP32 (--fp32)."


class OutputDistance(Report, frozen=True):
    """The distance of one output to the reference.

    Attributes:
        name: `loc` or `conf`.
        relative_l2: The relative L2 distance; None if there are NaN or infinite values.
        max_abs: The largest absolute difference; None if it is not finite.
        finite: Whether every value is finite.
    """

    name: str
    relative_l2: float | None
    max_abs: float | None = None
    finite: bool = True


class DetectionAgreement(Report, frozen=True):
    """The agreement of an engine's detections with those of the FP32 model.

    Detections match if they have the same class and an IoU of at least 0.5. Each is used once, and those of the engine
    are matched in descending order of their scores.

    Attributes:
        reference: The number of detections of the FP32 model.
        engine: The number of detections of the engine.
        matched: The number of matched pairs.
        max_score_change: The largest difference of the scores of a pair, 0..1; None if there is no pair.
    """

    derived: ClassVar[tuple[str, ...]] = ("match_rate",)

    reference: int
    engine: int
    matched: int = 0
    max_score_change: float | None = None

    @property
    def match_rate(self) -> float | None:
        """The matched pairs divided by the larger number of detections, 0..1; None if there are no detections."""
        larger = max(self.reference, self.engine)
        return self.matched / larger if larger else None


class Repeatability(Report, frozen=True):
    """Whether an engine gives an image's outputs in every place of a batch, and in every run.

    Distances are relative L2 distances of one image's output, the largest over `loc` and `conf`, the sizes and the
    places; infinite where an output is not finite.

    Attributes:
        batch_sizes: The batch sizes that were run.
        batch_bound: The largest `in_batch` that passes.
        in_batch: The distance of an image in the first, middle or last place of a batch to the image alone.
        batch_size: The batch size in which `in_batch` was found.
        place: The place in that batch, from 0.
        again: The distance of a second run of the same batch.
        cuda_graph: The distance of a run as a CUDA graph; None for a CPU engine.
    """

    batch_sizes: tuple[int, ...]
    batch_bound: float
    in_batch: float
    batch_size: int
    place: int
    again: float
    cuda_graph: float | None = None

    @property
    def failure(self) -> str | None:
        """Why the engine is refused, in one line; None if it is not."""
        for how, distance in (("a second run", self.again), ("a run as a CUDA graph", self.cuda_graph)):
            if distance is not None and not distance <= config.REPEAT_BOUND:
                return (
                    f"The engine does not repeat its results: {how} of the same images differs by {distance:.1e} "
                    f"(relative L2); expected at most {config.REPEAT_BOUND:.0e}. {_ANOTHER}"
                )
        if not self.in_batch <= self.batch_bound:
            return (
                f"The engine's results depend on the batch: image {self.place + 1} of {self.batch_size} differs from the "
                f"same image alone by {self.in_batch:.1e} (relative L2); expected at most {self.batch_bound:.1e}. "
                f"{_ANOTHER}"
            )
        return None


class ParityReport(Report, frozen=True):
    """The comparison of an engine with the FP32 model on the same images.

    Attributes:
        precision: `fp32`, `fp16`, `bf16`, or `tf32` for a benchmark case.
        images: The number of images.
        batch_sizes: The batch sizes that they were run in.
        bound: The largest relative L2 distance that passes.
        floor: The smallest relative L2 distance that passes, derived from that of eager PyTorch in this precision on
            the same images; 0 for FP32.
        outputs: The distance of each output: the largest over the batch sizes.
        detections: The agreement of the detections; it does not affect whether the engine passes.
        repeatability: Whether the engine gives the same in every place of a batch and in every run; None where only
            the distances were measured.

    Example:
        >>> from ssdtrt import verify_engine
        >>> report = verify_engine("ssd300.engine.ts", ["street.jpg"])
        >>> report.passed, [output.name for output in report.outputs]
        (True, ['loc', 'conf'])
        >>> report.distance < 1e-5
        True
    """

    kind = "parity"
    schema = 2
    derived: ClassVar[tuple[str, ...]] = ("passed",)

    precision: str
    images: int
    batch_sizes: tuple[int, ...]
    bound: float
    floor: float
    outputs: Annotated[tuple[OutputDistance, ...], msgspec.Meta(min_length=1)]
    detections: DetectionAgreement
    repeatability: Repeatability | None = None

    @property
    def distance(self) -> float | None:
        """The largest relative L2 distance of the outputs; None if an output has none."""
        distances = [output.relative_l2 for output in self.outputs if output.relative_l2 is not None]
        return max(distances) if len(distances) == len(self.outputs) else None

    @property
    def too_near(self) -> bool:
        """Whether the distance is below the floor, so that the engine was not built in this precision."""
        return self.distance is not None and self.distance < self.floor

    @property
    def passed(self) -> bool:
        """Whether `compile` accepts the engine (see `failure`)."""
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """Why the engine is refused, in one sentence; None if it is accepted.

        It is accepted if every output is finite, the largest distance lies between the floor and the bound, and its
        results are the same in every place of a batch and in every run, as far as that was measured.
        """
        figures = ", ".join(f"{output.name} {_shown(output.relative_l2)}" for output in self.outputs)
        distance = self.distance
        if distance is None or not all(output.finite for output in self.outputs):
            return f"The engine's outputs hold NaN or Inf ({figures})."
        if distance > self.bound:
            return (
                f"The engine is too far from the FP32 model: relative L2 distance {figures}; "
                f"expected at most {self.bound:.0e} for {self.precision.upper()}."
            )
        if self.too_near:
            return (
                f"The engine is not {self.precision.upper()}: its relative L2 distance to FP32 ({figures}) is below "
                f"{self.floor:.1e}, the smallest expected of arithmetic in that precision."
            )
        return self.repeatability.failure if self.repeatability else None


def _shown(distance: float | None) -> str:
    return "not finite" if distance is None else f"{distance:.2e}"
