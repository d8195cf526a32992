"""What INT8 adds to records: the calibration table, the quantization of a request, and the verdict. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from ssdtrt import config
from ssdtrt.errors import CalibrationError
from ssdtrt.system.digests import Digest
from ssdtrt.system.report import Report

_Range = Annotated[float, msgspec.Meta(gt=0)]


class Quantization(Report, frozen=True, kw_only=True):
    """How a network is quantized, as a part of the build request.

    Attributes:
        table: The file name of the calibration table.
        ranges: Its ranges.
        exponents: Its exponents.
        keep_fp16: The names of the convolutions that stay in FP16.
        pictures: The options of `ssdtrt compile` for the pictures that the engine was judged on, as they were given.
    """

    table: str
    ranges: dict[str, _Range]
    exponents: dict[str, tuple[int, ...]]
    keep_fp16: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        """The options of `ssdtrt compile` for this, and their values."""
        return ["--calibration-table", self.table, "--keep-fp16", ",".join(self.keep_fp16) or "none", *self.pictures]


class CalibrationTable(Report, frozen=True, kw_only=True):
    """The ranges of the tensors of a network, measured on pictures.

    Attributes:
        weights: The SHA-256 of the weights that they were measured with.
        preprocess: How the pictures were prepared.
        calibrator: How the ranges were found.
        pictures: The SHA-256 of each picture file.
        ranges: The absolute value that becomes 127, by the name of each tensor (see
            `ssdtrt.rewriting.quantized.quantized_tensors`).
        exponents: By which factor 2 ** (k / 8) each channel was divided before: the k, by the name of each group of
            channels (see `ssdtrt.rewriting.equalized`).
    """

    kind: ClassVar[str] = "calibration"
    schema: ClassVar[int] = 1

    weights: Digest
    preprocess: Literal["eval", "hub"]
    calibrator: str
    pictures: tuple[Digest, ...]
    ranges: dict[str, _Range]
    exponents: dict[str, tuple[int, ...]]

    def quantization(self, name: str, keep_fp16: Collection[str] = (), pictures: Collection[str] = ()) -> Quantization:
        """Return the quantization of this table, whose file has a name, with these layers in FP16, judged on pictures."""
        return Quantization(
            table=name,
            ranges=self.ranges,
            exponents=self.exponents,
            keep_fp16=tuple(keep_fp16),
            pictures=tuple(pictures),
        )

    def write(self, path: Path) -> None:
        """Write the table as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self.document()), indent=1) + b"\n")

    @classmethod
    def read(cls, path: str | Path, weights: str, preprocess: str) -> CalibrationTable:
        """Read a table that was measured with these weights.

        Args:
            path: The file.
            weights: The SHA-256 of the weights to be quantized.
            preprocess: How pictures are prepared for them.

        Raises:
            CalibrationError: If it cannot be read, is no calibration table, or was measured with something else.
        """
        try:
            data = msgspec.json.decode(Path(path).read_bytes())
            if not isinstance(data, dict) or (data.get("kind"), data.get("schema")) != (cls.kind, cls.schema):
                raise CalibrationError(f"{path} is no calibration table, which ssdtrt compile --int8 writes.")
            table = msgspec.convert(data, cls)
        except OSError as error:
            raise CalibrationError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CalibrationError(f"{path} is a damaged calibration table ({error}). Calibrate again.") from error
        for name, measured, wanted in (
            ("weights", table.weights, weights),
            ("preprocessing", table.preprocess, preprocess),
        ):
            if measured != wanted:
                raise CalibrationError(
                    f"{path} is stale: it was measured with the {name} {measured}; this module has {wanted}. "
                    "Calibrate again: leave out --calibration-table."
                )
        return table


class LayerCost(Report, frozen=True):
    """What the quantization of one convolution costs, measured with all others in FP32.

    Attributes:
        name: Its name.
        cost: The mean squared error of the offsets where FP32 sees an object, as a share of their mean square, plus
            the mean squared error of the scores.
        share: Its share of the multiplications, 0..1.
        fp16: Whether it stays in FP16.
    """

    name: str
    cost: float
    share: float
    fp16: bool = False


class Agreement(Report, frozen=True):
    """How well detections agree with those of FP32, and where the limits are.

    Attributes:
        pictures: The number of pictures.
        detections: The number of confident detections of both sides, score at least 0.3.
        match_rate: The share of them that the other side has too, with the same class and IoU, 0..1: the mean over the
            IoU thresholds 0.5, 0.55 and so on to 0.95.
        score_change: The mean absolute difference of the scores of those that match at IoU 0.5, 0..1; None if none does.
        min_match_rate: The smallest accepted match rate.
        max_score_change: The largest accepted change of scores.
    """

    pictures: int
    detections: int
    match_rate: float
    score_change: float | None
    min_match_rate: float = config.MIN_MATCH_RATE
    max_score_change: float = config.MAX_SCORE_CHANGE

    @property
    def failure(self) -> str | None:
        """Why the detections are refused; None if they are accepted."""
        if not self.detections:
            return f"neither FP32 nor INT8 detects anything in the {self.pictures} pictures"
        if self.match_rate < self.min_match_rate:
            return (
                f"{self.match_rate:.3f} of the detections agree with FP32's; expected at least {self.min_match_rate:g}"
            )
        if self.score_change is not None and self.score_change > self.max_score_change:
            return f"scores change by {self.score_change:.3f} on average; expected at most {self.max_score_change:g}"
        return None


def decides_ap(pictures: int) -> bool:
    """Return whether so many annotated pictures are enough for a verdict on the AP."""
    return pictures >= config.MIN_AP_PICTURES


class ApRatio(Report, frozen=True):
    """The AP of an engine beside FP32's, on annotated pictures.

    Attributes:
        pictures: The number of pictures.
        fp32: The AP of FP32 eager, 0..1.
        int8: The AP of the engine, 0..1.
        minimum: The smallest accepted ratio.
    """

    derived: ClassVar[tuple[str, ...]] = ("ratio", "decided")

    pictures: int
    fp32: float
    int8: float
    minimum: float

    @property
    def ratio(self) -> float | None:
        """The engine's AP divided by FP32's; None where FP32's is 0."""
        return self.int8 / self.fp32 if self.fp32 > 0 else None

    @property
    def decided(self) -> bool:
        """Whether there are enough pictures for a verdict on the AP."""
        return decides_ap(self.pictures)

    @property
    def failure(self) -> str | None:
        """Why the AP is refused; None if it is accepted, or undecided."""
        if not self.decided:
            return None
        if self.ratio is None:
            return f"FP32 has an AP of 0 on the {self.pictures} pictures: they are not what the network was trained for"
        if self.ratio < self.minimum:
            return (
                f"its AP is {self.int8:.4f}, {self.ratio:.4f} of FP32's {self.fp32:.4f}; "
                f"expected at least {self.minimum:g} (--min-ap-ratio)"
            )
        return None


def accuracy_failure(agreement: Agreement, ap: ApRatio | None) -> str | None:
    """Return why a network is not accurate enough, None if it is: by its AP if that is decided, or else its detections."""
    return ap.failure if ap is not None and ap.decided else agreement.failure


class Int8Verdict(Report, frozen=True, kw_only=True):
    """What an INT8 engine was judged by.

    Attributes:
        calibrator: The calibrator of its ranges.
        calibration_pictures: The number of pictures that they were measured on.
        int8_layers: The number of convolutions that TensorRT runs in INT8.
        int8_share: Their share of the multiplications, 0..1.
        batch_size: The batch size of the times.
        int8_ms: The median time of the engine in ms.
        fp16_ms: That of the FP16 engine, measured in turns.
        agreement: Its detections beside FP32's: in pictures that no range was measured on, or else in the annotated ones.
        ap: Its AP beside FP32's; None without annotated pictures.
        costs: What each convolution costs, if that was measured, the most costly for its share first.
    """

    derived: ClassVar[tuple[str, ...]] = ("passed",)

    calibrator: str
    calibration_pictures: int
    int8_layers: int
    int8_share: float
    batch_size: int
    int8_ms: float
    fp16_ms: float
    agreement: Agreement
    ap: ApRatio | None = None
    costs: tuple[LayerCost, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the engine is accepted."""
        return self.failure is None

    @property
    def accuracy_failure(self) -> str | None:
        """Why the engine is not accurate enough; None if it is."""
        return accuracy_failure(self.agreement, self.ap)

    @property
    def failure(self) -> str | None:
        """Why the engine is refused, with what to try next; None if it is accepted."""
        if not self.int8_layers:
            return "TensorRT built no layer in INT8. Build in FP16: --fp16."
        if self.accuracy_failure:
            layers = "" if self.costs else "--keep-fp16 auto, "
            return (
                f"The INT8 engine is not accurate enough: {self.accuracy_failure}. Try {layers}another --calibrator, or more "
                "pictures like those that it will see; or build in FP16 (--fp16)."
            )
        if not self.int8_ms < self.fp16_ms:
            return (
                f"The INT8 engine is not faster: {self.int8_ms:.3f} ms at batch {self.batch_size}, FP16 {self.fp16_ms:.3f} ms. "
                "Keep FP16 (--fp16), or try a larger batch or fewer layers in --keep-fp16."
            )
        return None
