"""Tests of the parity report: the distances to FP32, and whether an engine passes."""

import json

import msgspec
import pytest

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport, Repeatability

NAN, INF = float("nan"), float("inf")


def parity(loc=1e-3, conf=2e-3, bound=2e-2, floor=1e-4, finite=(True, True), max_abs=0.5):
    outputs = (OutputDistance("loc", loc, max_abs, finite[0]), OutputDistance("conf", conf, 0.25, finite[1]))
    return ParityReport("fp16", 8, (1, 8), bound, floor, outputs, DetectionAgreement(10, 8, 8, 0.01))


@pytest.mark.parametrize(
    "reference, engine, matched, rate",
    [(10, 8, 8, 0.8), (8, 10, 8, 0.8), (4, 4, 4, 1.0), (3, 0, 0, 0.0), (0, 3, 0, 0.0)],
)
def test_match_rate_is_of_the_larger_side(reference, engine, matched, rate):
    agreement = DetectionAgreement(reference, engine, matched)
    assert agreement.match_rate == rate
    assert agreement.as_dict()["match_rate"] == rate


def test_match_rate_of_nothing_is_none():
    agreement = DetectionAgreement(0, 0)
    assert agreement.match_rate is None
    assert agreement.as_dict() == {
        "reference": 0, "engine": 0, "matched": 0, "max_score_change": None, "match_rate": None
    }  # fmt: skip


@pytest.mark.parametrize(
    "loc, conf, passed",
    [
        (1e-4, 0.0, True),
        (2e-2, 2e-2, True),
        (2.001e-2, 0.0, False),
        (0.0, 2.001e-2, False),
        (None, 1e-3, False),
        (1e-3, None, False),
        (INF, 0.0, False),
        (9e-5, 9e-5, False),
    ],
)
def test_passed_is_every_output_within_the_bound_and_one_at_least_at_the_floor(loc, conf, passed):
    assert parity(loc, conf).passed is passed
    assert parity(loc, conf).as_dict()["passed"] is passed
    assert (parity(loc, conf).failure is None) is passed


@pytest.mark.parametrize("finite", [(False, True), (True, False)])
def test_an_output_that_is_not_finite_never_passes(finite):
    assert parity(1e-3, 1e-3, finite=finite).passed is False


@pytest.mark.parametrize(
    "changes, failure",
    [
        ({}, None),
        (
            {"loc": None, "finite": (False, True)},
            "The engine's outputs hold NaN or Inf (loc not finite, conf 2.00e-03).",
        ),
        (
            {"loc": 3e-2},
            "The engine is too far from the FP32 model: relative L2 distance loc 3.00e-02, conf 2.00e-03; "
            "expected at most 2e-02 for FP16.",
        ),
        (
            {"loc": 1e-5, "conf": 2e-5},
            "The engine is not FP16: its relative L2 distance to FP32 (loc 1.00e-05, conf 2.00e-05) is below 1.0e-04, "
            "the smallest expected of arithmetic in that precision.",
        ),
    ],
)
def test_why_an_engine_is_refused(changes, failure):
    assert parity(**changes).failure == failure


def test_fp32_has_no_floor():
    assert parity(0.0, 0.0, floor=0.0).passed


def test_distance_is_the_largest():
    assert parity(1e-3, 2e-3).distance == 2e-3
    assert parity(3e-3, 2e-3).distance == 3e-3


@pytest.mark.parametrize("loc, conf", [(None, 1e-3), (1e-3, None), (None, None)])
def test_distance_does_not_hide_an_output_without_one(loc, conf):
    assert parity(loc, conf).distance is None


def test_parity_as_dict():
    found = parity(None, 2e-3, finite=(False, True), max_abs=INF).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "passed": False,
        "precision": "fp16",
        "images": 8,
        "batch_sizes": [1, 8],
        "bound": 2e-2,
        "floor": 1e-4,
        "outputs": [
            {"name": "loc", "relative_l2": None, "max_abs": None, "finite": False},
            {"name": "conf", "relative_l2": 2e-3, "max_abs": 0.25, "finite": True},
        ],
        "detections": {"match_rate": 0.8, "reference": 10, "engine": 8, "matched": 8, "max_score_change": 0.01},
        "repeatability": None,
    }


def repeating(in_batch=1e-3, again=0.0, cuda_graph=0.0):
    found = Repeatability((1, 8, 17), 2e-3, in_batch, 8, 4, again, cuda_graph)
    return msgspec.structs.replace(parity(), repeatability=found)


ANOTHER = "Build it for another batch size (--batch-size), or in FP32 (--fp32)."


@pytest.mark.parametrize(
    "changes, failure",
    [
        ({}, None),
        ({"in_batch": 2e-3, "again": 1e-6, "cuda_graph": 1e-6}, None),
        ({"cuda_graph": None}, None),
        (
            {"in_batch": 2.1e-3},
            "The engine's results depend on the batch: image 5 of 8 differs from the same image alone by 2.1e-03 "
            f"(relative L2); expected at most 2.0e-03. {ANOTHER}",
        ),
        (
            {"again": 1.1e-6, "in_batch": 1.0},
            "The engine does not repeat its results: a second run of the same images differs by 1.1e-06 (relative L2); "
            f"expected at most 1e-06. {ANOTHER}",
        ),
        (
            {"cuda_graph": INF},
            "The engine does not repeat its results: a run as a CUDA graph of the same images differs by inf "
            f"(relative L2); expected at most 1e-06. {ANOTHER}",
        ),
    ],
)
def test_an_engine_that_does_not_repeat_its_results_is_refused(changes, failure):
    report = repeating(**changes)
    assert report.failure == failure and report.passed is (failure is None)


def test_the_distance_to_fp32_comes_first():
    report = msgspec.structs.replace(repeating(again=1.0), bound=1e-9)
    assert report.failure.startswith("The engine is too far from the FP32 model") and not report.too_near


def test_only_another_precision_is_too_near():
    assert parity(1e-5, 2e-5).too_near
    assert not parity().too_near and not parity(None).too_near and not parity(1.0).too_near


def test_what_is_repeated_is_in_the_json():
    found = repeating()
    assert found.as_dict()["repeatability"] == {
        "batch_sizes": [1, 8, 17], "batch_bound": 2e-3, "in_batch": 1e-3, "batch_size": 8, "place": 4, "again": 0.0,
        "cuda_graph": 0.0,
    }  # fmt: skip
    assert msgspec.convert(found.as_dict(), ParityReport) == found


@pytest.mark.parametrize("changes", [{}, {"loc": None, "finite": (False, True)}])
def test_what_was_written_is_read_again(changes):
    report = parity(**changes)
    assert msgspec.convert(report.as_dict(), ParityReport) == report
