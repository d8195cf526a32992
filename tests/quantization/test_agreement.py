"""How well detections agree: boxes by hand, whose overlaps are known."""

import pytest
import torch

from ssdtrt import config
from ssdtrt.artifact.quantization import Agreement
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.quantization.agreement import measure_agreement, run

LEFT, RIGHT = [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0]
SHARED = [0.0, 0.0, 0.4, 0.296]  # 0.74 of LEFT, all of it inside: five of the ten thresholds from 0.5 to 0.95
NONE = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))


def picture(*found):
    """Detections given as (box, label, score)."""
    if not found:
        return NONE
    boxes, labels, scores = zip(*found)
    return torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores)


def agreement(reference, found):
    return measure_agreement([picture(*one) for one in reference], [picture(*one) for one in found])


def test_the_same_detections_agree():
    one = [(LEFT, 1, 0.9), (RIGHT, 2, 0.5)]
    found = agreement([one, []], [one, []])
    assert (found.pictures, found.detections, found.match_rate, found.score_change) == (2, 4, 1.0, 0.0)
    assert found.failure is None


def test_both_sides_are_looked_for():
    """One of the three confident ones is alone: two of three match."""
    found = agreement([[(LEFT, 1, 0.9)]], [[(LEFT, 1, 0.8), (RIGHT, 2, 0.7)]])
    assert (found.detections, found.match_rate) == (3, pytest.approx(2 / 3))
    assert found.score_change == pytest.approx(0.1)


def test_the_rate_is_the_mean_over_the_thresholds_of_coco():
    found = agreement([[(LEFT, 1, 0.9)]], [[(SHARED, 1, 0.9)]])
    assert (found.detections, found.match_rate) == (2, pytest.approx(0.5))


@pytest.mark.parametrize("other", [(LEFT, 2, 0.9), (RIGHT, 1, 0.9)])
def test_another_class_or_place_does_not_match(other):
    found = agreement([[(LEFT, 1, 0.9)]], [[other]])
    assert (found.match_rate, found.score_change) == (0.0, None)
    assert found.failure.startswith("0.000 of the detections agree with FP32's; expected at least ")


def test_a_confident_one_may_match_one_that_is_not():
    """Of 0.31 and 0.29 one is confident; it has its match, and the other is not looked for."""
    found = agreement([[(LEFT, 1, 0.31)]], [[(LEFT, 1, 0.29)]])
    assert (found.detections, found.match_rate) == (1, 1.0)
    assert found.score_change == pytest.approx(0.02, abs=1e-6)


def test_the_best_overlap_counts():
    found = agreement([[(LEFT, 1, 0.9)]], [[(SHARED, 1, 0.4), (LEFT, 1, 0.8)]])
    # The reference's and the second one match wholly, the first one for half of the thresholds.
    assert found.match_rate == pytest.approx(2.5 / 3)
    assert found.score_change == pytest.approx((0.1 + 0.1 + 0.5) / 3)


def test_pictures_are_not_mixed_up():
    assert agreement([[(LEFT, 1, 0.9)], []], [[], [(LEFT, 1, 0.9)]]).match_rate == 0


def test_where_nothing_is_seen_nothing_is_proven():
    found = agreement([[], [(LEFT, 1, 0.2)]], [[], []])
    assert (found.detections, found.match_rate, found.score_change) == (0, 0.0, None)
    assert found.failure == "neither FP32 nor INT8 detects anything in the 2 pictures"


def test_the_limits_are_met_and_are_in_the_record():
    rate, change = config.MIN_MATCH_RATE, config.MAX_SCORE_CHANGE
    assert (Agreement(1, 9, rate, change).min_match_rate, Agreement(1, 9, rate, change).max_score_change) == (
        rate,
        change,
    )
    assert Agreement(1, 9, rate, change).failure is None
    assert Agreement(1, 9, rate - 1e-3, change).failure == (
        f"{rate - 1e-3:.3f} of the detections agree with FP32's; expected at least {rate:g}"
    )
    assert Agreement(1, 9, rate, change + 1e-3).failure == (
        f"scores change by {change + 1e-3:.3f} on average; expected at most {change:g}"
    )


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_network_is_run_in_batches_of_normalized_pictures(model, batch):
    pictures = synthetic_pictures(3, seed=2)
    sizes = []

    def network(images):
        sizes.append(len(images))
        return model(images)

    found = run(network, pictures, "hub", torch.device("cpu"), batch)
    assert sizes == {1: [1, 1, 1], 2: [2, 1], 8: [3]}[batch] and len(found) == 3
    with torch.no_grad():
        wanted = detect(*model(normalize(pictures, "hub")), default_boxes())
    for one, other in zip(found, wanted):
        assert len(one[2]) == len(other[2]) > 0
        torch.testing.assert_close(one[2], other[2], rtol=1e-3, atol=1e-4)
