"""The options of an INT8 build, and which of them go together."""

from pathlib import Path

import pytest

from ssdtrt.errors import CalibrationError
from ssdtrt.quantization.options import Int8Options


@pytest.mark.parametrize(
    "options, message",
    [
        ({"calibration": "a", "calibrator": "mean"}, "Unknown calibrator 'mean'; expected "),
        (
            {"calibration": "a", "calibration_table": "t", "calibrator": "mse"},
            "A calibration table has its calibrator: leave out one of the two.",
        ),
        ({"calibration": "a", "images": "b"}, "Annotated pictures take both: --images DIR and --annotations FILE."),
        (
            {"calibration": "a", "annotations": "b"},
            "Annotated pictures take both: --images DIR and --annotations FILE.",
        ),
        ({}, "INT8 needs pictures like those that it will see: --calibration DIR, 500 or more. "),
        ({"images": "a", "annotations": "b"}, "INT8 needs pictures like those that it will see: --calibration DIR"),
        ({"calibration_table": "a"}, "INT8 needs pictures like those that it will see: --calibration DIR"),
        ({"calibration": "a", "min_ap_ratio": 0.0}, "The smallest AP ratio is above 0 and at most 1; found 0.0."),
        ({"calibration": "a", "min_ap_ratio": 1.1}, "The smallest AP ratio is above 0 and at most 1; found 1.1."),
        (
            {"calibration": "a", "min_ap_ratio": float("nan")},
            "The smallest AP ratio is above 0 and at most 1; found nan.",
        ),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options, message):
    with pytest.raises(CalibrationError) as caught:
        Int8Options(**options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_table_needs_pictures_to_judge_on():
    assert Int8Options(calibration_table="t", calibration="a").calibrator is None
    assert Int8Options(calibration_table="t", images="a", annotations="b", min_ap_ratio=1.0).keep_fp16 == "auto"


def test_the_pictures_are_options_as_they_were_given():
    options = Int8Options(calibration="pictures", images=Path("val"), annotations="val.json", min_ap_ratio=0.995)
    assert options.pictures == (
        "--calibration", "pictures", "--images", "val", "--annotations", "val.json", "--min-ap-ratio", "0.995"
    )  # fmt: skip
    assert Int8Options(calibration="-").pictures == ("--calibration", "-")
