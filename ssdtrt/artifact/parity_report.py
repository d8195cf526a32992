"""How far an engine is from the FP32 model, and the one judgement on that. No torch here."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ssdtrt.system.report import Report


class OutputDistance(Report, frozen=True):
    """How far one output is from the reference.

    Attributes:
        name: `loc` or `conf`.
        relative_l2: The relative L2 distance; None where an output holds NaN or infinity.
        max_abs: The largest absolute difference; None where it is not finite.
        finite: Whether every value is finite.
    """

    name: str
    relative_l2: float | None
    max_abs: float | None = None
    finite: bool = True


class DetectionAgreement(Report, frozen=True):
    """How the decoded detections of two runners compare.

    A detection is matched when the other side has one of the same class at IoU >= 0.5 (one to one, best scores first).

    Attributes:
        reference: How many detections the FP32 model has.
        engine: How many the engine has.
        matched: How many pairs were matched.
        max_score_change: The largest change of a score over the matched pairs, 0..1; None when there is no pair.
    """

    derived: ClassVar[tuple[str, ...]] = ("match_rate",)

    reference: int
    engine: int
    matched: int = 0
    max_score_change: float | None = None

    @property
    def match_rate(self) -> float | None:
        """Matched detections over the larger of the two counts, 0..1; None when there is nothing to compare."""
        larger = max(self.reference, self.engine)
        return self.matched / larger if larger else None


class ParityReport(Report, frozen=True):
    """An engine compared with the FP32 model on the same pictures.

    Attributes:
        precision: `fp32`, `fp16`, `bf16`, or `tf32` for a benchmark case.
        images: How many pictures were compared.
        batch_sizes: The batch sizes that they were run in.
        bound: The largest relative L2 distance that passes.
        floor: The smallest relative L2 distance that arithmetic in this precision can have, from what eager PyTorch
            shows in it on the same pictures; 0 for FP32.
        outputs: The distance of each output.
        detections: How the decoded detections compare. Reported, and no part of the verdict.
    """

    derived: ClassVar[tuple[str, ...]] = ("passed",)

    precision: str
    images: int
    batch_sizes: tuple[int, ...]
    bound: float
    floor: float
    outputs: Annotated[tuple[OutputDistance, ...], msgspec.Meta(min_length=1)]
    detections: DetectionAgreement

    @property
    def distance(self) -> float | None:
        """The largest relative L2 distance over the outputs; None when one of them has none."""
        distances = [output.relative_l2 for output in self.outputs if output.relative_l2 is not None]
        return max(distances) if len(distances) == len(self.outputs) else None

    @property
    def passed(self) -> bool:
        """Whether `compile` accepts such an engine: see `failure`."""
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """Why the engine is refused, in one sentence; None when it is accepted.

        It is accepted when every output is finite and within the bound, and no output set is nearer to FP32 than the
        precision allows.
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
        if distance < self.floor:
            return (
                f"The engine is not {self.precision.upper()}: its relative L2 distance to FP32 ({figures}) is below "
                f"{self.floor:.1e}, the smallest that arithmetic in that precision can have."
            )
        return None


def _shown(distance: float | None) -> str:
    return "not finite" if distance is None else f"{distance:.2e}"
