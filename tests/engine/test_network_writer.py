"""What real builders of TensorRT 10 and 11 make of the network: those of TensorRT-RTX, which need no GPU.

`make builders` installs them, each in a folder of its own, and `make test` names their folder in SSDTRT_BUILDERS.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from forked_builds import forked

from conftest import once
from ssdtrt.formats import plan_file

BUILDERS = os.environ.get("SSDTRT_BUILDERS")
pytestmark = pytest.mark.skipif(not BUILDERS, reason="SSDTRT_BUILDERS is not set: run make test, not pytest alone")
# TensorRT-RTX by the version of TensorRT whose API it has.
VERSIONS = {"10.16": "1.4.0.76", "11.1": "1.6.1.120"}
HALF = {
    "CAST HALF": 1, "CONVOLUTION HALF": 57, "ACTIVATION HALF": 50, "POOLING HALF": 1, "CONCATENATION HALF": 3,
    "ELEMENTWISE HALF": 11, "SHUFFLE HALF": 6, "CAST FLOAT": 1,
}  # fmt: skip
SINGLE = {name.replace("HALF", "FLOAT"): count for name, count in HALF.items() if not name.startswith("CAST")}


@pytest.fixture(scope="module", params=VERSIONS)
def built(request, full_model, model, tmp_path_factory):
    """What `build_with_rtx.py` wrote with this version, in a process forked from this one, which has imported torch."""
    version, front_end = VERSIONS[request.param], request.param == "11.1"
    full = once("full/model.pt", lambda path: torch.save(full_model, path))
    narrow = once("narrow/model.pt", lambda path: torch.save(model, path))
    folder = Path(BUILDERS, version)
    assert folder.is_dir(), f"{folder} is missing: run make builders"
    result = tmp_path_factory.mktemp("rtx") / "result.json"

    def build():
        sys.path[:0] = [str(folder), str(Path(__file__).parent)]
        import build_with_rtx

        warnings.simplefilter("ignore")
        build_with_rtx.main(result, full, narrow, front_end)

    assert forked(build) == 0
    found = json.loads(result.read_text())
    assert found["version"] == version
    return found


@pytest.mark.parametrize("case, batch", [("batch 1", 1), ("batch 8", 8), ("batches 1 to 32", -1)])
def test_every_layer_of_an_fp16_engine_computes_in_fp16(built, case, batch):
    found = built["writer"][f"fp16, {case}"]
    assert found["layers"] == HALF
    assert found["shapes"] == [[batch, 3, 300, 300], [batch, 85, 8732]]
    assert 1.9 < found["bytes"] / 22_894_902 < 2.2  # bytes a parameter


def test_every_layer_of_an_fp32_engine_computes_in_fp32(built):
    found = built["writer"]["fp32, batch 1"]
    assert found["layers"] == SINGLE
    assert 3.8 < found["bytes"] / 22_894_902 < 4.1


def test_a_quantized_network_is_of_pairs_that_quantize_each_tensor_once(built):
    """55 of 57 convolutions. Of their inputs 5 are read by two, and one projection is quantized before it is added."""
    found = built["int8"]
    assert found["layers"] == {
        "QUANTIZE INT8": 55 + 51, "DEQUANTIZE FLOAT": 55 + 51, "CONSTANT FLOAT": 55 + 55 + 51, "CONVOLUTION FLOAT": 55,
        "CONVOLUTION HALF": 2, "CAST HALF": 2, "CAST FLOAT": 2,
        **{name: count for name, count in SINGLE.items() if not name.startswith("CONVOLUTION")},
    }  # fmt: skip
    quantized = [tensor for tensor, _ in found["quantize"]]
    assert len(set(quantized)) == len(quantized) and {dtype for _, dtype in found["quantize"]} == {"INT8"}
    assert len(found["convolutions"]) == 57
    for name, (given, readers) in found["convolutions"].items():
        if name in ("heads.0", "feature_extractor.feature_extractor.4.1.conv3"):
            ((kind, *_, dtype),) = given  # FP16, between casts.
            assert (kind, dtype, readers) == ("CAST", "HALF", ["CAST"])
        else:
            (*x, x_dtype), weight = given
            assert x[:2] == ["DEQUANTIZE", "QUANTIZE"] and x_dtype == "FLOAT", name
            assert weight == ["DEQUANTIZE", "QUANTIZE", "CONSTANT", "FLOAT"], name
    assert found["refused"].startswith("TensorRT could not build the engine (")  # RTX has no INT8 convolutions.


def test_every_plan_begins_as_plans_are_recognized(built, tmp_path):
    """TensorRT's own begin with "ftrt", as Torch-TensorRT expects them."""
    assert {found["start"] for found in built["writer"].values()} == {"vtrt"}
    for start in (b"vtrt", b"ftrt"):
        (tmp_path / "plan").write_bytes(start)
        assert plan_file.is_plan(tmp_path / "plan")


def test_the_torchscript_front_end_builds_in_the_type_of_the_module(built):
    """With TensorRT 11 it ignores the precision that it is asked for, so the module has to have it."""
    if "front_end" not in built:
        pytest.skip("Torch-TensorRT is installed beside the newer one")
    narrow = built["front_end"]
    assert 1.3 < narrow["fp32"] / narrow["fp16"] < 2
