"""The network laid out for TensorRT: the same function, with packed images, folded norms and merged heads."""

import pytest
import torch
from torch import nn

from ssdtrt import packed, torchscript
from ssdtrt.engine import EngineModule
from ssdtrt.image import synthetic_images
from ssdtrt.model.random import random_model


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def joined(model):
    """The random model's packed form behind its scripted face, in FP32."""
    with torchscript.quiet():
        network = packed.PackedNetwork(packed.traced(model, "fp32"), torch.float32, 81)
        return torch.jit.script(EngineModule(network, torch.float32, None, channels_last=False).eval())


def test_pixels_are_packed_with_a_border_of_zeros():
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).reshape(2, 3, 4, 6)[:, :, :, :4].contiguous()
    found = packed.pack(images, torch.float16)
    assert found.shape == (2, 12, 5, 5) and found.dtype == torch.float16
    assert found[0, 0, 2:4, 2:4].tolist() == [[0, 2], [12, 14]]  # even rows, even columns of the first channel
    assert found[0, 1, 2:4, 2:4].tolist() == [[1, 3], [13, 15]]  # even rows, odd columns
    assert found[0, 2, 2:4, 2:4].tolist() == [[6, 8], [18, 20]]  # odd rows, even columns
    assert found[1, 11, 2:4, 2:4].tolist() == [[127, 129], [139, 141]]
    inside = torch.zeros(5, 5, dtype=torch.bool)
    inside[2:4, 2:4] = True
    assert (found[:, :, ~inside] == 0).all()


def test_packing_leaves_the_images_alone():
    images = numbers(1, 3, 300, 300)
    before = images.clone()
    assert packed.pack(images, torch.float32).shape == packed.packed_shape(1) == (1, 12, 153, 153)
    assert torch.equal(images, before)


def test_the_packed_first_convolution_is_the_first_convolution():
    conv = nn.Conv2d(3, 5, 7, stride=2, padding=3)
    images = numbers(2, 3, 20, 20)
    small = packed.packed_stem(conv)
    assert small.weight.shape == (5, 12, 4, 4) and small.stride == (1, 1)
    torch.testing.assert_close(small(packed.pack(images, torch.float32)), conv(images))


def test_folding_a_norm_changes_no_value():
    torch.manual_seed(3)
    part = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)))
    for norm in (part[1], part[3][1]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    images = numbers(2, 3, 8, 8)
    expected = part.eval()(images)
    packed.fold_norms(part)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in part.modules())
    torch.testing.assert_close(part(images), expected)


def test_a_merged_head_gives_both():
    loc, conf = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 10, 3, padding=1)
    features = numbers(2, 6, 3, 3)
    both = packed.merged_head(loc, conf)(features)
    torch.testing.assert_close(both[:, :8], loc(features))
    torch.testing.assert_close(both[:, 8:], conf(features))


def test_a_head_on_one_pixel_is_its_middle():
    conv = nn.Conv2d(6, 4, 3, padding=1)
    features = numbers(2, 6, 1, 1)
    middle = packed.middle_only(conv)
    assert middle.weight.shape == (4, 6, 1, 1)
    torch.testing.assert_close(middle(features), conv(features))


def test_maps_are_joined_in_the_order_of_the_default_boxes():
    """Three classes and levels of 2x1 and 1x1 cells with two boxes: the channel is split as (4 + C, boxes)."""
    first = torch.arange(14 * 2, dtype=torch.float16).reshape(1, 14, 2, 1)
    second = 100 + torch.arange(14, dtype=torch.float16).reshape(1, 14, 1, 1)
    loc, conf = packed.unpack([first, second], 3)
    assert loc.dtype == conf.dtype == torch.float32 and conf.is_contiguous()
    assert loc.tolist() == [[[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, 100 + 2 * i, 101 + 2 * i] for i in range(4)]]
    assert conf[0, 0].tolist() == [16, 17, 18, 19, 108, 109]
    assert conf[0, 2].tolist() == [24, 25, 26, 27, 112, 113]


def test_the_packed_network_is_the_network(model, joined):
    images = synthetic_images(2, seed=11)
    with torch.no_grad():
        found, expected = joined(images), model(images)
    for ours, theirs in zip(found, expected):
        assert ours.shape == theirs.shape and ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 5e-6


def test_the_model_is_left_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    packed.PackedSSD300(model)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_another_number_of_classes():
    model = random_model(6, seed=0)
    images = synthetic_images(1, seed=2)
    with torch.no_grad(), torchscript.quiet():
        network = packed.PackedNetwork(packed.traced(model, "fp32"), torch.float32, 6)
        (loc, conf), expected = network(images), model(images)
    assert loc.shape == (1, 4, 8732) and conf.shape == (1, 6, 8732)
    torch.testing.assert_close(conf, expected[1], rtol=1e-4, atol=1e-4)


def test_for_fp16_the_maps_are_cast(model):
    network = packed.traced(model, "fp16")
    with torch.no_grad():
        maps = network(packed.pack(synthetic_images(1), torch.float32))
    assert [part.dtype for part in maps] == [torch.float16] * 6
    assert [tuple(part.shape[1:]) for part in maps] == [
        (340, 38, 38), (510, 19, 19), (510, 10, 10), (510, 5, 5), (340, 3, 3), (340, 1, 1)
    ]  # fmt: skip
