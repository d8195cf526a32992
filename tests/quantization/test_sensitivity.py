"""What each layer's quantization costs, and the smallest number of layers that is enough."""

import copy

import pytest
import torch

from ssdtrt.artifact.quantization import LayerCost
from ssdtrt.images.tensors import synthetic_pictures
from ssdtrt.quantization.calibration import measure_histograms
from ssdtrt.quantization.sensitivity import choose_layers, measure_costs
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import convolutions
from ssdtrt.rewriting.quantizers import QuantizedConv2d


@pytest.fixture(scope="module")
def ranges(model):
    network = FusedSSD300(model, fold_projections=False)
    histograms = measure_histograms(network, [synthetic_pictures(2, seed=9)], "eval")
    return {name: histogram.largest for name, histogram in histograms.items()}


def test_a_layer_whose_weights_are_made_awful_costs_most(model, ranges):
    """In each output channel one weight is so large that all others are quantized to zero; it reads what is zero."""
    awful = copy.deepcopy(model)
    with torch.no_grad():
        awful.feature_extractor.feature_extractor[6][5].bn3.bias[0] = -1e3  # ReLU makes the channel zero.
        for head in (awful.loc[0], awful.conf[0]):
            head.weight[:, 0] = 0
            head.weight[:, 0, 0, 0] = 1e3
    found = measure_costs(FusedSSD300(awful), ranges, synthetic_pictures(1, seed=10), "eval")
    names = [name for name, _ in convolutions(FusedSSD300(model))]
    assert sorted(one.name for one in found) == sorted(names) and not any(one.fp16 for one in found)
    assert max(found, key=lambda one: one.cost).name == found[0].name == "heads.0"
    others = [one.cost for one in found[1:]]
    assert found[0].cost > 3 * max(others) and min(others) > 0
    ratios = [one.cost / one.share for one in found]
    assert ratios == sorted(ratios, reverse=True)
    # Multiplications by hand: the stem has 7 x 7 x 3 x 4 of them in 150 x 150 places.
    shares = {one.name: one.share for one in found}
    assert sum(shares.values()) == pytest.approx(1)
    last = awful.loc[4].weight.numel() + awful.conf[4].weight.numel()  # in 3 x 3 places
    stem, head = shares["feature_extractor.feature_extractor.0"], shares["heads.4"]
    assert stem / head == pytest.approx(7 * 7 * 3 * 4 * 150 * 150 / (last * 9))


COSTS = [LayerCost(f"heads.{number}", 1.0 / (number + 1), 0.1) for number in range(6)]


class Enough:
    """Whether so many layers in FP16 are enough; it counts how often that was asked."""

    def __init__(self, needed):
        self.needed, self.asked = needed, []

    def __call__(self, network, count):
        self.asked.append(count)
        kept = [not isinstance(head, QuantizedConv2d) for head in network.network.heads]
        assert kept == [number < count for number in range(6)]  # The most costly ones are kept.
        return count >= self.needed


@pytest.mark.parametrize("needed", range(7))
@pytest.mark.parametrize("at_least", [0, 2, 6, 9])
def test_the_smallest_number_that_is_enough_is_found(model, ranges, needed, at_least):
    agrees = Enough(needed)
    found = choose_layers(FusedSSD300(model), ranges, COSTS, agrees, at_least)
    chosen = max(needed, min(at_least, 6))
    assert [one.fp16 for one in found] == [number < chosen for number in range(6)]
    assert [one.name for one in found] == [one.name for one in COSTS]
    assert len(agrees.asked) == len(set(agrees.asked)) <= 4  # No network runs twice.
    assert agrees.asked[:1] == ([at_least] if at_least < 6 else [])  # FP32 agrees with itself.
    if needed <= at_least:
        assert len(agrees.asked) <= 1
