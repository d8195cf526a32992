"""The fused network with quantized layers: which ones, with which ranges, in both layouts of the projections."""

import pytest
import torch
from torch import nn

from ssdtrt.artifact.quantization import Quantization
from ssdtrt.errors import CalibrationError
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.quantization.calibration import measure_histograms
from ssdtrt.rewriting.equalized import equalize
from ssdtrt.rewriting.fused import FusedSSD300, ProjectedBlock
from ssdtrt.rewriting.quantized import convolutions, quantize, quantized_model, quantized_tensors
from ssdtrt.rewriting.quantizers import QuantizedConv2d, Quantizer

STAGES = "feature_extractor.feature_extractor"


@pytest.fixture(scope="module")
def ranges(model):
    network = FusedSSD300(model, fold_projections=False)
    histograms = measure_histograms(network, [synthetic_pictures(4, seed=9)], "eval")
    return {name: histogram.largest for name, histogram in histograms.items()}


@pytest.fixture(scope="module")
def images():
    return synthetic_images(2, seed=11)


def output(network, images):
    with torch.no_grad():
        return network(images)


def kinds(network, *types):
    return {name for name, module in network.named_modules() if isinstance(module, types)}


def test_the_tensors_are_the_inputs_of_all_convolutions_and_the_added_projections(model):
    apart, folded = FusedSSD300(model, fold_projections=False), FusedSSD300(model)
    names = [tensor.name for tensor in quantized_tensors(apart)]
    assert len(names) == len(set(names)) == 59 + 3  # Convolutions, and a projection in each of three stages.
    assert {name for name in names if name.endswith(".downsample")} == {f"{STAGES}.{n}.0.downsample" for n in (4, 5, 6)}
    assert {tensor.name for tensor in quantized_tensors(folded)} < set(names)


@pytest.mark.parametrize("fold", [True, False])
def test_with_every_layer_kept_it_is_the_fused_network(model, ranges, images, fold):
    fused = FusedSSD300(model, fold_projections=fold)
    kept = quantize(fused, ranges, {name for name, _ in convolutions(fused)})
    assert kinds(kept, Quantizer, QuantizedConv2d) == set()
    found, expected = output(kept, images), output(fused, images)
    if fold:  # Only the scales in the projected blocks were moved.
        assert 0 < (found - expected).norm() / expected.norm() < 1e-5
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("fold", [True, False])
def test_every_convolution_and_every_term_of_an_addition_is_quantized(model, ranges, images, fold):
    fused = FusedSSD300(model, fold_projections=fold)
    before = {name: value.clone() for name, value in fused.state_dict().items()}
    network = quantize(fused, ranges)
    assert network.quantized and not fused.quantized
    names = {name for name, _ in convolutions(fused)}
    assert kinds(network, nn.Conv2d) == kinds(network, QuantizedConv2d) == names
    blocks = {name: block for name, block in network.named_modules() if isinstance(block, Bottleneck)}
    assert len(blocks) == (11 if fold else 13)
    for name, block in blocks.items():
        term = block.downsample if isinstance(block.downsample, Quantizer) else block.downsample.term
        source = f"{name}.conv1" if isinstance(block.downsample, Quantizer) else f"{name}.downsample"
        assert float(term.scale) == pytest.approx(ranges[source] / 127)
    for name, conv in network.named_modules():
        if isinstance(conv, QuantizedConv2d):
            block, _, last = name.rpartition(".")
            joined = last == "conv3" and isinstance(network.get_submodule(block), ProjectedBlock)
            assert float(conv.input.scale) == pytest.approx(ranges[f"{block}.conv1" if joined else name] / 127)
    found, expected = output(network, images), output(fused, images)
    assert 1e-3 < (found - expected).norm() / expected.norm() < 0.3
    assert all(torch.equal(fused.state_dict()[name], value) for name, value in before.items())


def test_a_block_whose_last_convolution_stays_adds_what_is_not_quantized(model, ranges):
    network = quantize(FusedSSD300(model), ranges, {f"{STAGES}.5.1.conv3", f"{STAGES}.5.0.conv3"})
    blocks = network.get_submodule(f"{STAGES}.5")
    assert blocks[1].downsample is None and isinstance(blocks[2].downsample, Quantizer)
    assert [name for name, _ in blocks[0].downsample.named_children()] == ["0", "1"]
    assert isinstance(blocks[0].downsample[0], QuantizedConv2d)  # A convolution of its own, which was not named.


def test_a_projected_block_is_scaled_without_a_change(model, ranges):
    """The output of conv2 is as large as the block's input then, and what reads it is smaller by as much."""
    name, fused = f"{STAGES}.4.0", FusedSSD300(model)
    block = fused.get_submodule(name)
    scaled = quantize(fused, ranges, {name for name, _ in convolutions(fused)}).get_submodule(name)
    factor = ranges[f"{name}.conv1"] / ranges[f"{name}.conv3"]
    assert factor != pytest.approx(1, abs=0.05)
    torch.testing.assert_close(scaled.conv2.weight, block.conv2.weight * factor)
    x = torch.rand(1, block.conv1.in_channels, 6, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(output(scaled, x), output(block, x))


def test_the_layers_compute_what_they_say_from_end_to_end(model, ranges, images):
    """The first convolution by hand: the images and the weights on their grids."""
    name = f"{STAGES}.0"
    fused = FusedSSD300(model)
    network, conv = quantize(fused, ranges), fused.get_submodule(name)
    step = ranges[name] / 127
    steps = conv.weight.abs().amax((1, 2, 3), keepdim=True) / 127
    x = (images / step).round().clamp(-128, 127) * step
    wanted = nn.functional.conv2d(x, (conv.weight / steps).round() * steps, conv.bias, conv.stride, conv.padding)
    torch.testing.assert_close(output(network.get_submodule(name), images), wanted, rtol=1e-4, atol=1e-4)


def test_a_model_is_quantized_as_its_request_says(model, ranges, images):
    sizes = {f"{STAGES}.0": 4, f"{STAGES}.4": 16, f"{STAGES}.5": 32, f"{STAGES}.6": 64}
    sizes |= {f"additional_blocks.{i}": size for i, size in enumerate((32, 32, 16, 16, 16))}
    exponents = {name: tuple(range(-size // 2, size - size // 2)) for name, size in sizes.items()}
    quantization = Quantization(table="t", ranges=ranges, exponents=exponents, keep_fp16=("heads.0",))
    loc, conf = output(quantized_model(model, quantization), images)
    wanted = output(quantize(equalize(FusedSSD300(model), exponents), ranges, ["heads.0"]), images)
    assert torch.equal(torch.cat([loc, conf], 1), wanted) and loc.shape == (2, 4, 8732)


@pytest.mark.parametrize("missing", ["heads.3", f"{STAGES}.5.0.downsample"])
def test_a_missing_range_is_one_line(model, ranges, missing):
    with pytest.raises(CalibrationError) as caught:
        quantize(FusedSSD300(model), {name: value for name, value in ranges.items() if name != missing})
    assert str(caught.value) == f"The calibration table has no range of {missing}. Calibrate again."


@pytest.mark.parametrize("unknown", ["heads.9", f"{STAGES}.4.1.downsample.0"])
@pytest.mark.parametrize("fold", [True, False])
def test_an_unknown_layer_is_one_line(model, ranges, unknown, fold):
    with pytest.raises(CalibrationError) as caught:
        quantize(FusedSSD300(model, fold_projections=fold), ranges, ["heads.0", unknown])
    assert str(caught.value) == (
        f"The network has no convolution {unknown!r} to keep in FP16; ssdtrt inspect --layers lists those of an engine."
    )


def test_a_projection_may_be_named_in_either_layout(model, ranges):
    name = f"{STAGES}.4.0.downsample.0"
    apart = quantize(FusedSSD300(model, fold_projections=False), ranges, [name])
    assert type(apart.get_submodule(name)) is nn.Conv2d
    quantize(FusedSSD300(model), ranges, [name])
