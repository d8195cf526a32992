"""The options of an INT8 build. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import CalibrationError


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """The options of `compile_engine` for `int8`; each is an option of `ssdtrt compile` of the same name.

    Attributes:
        calibration: The pictures to calibrate on: a folder, a pattern, `-` for a list on stdin, or a text file with a path
            in each line. At least 100, better 500; with a table any number, to judge the engine on.
        calibrator: How ranges are found: `max` (the default), `mse`, `percentile` or `entropy`. Not together with a table.
        calibration_table: A calibration table to take the ranges from.
        keep_fp16: The convolutions that stay in FP16: `auto`, `none`, or their names with commas between.
        images: The folder of annotated pictures to judge the engine on; none of them may be among the calibration pictures.
        annotations: Their annotations, in COCO's `instances` format.
        min_ap_ratio: The smallest accepted AP on them, as a share of FP32's, 0..1.

    Raises:
        CalibrationError: If they do not go together.

    Example:
        >>> from ssdtrt import Int8Options
        >>> Int8Options(calibration="street-pictures").min_ap_ratio
        0.99
    """

    calibration: str | Path | None = None
    calibrator: str | None = None
    calibration_table: str | Path | None = None
    keep_fp16: str = "auto"
    images: str | Path | None = None
    annotations: str | Path | None = None
    min_ap_ratio: float = config.MIN_AP_RATIO

    def __post_init__(self) -> None:
        if self.calibrator not in (None, *config.CALIBRATORS):
            known = " or ".join(config.CALIBRATORS)
            raise CalibrationError(f"Unknown calibrator {self.calibrator!r}; expected {known}.")
        if self.calibrator is not None and self.calibration_table is not None:
            raise CalibrationError("A calibration table has its calibrator: leave out one of the two.")
        if (self.images is None) != (self.annotations is None):
            raise CalibrationError("Annotated pictures take both: --images DIR and --annotations FILE.")
        if self.calibration is None and (self.calibration_table is None or self.images is None):
            raise CalibrationError(
                "INT8 needs pictures like those that it will see: --calibration DIR, 500 or more. With --calibration-table "
                "some are needed to judge the engine on: --calibration DIR, or --images DIR --annotations FILE."
            )
        if not 0 < self.min_ap_ratio <= 1:
            raise CalibrationError(f"The smallest AP ratio is above 0 and at most 1; found {self.min_ap_ratio}.")

    @property
    def pictures(self) -> tuple[str, ...]:
        """The options of `ssdtrt compile` for the pictures that the engine is judged on."""
        named = (("calibration", self.calibration), ("images", self.images), ("annotations", self.annotations))
        words = [word for name, value in named if value is not None for word in (f"--{name}", str(value))]
        return (
            *words,
            *([] if self.min_ap_ratio == config.MIN_AP_RATIO else ["--min-ap-ratio", f"{self.min_ap_ratio:g}"]),
        )
