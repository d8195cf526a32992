"""Results: plain JSON, verdicts, and no verdict over nothing."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.benchmarking.report import BenchReport, BenchRow, HostTimes, PartTime
from ssdtrt.detection.results import Detection, ImageDetections
from ssdtrt.model.source import WeightsSource
from ssdtrt.system.report import Report

NAN, INF = float("nan"), float("inf")


def strict(text):
    """JSON as the standard has it: NaN and Infinity are refused."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def parity(loc=1e-3, conf=2e-3, bound=2e-2, finite=(True, True), agreement=None, max_abs=0.5):
    outputs = (OutputDistance("loc", loc, max_abs, finite[0]), OutputDistance("conf", conf, 0.25, finite[1]))
    return ParityReport("fp16", 8, (1, 8), bound, 1e-4, outputs, agreement or DetectionAgreement(10, 8, 8, 0.01))


def row(agreement=None, **changes):
    values = {
        "name": "a.ts", "precision": "fp16", "batch_size": 4, "samples": 20, "median_ms": 2.0, "p90_ms": 2.5,
        "p99_ms": 3.0, "images_per_second": 2000.0, "speedup": 7.5, "memory_mib": None,
    }  # fmt: skip
    return BenchRow(**{**values, **changes}, agreement=agreement)


def test_detection_as_dict():
    found = ImageDetections("a/cat.jpg", 451, 300, (Detection("cat", 16, 0.75, (1.5, 2.0, 30.25, 40.0)),))
    assert found.as_dict() == {
        "image": "a/cat.jpg",
        "width": 451,
        "height": 300,
        "detections": [{"label": "cat", "label_id": 16, "score": 0.75, "box": [1.5, 2.0, 30.25, 40.0]}],
    }
    assert list(found.as_dict()) == ["image", "width", "height", "detections"]


def test_weights_source_as_dict():
    assert WeightsSource("random", "ab", False).as_dict() == {
        "name": "random", "sha256": "ab", "trained": False, "file_sha256": None
    }  # fmt: skip


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_json_lacks_becomes_none(value):
    found = OutputDistance("loc", value, value, False).as_dict()
    assert found == {"name": "loc", "relative_l2": None, "max_abs": None, "finite": False}


@dataclasses.dataclass(frozen=True)
class Anything(Report):
    """A result with a field of any type."""

    value: object


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(Path("a/b")),
    lambda some: st.lists(some, max_size=3) | st.tuples(some, some) | st.dictionaries(st.integers(), some, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_every_result_is_strict_json(value):
    found = Anything(value).as_dict()
    assert strict(json.dumps(found)) == found


def test_paths_and_keys_become_text():
    assert Anything({1: Path("a") / "b", "c": (1, 2)}).as_dict() == {"value": {"1": str(Path("a/b")), "c": [1, 2]}}


@pytest.mark.parametrize("result", [parity(), row(), Detection("cat", 16, 0.5, (0, 0, 1, 1))])
def test_results_are_frozen(result):
    name = dataclasses.fields(result)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, name, "changed")


@pytest.mark.parametrize(
    "reference, engine, matched, share",
    [(10, 8, 8, 0.8), (8, 10, 8, 0.8), (4, 4, 4, 1.0), (3, 0, 0, 0.0), (0, 3, 0, 0.0)],
)
def test_share_is_of_the_larger_side(reference, engine, matched, share):
    agreement = DetectionAgreement(reference, engine, matched, None)
    assert agreement.share == share
    assert agreement.as_dict()["share"] == share


def test_share_of_nothing_is_none():
    agreement = DetectionAgreement(0, 0, 0, None)
    assert agreement.share is None
    assert agreement.as_dict() == {
        "reference": 0, "engine": 0, "matched": 0, "max_score_change": None, "share": None
    }  # fmt: skip


@pytest.mark.parametrize(
    "loc, conf, passed",
    [(0.0, 0.0, True), (2e-2, 2e-2, True), (2.001e-2, 0.0, False), (0.0, 2.001e-2, False), (NAN, 0.0, False),
     (0.0, NAN, False), (INF, 0.0, False)],
)  # fmt: skip
def test_passed_is_every_output_within_the_bound(loc, conf, passed):
    assert parity(loc, conf).passed is passed
    assert parity(loc, conf).as_dict()["passed"] is passed


@pytest.mark.parametrize("finite", [(False, True), (True, False)])
def test_an_output_that_is_not_finite_never_passes(finite):
    assert parity(0.0, 0.0, finite=finite).passed is False


def test_distance_is_the_largest():
    assert parity(1e-3, 2e-3).distance == 2e-3
    assert parity(3e-3, 2e-3).distance == 3e-3


@pytest.mark.parametrize("loc, conf", [(NAN, 1e-3), (1e-3, NAN), (NAN, NAN)])
def test_distance_does_not_hide_an_output_without_one(loc, conf):
    assert not math.isfinite(parity(loc, conf).distance)


def test_parity_as_dict():
    found = parity(NAN, 2e-3, finite=(False, True), max_abs=INF).as_dict()
    assert strict(json.dumps(found)) == {
        "precision": "fp16",
        "images": 8,
        "batch_sizes": [1, 8],
        "bound": 2e-2,
        "floor": 1e-4,
        "outputs": [
            {"name": "loc", "relative_l2": None, "max_abs": None, "finite": False},
            {"name": "conf", "relative_l2": 2e-3, "max_abs": 0.25, "finite": True},
        ],
        "detections": {"reference": 10, "engine": 8, "matched": 8, "max_score_change": 0.01, "share": 0.8},
        "passed": False,
    }


def test_bench_row_as_dict():
    found = row().as_dict()
    assert found["agreement"] is None and found["build_seconds"] is None and found["memory_mib"] is None
    assert (found["name"], found["batch_size"], found["median_ms"], found["speedup"]) == ("a.ts", 4, 2.0, 7.5)
    assert (found["status"], found["reason"], found["host"], found["file"]) == ("ok", "", None, None)


def test_bench_row_with_host_times():
    made = row(host=HostTimes(2.0, 2.5, 3.0, 3.5, 0.25), worst_ms=3.25, peer="engine", file="a.ts")
    assert strict(json.dumps(made.as_dict()))["host"] == {
        "median_ms": 2.0, "p90_ms": 2.5, "p99_ms": 3.0, "worst_ms": 3.5, "returned_ms": 0.25
    }  # fmt: skip
    assert made.ok


def test_a_failed_row_has_no_figures():
    made = BenchRow("torch.compile FP16", "fp16", 8, peer="compile", status="failed", reason="no Triton")
    assert not made.ok
    assert made.as_dict() == {
        "name": "torch.compile FP16", "precision": "fp16", "batch_size": 8, "samples": 0, "median_ms": None,
        "p90_ms": None, "p99_ms": None, "images_per_second": None, "speedup": None, "memory_mib": None,
        "build_seconds": None, "agreement": None, "peer": "compile", "file": None, "worst_ms": None,
        "variation": None, "speedup_low": None, "speedup_high": None, "host": None, "first_call_ms": None,
        "compile_seconds": None, "status": "failed", "reason": "no Triton",
    }  # fmt: skip


def test_bench_report_as_dict():
    parts = (PartTime("network", 8, 2.0, 2.5),)
    report = BenchReport({"cpu": "x"}, {"rounds": 3}, (row(), row(parity(), build_seconds=1.5)), ("untrained",), parts)
    found = strict(json.dumps(report.as_dict()))
    assert list(found) == ["schema", "kind", "machine", "settings", "rows", "notes", "parts"]
    assert (found["schema"], found["kind"]) == (2, "bench")
    assert (found["machine"], found["settings"], found["notes"]) == ({"cpu": "x"}, {"rounds": 3}, ["untrained"])
    assert found["rows"][0]["agreement"] is None
    assert found["rows"][1]["agreement"]["passed"] is True
    assert found["rows"][1]["agreement"]["detections"]["share"] == 0.8
    assert found["parts"] == [{"name": "network", "batch_size": 8, "median_ms": 2.0, "p90_ms": 2.5}]


def test_bench_report_without_notes():
    assert BenchReport({}, {}, ()).as_dict() == {
        "schema": 2, "kind": "bench", "machine": {}, "settings": {}, "rows": [], "notes": [], "parts": []
    }  # fmt: skip
