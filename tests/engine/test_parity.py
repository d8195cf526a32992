"""Tests of comparing an engine with the FP32 model: distances of outputs, and matched detections."""

import math

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.artifact.quantization import Quantization
from ssdtrt.engine.parity import _compare_detections, _match, _run_in_batches, compare, relative_l2
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.quantization.calibration import calibrate
from ssdtrt.rewriting.quantized import quantized_model

CLASSES = 5


class Reference(nn.Module):
    """Return cheap outputs that depend on the image: (loc [N, 4, A], conf [N, 5, A])."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.loc = nn.Parameter(torch.randn(4, 8732, generator=generator), requires_grad=False)
        conf = torch.randn(CLASSES, 8732, generator=generator)
        conf[0] += 5  # Mostly background.
        self.conf = nn.Parameter(conf, requires_grad=False)

    def forward(self, images):
        mean = images.mean((1, 2, 3))[:, None, None]
        return self.loc * (1 + mean), self.conf * (2 + mean)


@pytest.fixture(scope="module")
def reference():
    return Reference()


@pytest.fixture(scope="module")
def images():
    """Return eight small images; the fake runners take any size."""
    return torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(6))


def report_of(engine, reference, images, precision="fp32", batch_sizes=(1, 8)):
    return compare(engine, reference, images, precision=precision, batch_sizes=batch_sizes)


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_relative_l2_is_numpys(scale):
    random = np.random.default_rng(7)
    found, expected = random.normal(size=(2, 3, 40, 50)) * scale
    wanted = np.linalg.norm((found - expected).ravel()) / np.linalg.norm(expected.ravel())
    assert relative_l2(torch.tensor(found), torch.tensor(expected)) == pytest.approx(wanted, rel=1e-12)


def test_relative_l2_does_not_overflow_in_single_precision():
    assert relative_l2(torch.full((4,), 3e38), torch.full((4,), 1e38)) == pytest.approx(2, rel=1e-6)
    assert relative_l2(torch.full((4,), 60000.0).half(), torch.full((4,), 30000.0).half()) == pytest.approx(1, rel=1e-3)


def test_relative_l2_of_known_numbers():
    assert relative_l2(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])) == 0
    assert relative_l2(torch.tensor([6.0, 8.0]), torch.tensor([3.0, 4.0])) == 1
    assert relative_l2(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])) == 0.8
    assert relative_l2(torch.tensor([3.0, 4.0]), torch.zeros(2)) == 5  # The absolute distance.
    assert relative_l2(torch.zeros(2), torch.zeros(2)) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_relative_l2_with_nan_or_inf_on_either_side_is_nan(bad):
    whole, broken = torch.tensor([1.0, 2.0]), torch.tensor([1.0, bad])
    assert math.isnan(relative_l2(broken, whole))
    assert math.isnan(relative_l2(whole, broken))
    assert math.isnan(relative_l2(broken, broken))


def test_batches_are_joined_in_order(reference, images):
    loc, conf = reference(images)
    sizes = []

    def runner(batch):
        sizes.append(len(batch))
        return tuple(part.half() for part in reference(batch))

    found = _run_in_batches(runner, images, 3)
    assert sizes == [3, 3, 2]
    assert [part.dtype for part in found] == [torch.float32, torch.float32]
    torch.testing.assert_close(found[0], loc, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[1], conf, rtol=1e-3, atol=1e-3)


def test_equal_runners_are_at_no_distance(reference, images):
    report = report_of(reference, reference, images)
    assert report.outputs == (OutputDistance("loc", 0.0, 0.0, True), OutputDistance("conf", 0.0, 0.0, True))
    assert (report.precision, report.images, report.batch_sizes) == ("fp32", 8, (1, 8))
    assert (report.bound, report.floor, report.distance, report.passed) == (1e-4, 0.0, 0.0, True)
    found = report.detections
    assert found.reference == found.engine == found.matched > 0
    assert (found.max_score_change, found.match_rate) == (0.0, 1.0)
    assert report.failure is None


def test_a_known_factor_is_a_known_distance(reference, images):
    def engine(batch):
        loc, conf = reference(batch)
        return loc * 1.25, conf

    report = report_of(engine, reference, images)
    loc, conf = report.outputs
    assert loc.relative_l2 == pytest.approx(0.25, rel=1e-6) and conf.relative_l2 == 0
    assert loc.max_abs == pytest.approx(0.25 * float(reference(images)[0].abs().max()), rel=1e-5)
    assert report.distance == loc.relative_l2 and not report.passed
    assert report.failure == (
        "The engine is too far from the FP32 model: relative L2 distance loc 2.50e-01, conf 0.00e+00; "
        "expected at most 1e-04 for FP32."
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loc", "conf"])
def test_one_bad_number_fails_the_whole(reference, images, bad, where):
    def engine(batch):
        outputs = dict(zip(("loc", "conf"), (part.clone() for part in reference(batch))))
        outputs[where][-1, -1, -1] = bad
        return tuple(outputs.values())

    report = report_of(engine, reference, images)
    outputs = {output.name: output for output in report.outputs}
    assert not outputs[where].finite and outputs[where].relative_l2 is outputs[where].max_abs is report.distance is None
    assert not report.passed
    assert report.detections.engine == 0 and report.detections.match_rate == 0
    plain = report.as_dict()
    assert plain["passed"] is False
    assert [output["relative_l2"] is None for output in plain["outputs"]] == [where == "loc", where == "conf"]
    assert report.failure.startswith("The engine's outputs hold NaN or Inf (") and "not finite" in report.failure


def test_a_reference_with_nan_is_no_reason_to_pass(reference, images):
    class Broken(Reference):
        def forward(self, batch):
            loc, conf = super().forward(batch)
            return loc / 0 * 0, conf

    for engine in (reference, Broken()):
        report = report_of(engine, Broken(), images)
        assert not report.passed and report.failure


@pytest.mark.parametrize("count, batch_sizes", [(0, (1,)), (2, ())])
def test_nothing_to_compare_is_no_pass(reference, images, count, batch_sizes):
    with pytest.raises(ParityError) as caught:
        report_of(reference, reference, images[:count], batch_sizes=batch_sizes)
    assert str(caught.value) == "There is nothing to compare: give at least one picture."


def test_a_runner_that_is_wrong_in_one_batch_position_is_caught_by_that_batch_size(reference, images):
    def engine(batch):
        loc, conf = reference(batch)
        if len(batch) > 5:
            conf = conf.clone()
            conf[5] = conf[0]
        return loc, conf

    assert report_of(engine, reference, images, batch_sizes=(1, 4)).passed
    report = report_of(engine, reference, images, batch_sizes=(1, 4, 8))
    expected = reference(images)[1]
    found = expected.clone()
    found[5] = expected[0]
    wanted = float((found - expected).norm() / expected.norm())
    assert report.distance == pytest.approx(wanted, rel=1e-5) and not report.passed


def test_a_runner_that_is_wrong_for_one_image_alone_is_caught_among_several_sizes(reference, images):
    def engine(batch):
        loc, conf = reference(batch)
        return (loc * 1.5 if len(batch) == 1 else loc), conf

    report = report_of(engine, reference, images, batch_sizes=(1, 8))
    assert report.outputs[0].relative_l2 == pytest.approx(0.5, rel=1e-6)
    assert report_of(engine, reference, images, batch_sizes=(8,)).passed


def test_the_last_batch_may_be_smaller(reference, images):
    assert report_of(reference, reference, images[:5], batch_sizes=(2, 8)).passed


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_floor_comes_from_what_eager_shows_in_that_precision(reference, images, precision, dtype):
    low = Reference().to(dtype)

    def honest(batch):
        return low(batch.to(dtype))

    report = report_of(honest, reference, images, precision)
    few = images[:2]
    nearest = min(
        float((found.float() - wanted).norm() / wanted.norm()) for found, wanted in zip(honest(few), reference(few))
    )
    assert report.floor == pytest.approx(0.3 * nearest, rel=1e-5) and report.floor > 0
    assert report.bound == 2e-2 and report.passed
    assert reference.loc.dtype == torch.float32  # The reference is not cast.


class Overflowing(Reference):
    """In FP16 the location overflows on the way, which is back in range at the end."""

    def forward(self, images):
        loc, conf = super().forward(images)
        return loc * 1e5 / 1e5, conf


class OverflowingAll(Reference):
    def forward(self, images):
        loc, conf = super().forward(images)
        return loc * 1e5 / 1e5, conf * 1e5 / 1e5


def test_where_eager_overflows_in_fp16_the_report_has_a_floor_all_the_same(images):
    one, both = (report_of(kind(), kind(), images, "fp16") for kind in (Overflowing, OverflowingAll))
    assert 0 < one.floor < 1e-3 and not one.passed  # It is FP32, as the other output shows.
    assert both.floor == 0 and both.bound == 2e-2
    assert [msgspec.convert(report.as_dict(), ParityReport) for report in (one, both)] == [one, both]


def test_the_limits_of_int8_come_from_its_quantized_network_in_torch(model):
    images = synthetic_images(2, seed=4)
    ranges, exponents = calibrate(model, synthetic_pictures(2, seed=4), "max", "eval")
    quantization = Quantization(table="t", ranges=ranges, exponents=exponents)
    network = quantized_model(model, quantization)
    options = {"precision": "int8", "batch_sizes": [2], "quantization": quantization}
    report = compare(network, model, images, **options)
    with torch.no_grad():
        distances = [relative_l2(a, b) for a, b in zip(network(images), model(images))]
    assert report.floor == pytest.approx(0.3 * min(distances), rel=1e-4)
    assert report.bound == pytest.approx(2 * max(distances), rel=1e-4) and report.bound > 2e-2 and report.passed
    assert compare(model, model, images, **options).too_near
    far = compare(lambda images: tuple(1.5 * part for part in network(images)), model, images, **options)
    assert not far.passed and f"expected at most {far.bound:.0e} for INT8" in far.failure


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_runner_nearer_than_its_precision_can_be_is_refused(reference, images, precision):
    def engine(batch):
        loc, conf = reference(batch)
        return loc * (1 + 1e-6), conf * (1 + 1e-6)

    report = report_of(engine, reference, images, precision)
    assert not report.passed and report.distance < report.floor
    figures = ", ".join(f"{output.name} {output.relative_l2:.2e}" for output in report.outputs)
    assert report.failure == (
        f"The engine is not {precision.upper()}: its relative L2 distance to FP32 ({figures}) is below "
        f"{report.floor:.1e}, the smallest expected of arithmetic in that precision."
    )


@pytest.mark.parametrize("distance, passed", [(2e-2, True), (np.nextafter(2e-2, 1), False)])
def test_the_bound_itself_is_within(distance, passed):
    outputs = (OutputDistance("loc", 0.01, 0.1, True), OutputDistance("conf", distance, 0.1, True))
    report = ParityReport("fp16", 8, (1,), 2e-2, 1e-3, outputs, DetectionAgreement(0, 0, 0, None))
    assert report.passed is passed
    assert passed or "expected at most 2e-02 for FP16" in report.failure


def found(*rows):
    """Convert rows of (left, top, right, bottom, label, score) to (boxes, labels, scores)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return table[:, :4], table[:, 4].long(), table[:, 5]


WHOLE = (0, 0, 1, 1, 7, 0.9)


def test_the_same_box_matches_with_its_score_change():
    assert _match(found(WHOLE), found((0, 0, 1, 1, 7, 0.75))) == pytest.approx([0.15], abs=1e-6)


def test_another_class_does_not_match():
    assert _match(found(WHOLE), found((0, 0, 1, 1, 8, 0.9))) == []


@pytest.mark.parametrize("right, matches", [(0.5, 1), (0.499, 0), (0.501, 1)])
def test_an_overlap_of_half_is_enough_and_less_is_not(right, matches):
    assert len(_match(found(WHOLE), found((0, 0, right, 1, 7, 0.9)))) == matches
    assert len(_match(found((0, 0, right, 1, 7, 0.9)), found(WHOLE))) == matches


def test_each_box_matches_once():
    twice = found(WHOLE, (0, 0, 1, 0.9, 7, 0.4))
    assert _match(found(WHOLE), twice) == [0]
    assert _match(twice, found(WHOLE)) == [0]


def test_a_taken_box_leaves_the_next_best():
    left, right = (0, 0, 0.6, 1, 7, 0.8), (0.1, 0, 0.7, 1, 7, 0.5)  # IoU 5/7
    changes = _match(found(left, right), found((0, 0, 0.6, 1, 7, 0.9), (0, 0, 0.6, 1, 7, 0.3)))
    assert changes == pytest.approx([0.1, 0.2], abs=1e-6)


def test_the_best_overlap_is_taken_first():
    changes = _match(found((0, 0, 1, 0.6, 7, 0.9), (0, 0, 1, 0.9, 7, 0.2)), found((0, 0, 1, 1, 7, 0.3)))
    assert changes == pytest.approx([0.1], abs=1e-6)


def test_the_other_class_is_skipped_for_the_worse_overlap():
    changes = _match(found((0, 0, 1, 1, 8, 0.9), (0, 0, 1, 0.8, 7, 0.5)), found((0, 0, 1, 1, 7, 0.6)))
    assert changes == pytest.approx([0.1], abs=1e-6)


def test_nothing_on_one_side_matches_nothing():
    assert _match(found(WHOLE), found()) == _match(found(), found(WHOLE)) == _match(found(), found()) == []


def test_agreement_counts_all_pictures_and_keeps_the_largest_change():
    reference = [found(WHOLE), found(WHOLE, (0, 0, 0.2, 0.2, 3, 0.5)), found()]
    engine = [found((0, 0, 1, 1, 7, 0.8)), found((0, 0, 1, 1, 7, 0.85)), found(WHOLE)]
    agreement = _compare_detections(reference, engine)
    assert (agreement.reference, agreement.engine, agreement.matched) == (3, 3, 2)
    assert agreement.max_score_change == pytest.approx(0.1, abs=1e-6)
    assert agreement.match_rate == pytest.approx(2 / 3)


def test_the_share_is_over_the_larger_side():
    more = [found(WHOLE, (0, 0, 0.2, 0.2, 3, 0.5), (0.5, 0.5, 1, 1, 3, 0.5), (0, 0.5, 0.1, 1, 4, 0.5))]
    assert _compare_detections(more, [found(WHOLE)]).match_rate == 0.25
    assert _compare_detections([found(WHOLE)], more).match_rate == 0.25


def test_no_detection_at_all_is_no_share():
    agreement = _compare_detections([found(), found()], [found(), found()])
    assert agreement == DetectionAgreement(0, 0, 0, None)
    assert agreement.match_rate is None and agreement.as_dict()["match_rate"] is None


def test_detections_are_those_of_the_right_picture(reference, images):
    """Swapped images are noticed by their boxes, even if their numbers of detections are the same."""

    def engine(batch):
        loc, conf = reference(batch)
        return loc.flip(0) + 5, conf

    report = report_of(engine, reference, images, batch_sizes=(8,))
    assert report.detections.matched < 0.5 * report.detections.reference
