"""Equalized channels: the same function, with channels of nearer ranges."""

import numpy as np
import pytest
import torch

from ssdtrt.errors import CalibrationError
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.quantization.calibration import measure_channels
from ssdtrt.rewriting.equalized import choose_exponents, equalize
from ssdtrt.rewriting.fused import FusedSSD300

STAGES = "feature_extractor.feature_extractor"
SIZES = {f"{STAGES}.0": 4, f"{STAGES}.4": 16, f"{STAGES}.5": 32, f"{STAGES}.6": 64,
         **{f"additional_blocks.{i}": size for i, size in enumerate((32, 32, 16, 16, 16))}}  # fmt: skip


@pytest.fixture(scope="module")
def apart(model):
    return FusedSSD300(model, fold_projections=False)


@pytest.fixture(scope="module")
def largest(apart):
    return measure_channels(apart, [synthetic_pictures(3, seed=9)], "eval")


def test_the_groups_are_the_channels_that_can_be_scaled(apart, largest):
    exponents = choose_exponents(apart, largest)
    assert {name: len(steps) for name, steps in exponents.items()} == SIZES
    assert all(-48 <= step <= 48 for steps in exponents.values() for step in steps)
    assert any(step for steps in exponents.values() for step in steps)


def test_the_exponents_are_those_of_the_formula(apart, largest):
    """Of the second stage, which the blocks after its first one and both convolutions of the third's first block read."""
    steps = choose_exponents(apart, largest)[f"{STAGES}.5"]
    readers = [f"{STAGES}.5.{n}.conv1" for n in (1, 2, 3)] + [f"{STAGES}.6.0.conv1", f"{STAGES}.6.0.downsample.0"]
    values = np.max([largest[name].numpy() for name in readers], axis=0)
    weights = np.max([np.abs(apart.get_submodule(name).weight.numpy()).max((0, 2, 3)) for name in readers], axis=0)
    some = values > 0
    octaves = np.log2(values[some] / weights[some]) / 2
    middle = np.sort(octaves)[(len(octaves) - 1) // 2]  # torch's median
    wanted = np.clip(np.round(8 * (octaves - middle)), -48, 48)
    assert np.abs(np.array(steps)[some] - wanted).max() <= 1  # rounding of float32
    assert (np.array(steps)[some] == wanted).mean() > 0.9 and not np.array(steps)[~some].any()


@pytest.mark.parametrize("folded", [True, False])
def test_the_function_is_the_same_in_both_layouts(model, folded):
    generator = torch.Generator().manual_seed(3)
    exponents = {
        name: tuple(torch.randint(-48, 49, (size,), generator=generator).tolist()) for name, size in SIZES.items()
    }
    fused = FusedSSD300(model, fold_projections=folded)
    before, images = {name: value.clone() for name, value in fused.state_dict().items()}, synthetic_images(2, seed=11)
    with torch.no_grad():
        found, expected = equalize(fused, exponents)(images), fused(images)
    assert (found - expected).norm() / expected.norm() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in fused.state_dict().items())


def test_channels_become_of_nearer_ranges(apart, largest):
    """The largest value of the largest channel over the median of all, of the tensor that the first head reads."""
    after = measure_channels(equalize(apart, choose_exponents(apart, largest)), [synthetic_pictures(3, seed=9)], "eval")
    spread = [
        float(found["heads.0"].max() / found["heads.0"][found["heads.0"] > 0].median()) for found in (largest, after)
    ]
    assert spread[1] < 0.9 * spread[0]


@pytest.mark.parametrize("steps", [None, (0,) * 31])
def test_exponents_of_another_network_are_refused(apart, steps):
    exponents = {name: (0,) * size for name, size in SIZES.items()}
    del exponents["additional_blocks.1"]
    if steps:
        exponents["additional_blocks.1"] = steps
    with pytest.raises(CalibrationError) as caught:
        equalize(apart, exponents)
    count = len(steps or ())
    assert str(caught.value) == (
        f"The calibration table has {count} channels of additional_blocks.1; the network has 32. Calibrate again."
    )
