"""The histograms of a network's tensors beside numpy's, and that the pictures' order and batches do not matter."""

import numpy as np
import pytest
import torch
from torch import nn

from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.quantization.calibration import calibrate, measure_histograms
from ssdtrt.rewriting.equalized import equalize
from ssdtrt.rewriting.fused import FusedSSD300


@pytest.fixture(scope="module")
def pictures():
    return synthetic_pictures(5, seed=4)


@pytest.fixture(scope="module")
def fused(model):
    return FusedSSD300(model, fold_projections=False)


@pytest.fixture(scope="module")
def seen(fused, pictures):
    """The values that hooks of the test see, by the names of the tensors."""
    found = {}

    def keep(name, output=False):
        return lambda module, inputs, result: found.update({name: (result if output else inputs[0]).clone()})

    handles = []
    for name, module in fused.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(keep(name)))
        if isinstance(module, Bottleneck) and module.downsample is not None:
            handles.append(module.downsample.register_forward_hook(keep(f"{name}.downsample", output=True)))
    with torch.no_grad():
        fused(normalize(pictures, "eval"))
    for handle in handles:
        handle.remove()
    return {name: x.abs().numpy().astype(np.float64).ravel() for name, x in found.items()}


def test_the_histograms_are_numpys(fused, pictures, seen):
    found = measure_histograms(fused, [pictures], "eval")
    assert found.keys() == seen.keys() and len(found) == 62
    for name, values in seen.items():
        histogram = found[name]
        assert histogram.largest == values.max()
        counts, _ = np.histogram(values[values > 0], len(histogram.counts), (0, values.max()))
        assert histogram.counts.sum() == counts.sum()
        # A value at the edge of two bins may be in either.
        assert np.abs(histogram.counts - counts).sum() <= max(8, 2e-3 * counts.sum()), name


def test_neither_batches_nor_order_change_the_histograms(fused, pictures):
    whole = measure_histograms(fused, [pictures], "eval")
    parts = measure_histograms(fused, list(pictures.flip(0).split([1, 3, 1])), "eval")
    for name, histogram in whole.items():
        other = parts[name]
        assert other.largest == pytest.approx(histogram.largest, rel=1e-5)
        assert other.counts.sum() == pytest.approx(histogram.counts.sum(), rel=1e-4)
        assert np.abs(np.cumsum(other.counts) - np.cumsum(histogram.counts)).max() <= max(4, 2e-3 * other.counts.sum())


def test_the_ranges_are_by_name_and_of_the_preprocessing(model, pictures, seen):
    said = []
    found, exponents = calibrate(model, pictures, "max", "eval", said.append)
    assert list(found) == list(seen)
    for name in (
        "feature_extractor.feature_extractor.0",
        "additional_blocks.0.3",
        "feature_extractor.feature_extractor.6.2.conv3",
    ):
        assert found[name] == pytest.approx(seen[name].max(), rel=1e-5)  # No group: as it is.
    network = equalize(FusedSSD300(model, fold_projections=False), exponents)
    assert found["heads.1"] == found["additional_blocks.1.0"] != pytest.approx(seen["heads.1"].max(), rel=1e-3)
    assert found["heads.1"] == measure_histograms(network, pictures.split(2), "eval")["heads.1"].largest
    assert said[-1] == "finding ranges (max)"
    first = "feature_extractor.feature_extractor.0"
    assert calibrate(model, pictures, "max", "hub").ranges[first] == 1.0  # Its normalization gives -1 to 1.
    assert found[first] > 2
    assert not any(module._forward_hooks for module in model.modules())


def test_a_tensor_of_zeros_has_a_range(model, pictures):
    dead = FusedSSD300(model, fold_projections=False)
    conv = dead.additional_blocks[0][0]
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.fill_(-1)
    found = measure_histograms(dead, [pictures[:1]], "eval")["additional_blocks.0.3"]
    assert found.largest == 0 and not found.counts.any()
