"""The options of INT8, the calibration table as a file, and when the verdict refuses an engine."""

import json

import pytest
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.artifact.quantization import (
    Agreement,
    ApRatio,
    CalibrationTable,
    Int8Verdict,
    LayerCost,
    Quantization,
)
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.errors import CalibrationError

WEIGHTS, OTHER = "a" * 64, "b" * 64
TABLE = CalibrationTable(
    weights=WEIGHTS,
    preprocess="eval",
    calibrator="mse",
    pictures=("1" * 64, "2" * 64),
    ranges={"heads.0": 2.640000104904175, "heads.1": 1e-3},
    exponents={"additional_blocks.0": (-48, 0, 7)},
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "t.json"
    TABLE.write(path)
    return path


def test_a_table_is_read_as_it_was_written(path):
    assert CalibrationTable.read(path, WEIGHTS, "eval") == TABLE
    assert CalibrationTable.read(str(path), WEIGHTS, "eval") == TABLE
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data == {
        "schema": 1, "kind": "calibration", "weights": WEIGHTS, "preprocess": "eval", "calibrator": "mse",
        "pictures": ["1" * 64, "2" * 64], "ranges": {"heads.0": 2.640000104904175, "heads.1": 0.001},
        "exponents": {"additional_blocks.0": [-48, 0, 7]},
    }  # fmt: skip
    assert path.read_bytes().endswith(b"}\n") and path.read_text().count("\n") > 8  # One can read it.


def refused(path, weights=WEIGHTS, preprocess="eval"):
    """The message, without the path that it begins with."""
    with pytest.raises(CalibrationError) as caught:
        CalibrationTable.read(path, weights, preprocess)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and "\n" not in message
    return message.removeprefix(f"{path} ")


def test_a_stale_table_is_refused(path):
    again = "Calibrate again: leave out --calibration-table."
    assert refused(path, OTHER) == (
        f"is stale: it was measured with the weights {WEIGHTS}; this module has {OTHER}. {again}"
    )
    assert refused(path, preprocess="hub") == (
        f"is stale: it was measured with the preprocessing eval; this module has hub. {again}"
    )


@pytest.mark.parametrize(
    "change",
    [lambda data: {**data, "kind": "parity"}, lambda data: {**data, "schema": 2}, lambda data: [], lambda data: {}],
)
def test_what_is_no_table_is_refused(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert refused(path) == "is no calibration table, which ssdtrt compile --int8 writes."


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda text: text[:100], "Input data was truncated"),
        (lambda text: "", "Input data was truncated"),
        (lambda text: text.replace("0.001", "0"), "Expected `float` > 0.0 - at `$.ranges[...]`"),
        (lambda text: text.replace("0.001", "-1"), "Expected `float` > 0.0 - at `$.ranges[...]`"),
        (lambda text: text.replace("0.001", "null"), "Expected `float`, got `null` - at `$.ranges[...]`"),
        (lambda text: text.replace('"weights"', '"weight"'), "Object missing required field `weights`"),
        (lambda text: "[" * 100_000, None),
    ],
)
def test_a_damaged_table_is_refused(path, change, reason):
    path.write_text(change(path.read_text()))
    found = refused(path)
    assert found.startswith("is a damaged calibration table (") and found.endswith("). Calibrate again.")
    assert reason is None or found == f"is a damaged calibration table ({reason}). Calibrate again."


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(path.read_bytes().replace(b"heads.1", b"heads\xff1"))
    assert refused(path).startswith("is a damaged calibration table (")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refused(tmp_path / "none.json") == "cannot be read: No such file or directory."
    assert refused(tmp_path) == "cannot be read: Is a directory."


def test_the_command_that_builds_it_again_names_the_table_and_the_kept_layers():
    request = BuildRequest(
        weights=WEIGHTS, graph=OTHER, preprocess="eval", backend="tensorrt", precision="int8", batch="8",
        front_end="tensorrt", streams=4, quantization=Quantization(table="t.json", ranges={"heads.0": 1.0}, exponents={}),
    )  # fmt: skip
    options = "--front-end tensorrt --streams 4 --calibration-table t.json --keep-fp16"
    assert request.command("m.ts") == f"ssdtrt compile m.ts --int8 --batch-size 8 {options} none"
    kept = replace(request.quantization, keep_fp16=("heads.0", "heads.1"))
    command = replace(request, quantization=kept).command("m.ts", "o.ts")
    assert command == f"ssdtrt compile m.ts --int8 --batch-size 8 {options} heads.0,heads.1 -o o.ts"


GOOD = Int8Verdict(
    calibrator="max",
    calibration_pictures=500,
    int8_layers=57,
    int8_share=0.99,
    batch_size=8,
    int8_ms=0.5,
    fp16_ms=0.8,
    agreement=Agreement(10, 100, 1.0, 0.0),
    costs=(LayerCost("heads.0", 0.1, 0.2),),
)
BAD_AGREEMENT = Agreement(10, 100, 0.5, 0.0)


def ap(int8, pictures=config.MIN_AP_PICTURES, fp32=0.5):
    return ApRatio(pictures, fp32, int8, 0.99)


def test_what_is_accurate_faster_and_int8_passes():
    assert GOOD.passed and GOOD.failure is None
    assert replace(GOOD, ap=ap(0.495)).passed  # 0.99 of 0.5.
    assert GOOD.as_dict()["passed"] is True and GOOD.as_dict()["agreement"]["match_rate"] == 1.0


def test_without_a_layer_in_int8_it_is_refused():
    assert replace(GOOD, int8_layers=0, int8_share=0.0).failure == (
        "TensorRT built no layer in INT8. Build in FP16: --fp16."
    )


@pytest.mark.parametrize("int8_ms", [0.8, 0.9, float("nan")])
def test_what_is_not_faster_is_refused_with_both_times(int8_ms):
    assert replace(GOOD, int8_ms=int8_ms).failure == (
        f"The INT8 engine is not faster: {int8_ms:.3f} ms at batch 8, FP16 0.800 ms. Keep FP16 (--fp16), or try a larger "
        "batch or fewer layers in --keep-fp16."
    )


def test_an_ap_below_the_ratio_is_refused_with_the_figures():
    found = replace(GOOD, ap=ap(0.49))
    assert found.accuracy_failure == (
        "its AP is 0.4900, 0.9800 of FP32's 0.5000; expected at least 0.99 (--min-ap-ratio)"
    )
    assert found.failure == (
        f"The INT8 engine is not accurate enough: {found.accuracy_failure}. Try another --calibrator, or more "
        "pictures like those that it will see; or build in FP16 (--fp16)."
    )


def test_the_ap_decides_where_there_are_enough_pictures_and_the_detections_else():
    few = config.MIN_AP_PICTURES - 1
    assert replace(GOOD, ap=ap(0.1, few)).passed and not ap(0.1, few).decided and ap(0.1, few).failure is None
    assert replace(GOOD, ap=ap(0.1)).failure and replace(GOOD, ap=ap(0.5), agreement=BAD_AGREEMENT).passed
    for refused_by_detections in (
        replace(GOOD, agreement=BAD_AGREEMENT),
        replace(GOOD, agreement=BAD_AGREEMENT, ap=ap(0.5, few)),
    ):
        assert refused_by_detections.accuracy_failure == BAD_AGREEMENT.failure


def test_an_ap_of_zero_is_refused():
    found = ap(0.0, fp32=0.0)
    assert found.ratio is None and found.failure == (
        f"FP32 has an AP of 0 on the {config.MIN_AP_PICTURES} pictures: they are not what the network was trained for"
    )
