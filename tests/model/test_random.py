"""Seeded random weights: reproducible, in FP16's range, and with something to detect."""

import copy

import pytest
import torch

from ssdtrt.images.tensors import synthetic_images, to_batch
from ssdtrt.model.boxes import decode_boxes, default_boxes
from ssdtrt.model.nms import nms
from ssdtrt.model.weights import build_model
from ssdtrt.system.devices import emulates_bf16

FP16_MAX = 65_504


@pytest.fixture(scope="module")
def passed(full_model, photographs):
    """The FP32 outputs of the sample photographs and a synthetic picture, and the largest activation of each layer."""
    peaks, hooks = {}, []
    for name, part in full_model.named_modules():
        if not list(part.children()):
            hooks.append(
                part.register_forward_hook(
                    lambda _, __, output, name=name: peaks.update({name: float(output.abs().max())})
                )
            )
    with torch.no_grad():
        outputs = full_model(torch.cat([to_batch(photographs), synthetic_images(1, seed=9)]))
    for hook in hooks:
        hook.remove()
    return outputs, peaks


@pytest.fixture(scope="module")
def outputs(passed, photographs):
    """The FP32 outputs of the sample photographs."""
    return tuple(part[: len(photographs)] for part in passed[0])


def test_the_same_seed_gives_the_same_weights_whatever_the_global_state(model):
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    again = build_model("random")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.source.sha256 == model.source.sha256
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_another_seed_gives_other_weights_and_labels_set_the_classes(model):
    other = build_model("random", seed=1, labels=["cat", "dog"])
    assert other.source.sha256 != model.source.sha256
    key = "feature_extractor.feature_extractor.0.weight"
    assert not torch.equal(other.state_dict()[key], model.state_dict()[key])
    assert other.num_classes == 3
    assert other.labels == ("background", "cat", "dog")
    assert other.conf[0].weight.shape == (4 * 3, 64, 3, 3)


def test_the_source_is_untrained(model):
    assert (model.source.name, model.source.trained, model.source.file_sha256) == ("random", False, None)
    assert len(model.labels) == model.num_classes == 81


def test_ready_to_run(full_model):
    assert not full_model.training and not any(part.training for part in full_model.modules())
    assert not any(parameter.requires_grad for parameter in full_model.parameters())
    assert all(value.isfinite().all() for value in full_model.state_dict().values())


def test_every_activation_is_within_fp16s_range(passed):
    _, peaks = passed
    # Stem and its three helpers, 13 blocks with 7 leaves, 3 downsamples of 2, 5 additional blocks of 6, 12 heads.
    assert len(peaks) == 4 + 13 * 7 + 3 * 2 + 5 * 6 + 12
    assert max(peaks.values()) < FP16_MAX / 10
    assert min(peaks.values()) > 1e-3  # Nothing has died out either.


def test_outputs_are_spread_as_a_trained_networks(outputs):
    loc, conf = outputs
    assert 0.3 < loc.std() < 3
    assert 0.3 < conf.std() < 3


def test_every_photograph_has_between_1_and_200_detections(outputs, photographs):
    assert len(photographs) >= 3
    results = nms(*decode_boxes(*outputs, default_boxes()), max_detections=100_000)
    counts = [int((scores >= 0.4).sum()) for _, _, scores in results]
    assert all(1 <= count <= 200 for count in counts), counts


@pytest.mark.skipif(emulates_bf16(), reason="this processor has no BF16 arithmetic")
def test_bf16_stays_near_fp32(full_model, outputs, photographs):
    low = copy.deepcopy(full_model).bfloat16()
    with torch.no_grad():
        found = low(to_batch(photographs).bfloat16())
    for name, low_output, output in zip(("loc", "conf"), found, outputs):
        distance = float((low_output.double() - output.double()).norm() / output.double().norm())
        assert 1e-4 < distance < 2e-2, (name, distance)
