"""The feature extractor, against torchvision's ResNet-50."""

import pytest
import torch

from ssdtrt.model.backbone import resnet50_features


@pytest.fixture(scope="module")
def resnet50():
    """torchvision's; imported here, because that takes as long as importing torch."""
    from torchvision.models import resnet50

    return resnet50


@pytest.fixture(scope="module")
def backbone(full_width):
    return resnet50_features().eval().requires_grad_(False)


def test_300_pixels_give_38_cells_of_1024_channels(backbone):
    assert backbone(torch.zeros(1, 3, 300, 300)).shape == (1, 1024, 38, 38)


def test_each_child_halves_but_layer1_and_layer3(backbone):
    shapes, hooks = [], []
    for child in backbone.feature_extractor:
        hooks.append(child.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:]))))
    backbone(torch.zeros(1, 3, 300, 300))
    for hook in hooks:
        hook.remove()
    assert shapes == [
        (64, 150, 150),  # conv1
        (64, 150, 150),  # bn1
        (64, 150, 150),  # relu
        (64, 75, 75),  # maxpool
        (256, 75, 75),  # layer1 = conv2_x
        (512, 38, 38),  # layer2 = conv3_x
        (1024, 38, 38),  # layer3 = conv4_x, whose stride is gone
    ]


def test_output_is_torchvisions_without_the_last_stride(backbone, resnet50):
    with torch.device("meta"):  # No time spent on initializing what is overwritten.
        plain = resnet50(weights=None).eval()
    for convolution in (plain.layer3[0].conv1, plain.layer3[0].conv2, plain.layer3[0].downsample[0]):
        convolution.stride = (1, 1)
    state = backbone.state_dict()
    for child, name in ((0, "conv1"), (1, "bn1"), (4, "layer1"), (5, "layer2"), (6, "layer3")):
        prefix = f"feature_extractor.{child}."
        part = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        getattr(plain, name).load_state_dict(part, assign=True)
    images = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = backbone(images)
        expected = plain.maxpool(plain.relu(plain.bn1(plain.conv1(images))))
        expected = plain.layer3(plain.layer2(plain.layer1(expected)))
    assert expected.std() > 0.1
    assert torch.equal(found, expected)


def test_parameters_are_resnet50s_without_conv5_and_fc(backbone):
    whole, conv5, fc = 25_557_032, 14_964_736, 2_049_000
    assert sum(parameter.numel() for parameter in backbone.parameters()) == whole - conv5 - fc == 8_543_296


def test_seeded_weights_are_those_of_torchvisions_whole_network(full_width, resnet50):
    """And the random numbers that come after them."""
    torch.manual_seed(7)
    found, after = resnet50_features().feature_extractor.state_dict(), torch.rand(1)
    torch.manual_seed(7)
    expected = torch.nn.Sequential(*list(resnet50(weights=None).children())[:7]).state_dict()
    assert torch.equal(torch.rand(1), after)
    assert list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in found)
