"""The whole network, bit for bit against one built here from torchvision's ResNet-50 and plain functions."""

import pytest
import torch
from torch.nn import functional

from ssdtrt.export import _to_torchscript
from ssdtrt.model.ssd import SSD300

BOXES = (4, 6, 6, 6, 4, 4)
CHANNELS = (1024, 512, 512, 256, 256, 256)
MIDDLE = (256, 256, 128, 128, 128)
MAPS = (38, 19, 10, 5, 3, 1)


pytestmark = pytest.mark.usefixtures("full_width")


@pytest.fixture(scope="module")
def model(full_model):
    return full_model


@pytest.fixture(scope="module")
def traced(model):
    return _to_torchscript(model, "trace")


@pytest.fixture(scope="module")
def scripted(model):
    return _to_torchscript(model, "script")


@pytest.fixture(scope="module")
def expected(model):
    """`expected(images)`: the outputs of the reference, with the random model's weights."""
    from torchvision.models import resnet50

    state = model.state_dict()
    with torch.device("meta"):  # No time spent on initializing what is overwritten.
        resnet = resnet50(weights=None).eval().requires_grad_(False)
    for convolution in (resnet.layer3[0].conv1, resnet.layer3[0].conv2, resnet.layer3[0].downsample[0]):
        convolution.stride = (1, 1)
    for child, name in ((0, "conv1"), (1, "bn1"), (4, "layer1"), (5, "layer2"), (6, "layer3")):
        prefix = f"feature_extractor.feature_extractor.{child}."
        part = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        getattr(resnet, name).load_state_dict(part, assign=True)
    known = {}

    def of(images):
        key = tuple(images.shape), float(images.sum())
        if key not in known:
            known[key] = reference(resnet, state, images)
        return known[key]

    return of


def reference(resnet, state, images):
    """SSD300 by hand: images [N, 3, 300, 300] -> loc [N, 4, 8732], conf [N, 81, 8732]."""

    def norm_relu(x, name):
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.relu(functional.batch_norm(x, *parts, training=False, eps=1e-5))

    x = functional.relu(resnet.bn1(resnet.conv1(images)))
    x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    x = resnet.layer3(resnet.layer2(resnet.layer1(x)))
    maps = [x]
    for i in range(5):
        name = f"additional_blocks.{i}"
        stride, padding = (2, 1) if i < 3 else (1, 0)
        x = norm_relu(functional.conv2d(x, state[f"{name}.0.weight"]), f"{name}.1")
        x = functional.conv2d(x, state[f"{name}.3.weight"], stride=stride, padding=padding)
        x = norm_relu(x, f"{name}.4")
        maps.append(x)
    outputs = []
    for head, parts in (("loc", 4), ("conf", 81)):
        levels = []
        for i, features in enumerate(maps):
            out = functional.conv2d(features, state[f"{head}.{i}.weight"], state[f"{head}.{i}.bias"], padding=1)
            size = features.shape[-1]
            levels.append(out.view(len(images), parts, BOXES[i], size, size).flatten(2))
        outputs.append(torch.cat(levels, dim=2))
    return tuple(outputs)


def pictures(count):
    return torch.randn(count, 3, 300, 300, generator=torch.Generator().manual_seed(count))


# A script is run with one picture below; all three with one and more while they are exported.
@pytest.mark.parametrize("form, count", [("model", 1), ("traced", 2), ("scripted", 2)])
def test_outputs_equal_the_reference_bit_for_bit(form, count, expected, request):
    """The model in the same pass: it does not write to its images, and its maps shrink to one cell."""
    images = pictures(count)
    before, shapes, hooks = images.clone(), [], []
    runner = request.getfixturevalue(form)
    if form == "model":
        for part in (runner.feature_extractor, *runner.additional_blocks):
            hooks.append(part.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape))))
    with torch.no_grad():
        loc, conf = runner(images)
        expected_loc, expected_conf = expected(images)
    assert loc.shape == (count, 4, 8732) and conf.shape == (count, 81, 8732)
    assert loc.dtype == conf.dtype == torch.float32
    assert loc.std() > 0.1 and conf.std() > 0.1  # Something to compare.
    assert torch.equal(loc, expected_loc)
    assert torch.equal(conf, expected_conf)
    assert torch.equal(images, before)
    for hook in hooks:
        hook.remove()
    assert not hooks or shapes == [
        (1, 1024, 38, 38), (1, 512, 19, 19), (1, 512, 10, 10), (1, 256, 5, 5), (1, 256, 3, 3), (1, 256, 1, 1),
    ]  # fmt: skip


def test_scripted_outputs_stay_equal_once_optimized(scripted, expected):
    images = pictures(1)
    with torch.no_grad():
        for _ in range(2):  # With the runs above, past the profiling ones.
            scripted(images)
        loc, conf = scripted(images)
    assert torch.equal(loc, expected(images)[0]) and torch.equal(conf, expected(images)[1])


def test_22_894_902_parameters_and_8732_boxes(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_894_902
    assert sum(size * size * boxes for size, boxes in zip(MAPS, BOXES)) == 8732


def published_keys():
    """The names in NVIDIA's checkpoint."""

    def norm(name):
        return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    root = "feature_extractor.feature_extractor"
    keys = [f"{root}.0.weight", *norm(f"{root}.1")]
    for child, blocks in ((4, 3), (5, 4), (6, 6)):
        for block in range(blocks):
            name = f"{root}.{child}.{block}"
            for i in (1, 2, 3):
                keys += [f"{name}.conv{i}.weight", *norm(f"{name}.bn{i}")]
            if block == 0:
                keys += [f"{name}.downsample.0.weight", *norm(f"{name}.downsample.1")]
    for i in range(5):
        name = f"additional_blocks.{i}"
        keys += [f"{name}.0.weight", *norm(f"{name}.1"), f"{name}.3.weight", *norm(f"{name}.4")]
    for head in ("loc", "conf"):
        for i in range(6):
            keys += [f"{head}.{i}.weight", f"{head}.{i}.bias"]
    return keys


def test_state_dict_has_the_published_names(model):
    keys = published_keys()
    # 13 blocks of 3 convolutions with a norm, 3 downsamples and the stem: 43 pairs of 6; 10 more; 12 heads of 2.
    assert len(keys) == len(set(keys)) == 43 * 6 + 10 * 6 + 12 * 2 == 342
    assert set(model.state_dict()) == set(keys)


def test_shapes_of_blocks_and_heads(model):
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for i, middle in enumerate(MIDDLE):
        assert shapes[f"additional_blocks.{i}.0.weight"] == (middle, CHANNELS[i], 1, 1)
        assert shapes[f"additional_blocks.{i}.3.weight"] == (CHANNELS[i + 1], middle, 3, 3)
    for i, (channels, boxes) in enumerate(zip(CHANNELS, BOXES)):
        assert shapes[f"loc.{i}.weight"] == (4 * boxes, channels, 3, 3)
        assert shapes[f"conf.{i}.weight"] == (81 * boxes, channels, 3, 3)
        assert shapes[f"loc.{i}.bias"] == (4 * boxes,) and shapes[f"conf.{i}.bias"] == (81 * boxes,)


def test_head_channels_are_coordinate_then_box(model):
    """Channel 4 of the first location head (4 boxes to a cell) is the top coordinate of the first box."""
    small = SSD300(3).eval().requires_grad_(False)
    for head in (*small.loc, *small.conf):
        head.weight.zero_()
        head.bias.copy_(torch.arange(len(head.bias)))
    loc, conf = small(torch.zeros(1, 3, 300, 300))
    assert loc.shape == (1, 4, 8732) and conf.shape == (1, 3, 8732)
    assert loc[0, :, 0].tolist() == [0, 4, 8, 12]  # the first box of the first map
    assert loc[0, :, 1444].tolist() == [1, 5, 9, 13]  # its second box, after 38 x 38 cells
    assert loc[0, :, 5776].tolist() == [0, 6, 12, 18]  # the first box of the second map, with six to a cell
    assert conf[0, :, 0].tolist() == [0, 4, 8]
    assert conf[0, :, 8731].tolist() == [3, 7, 11]
