"""Tests of the fused network: the same function with folded layers, merged heads and one output."""

import pytest
import torch
from torch import nn

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine.modules import EngineModule
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.model.ssd import SSD300
from ssdtrt.rewriting import fused as rewrite
from ssdtrt.runners import torchscript

CPU = torch.device("cpu")


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def engine(model):
    """An engine with the fused network of the random model, for up to two images, in FP32."""
    with torchscript.quiet():
        network = rewrite.FusedNetwork(rewrite.trace(rewrite.FusedSSD300(model), CPU))
        return torch.jit.script(EngineModule(network, torch.float32, BatchRange(2, 2, 2), channels_last=False).eval())


@pytest.mark.parametrize("count", [1, 2])
def test_the_fused_network_is_the_network(model, engine, count):
    images = synthetic_images(count, seed=11)
    with torch.no_grad():
        found, expected = engine(images), model(images)
    for ours, theirs in zip(found, expected):
        assert ours.shape == theirs.shape and ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 5e-6


def test_loc_and_conf_are_parts_of_one_tensor(engine):
    loc, conf = engine(synthetic_images(2))
    assert (tuple(loc.shape), tuple(conf.shape)) == ((2, 4, 8732), (2, 81, 8732))
    assert conf.data_ptr() - loc.data_ptr() == 4 * 4 * 8732
    assert loc.stride() == conf.stride() == (85 * 8732, 8732, 1)


def test_inside_it_is_of_another_type_and_float32_at_the_edges(model):
    network = rewrite.FusedSSD300(model, torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    images = synthetic_images(1, seed=11)
    with torch.no_grad():
        found, expected = network(images), torch.cat(model(images), 1)
    assert found.dtype == torch.float32 and found.shape == (1, 85, 8732)
    assert 1e-3 < (found - expected).norm() / expected.norm() < 2e-2


def test_the_casts_are_in_the_graph(model):
    code = rewrite.trace(rewrite.FusedSSD300(model), CPU).inlined_graph
    assert str(code).count("aten::to(") == 8  # the images, six maps, the output


def test_the_model_is_left_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rewrite.FusedSSD300(model, torch.bfloat16)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_another_number_of_classes():
    torch.manual_seed(0)
    model = SSD300(6).eval()
    images = synthetic_images(1, seed=2)
    with torch.no_grad():
        (loc, conf), expected = (
            rewrite.FusedNetwork(rewrite.trace(rewrite.FusedSSD300(model), CPU))(images),
            model(images),
        )
    assert loc.shape == (1, 4, 8732) and conf.shape == (1, 6, 8732)
    torch.testing.assert_close(conf, expected[1], rtol=1e-4, atol=1e-4)


def test_folding_a_norm_changes_no_value():
    torch.manual_seed(3)
    inner = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    part = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), inner)
    for norm in (part[1], inner[1]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    images = numbers(2, 3, 8, 8)
    expected = part.eval()(images)
    rewrite._fold_batch_norms(part)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in part.modules())
    torch.testing.assert_close(part(images), expected)


def test_the_projections_without_stride_are_part_of_the_last_convolution(model):
    stages = rewrite.FusedSSD300(model).feature_extractor.feature_extractor[4:]
    assert [type(stage[0]) for stage in stages] == [rewrite.ProjectedBlock, Bottleneck, rewrite.ProjectedBlock]
    assert [tuple(stage[0].conv3.weight.shape) for stage in stages] == [
        (16, 4 + 4, 1, 1),
        (32, 8, 1, 1),
        (64, 16 + 32, 1, 1),
    ]
    convolutions = [module for stage in stages for module in stage.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 42 - 2


def test_folding_a_projection_changes_no_value():
    torch.manual_seed(5)
    part = nn.Sequential(Bottleneck(6, 2))
    for norm in (module for module in part.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    images = numbers(2, 6, 5, 5)
    expected = part.eval()(images)
    rewrite._fold_batch_norms(part)
    rewrite._fold_projections(part)
    assert isinstance(part[0], rewrite.ProjectedBlock)
    torch.testing.assert_close(part(images), expected)


def test_a_merged_head_gives_both():
    loc, conf = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 10, 3, padding=1)
    features = numbers(2, 6, 3, 3)
    both = rewrite._merge_heads(loc, conf)(features)
    torch.testing.assert_close(both[:, :8], loc(features))
    torch.testing.assert_close(both[:, 8:], conf(features))


def test_a_head_on_one_pixel_is_its_middle():
    conv = nn.Conv2d(6, 4, 3, padding=1)
    features = numbers(2, 6, 1, 1)
    middle = rewrite._center_tap(conv)
    assert middle.weight.shape == (4, 6, 1, 1)
    torch.testing.assert_close(middle(features), conv(features))
