"""The forms that `benchmarks/int8_forms.py` builds: what each writes, in a network that torch runs."""

import pytest
import torch
from network_stand_in import Network, stand_in

from conftest import script
from ssdtrt.artifact.request import BatchRange
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import convolutions, quantize, quantized_tensors

int8_forms = script("int8_forms")


class Recorded(Network):
    """A network that also knows its convolutions, the types that were set for them, and its casts."""

    def __init__(self, images):
        super().__init__(images, any_size=False)
        self.layers, self.types, self.casts = [], [], 0

    def add_convolution_nd(self, *arguments):
        layer = super().add_convolution_nd(*arguments)
        layer.set_output_type = lambda index, dtype: self.types.append((index, dtype))
        self.layers.append(layer)
        return layer

    def add_cast(self, x, to):
        self.casts += 1
        return super().add_cast(x, to)

    @property
    def num_layers(self):
        return len(self.layers)

    def get_layer(self, number):
        return self.layers[number]


@pytest.fixture(scope="module")
def written(model):
    """What each form writes, and how far its output is from the quantized network in torch."""
    apart = FusedSSD300(model, fold_projections=False)
    ranges = {one.name: 2.0 + i / 8 for i, one in enumerate(quantized_tensors(apart))}
    made = {}

    def write(form):
        if form not in made:
            writer, folded, stays = int8_forms.FORMS[form]
            fused, images = FusedSSD300(model, fold_projections=folded), synthetic_images(1, seed=5)
            kept = [name for name, _ in convolutions(fused) if stays(name)]
            network, quantized = Recorded(images), quantize(fused, ranges, kept)
            with torch.no_grad():
                writer(stand_in(), network).write(quantized, BatchRange.parse(1))
                found, expected = network.outputs[0].as_subclass(torch.Tensor), quantized(images)
            made[form] = network, len(kept), float((found - expected).norm() / expected.norm())
        return made[form]

    return write


@pytest.mark.parametrize("form", int8_forms.FORMS)
def test_a_form_is_the_network_and_quantizes_all_but_what_stays(written, form):
    network, kept, distance = written(form)
    count = 59 if form == "projections apart" else 57
    assert len(network.layers) == count
    assert sum(len(scale) > 1 for _, scale in network.quantized) == count - kept  # Weights have many scales.
    assert distance == 0 or (form == "heads cast to FP16" and 1e-5 < distance < 1e-3)
    assert kept == {"first convolution in FP16": 1, "first head in FP16": 1, "heads in FP16": 6,
                    "additional blocks in FP16": 10}.get(form, 0)  # fmt: skip


def test_heads_are_cast_or_give_fp16(written):
    assert written("as compiled")[0].casts == 0 and written("heads cast to FP16")[0].casts == 7
    assert written("heads give FP16")[0].types == [(0, torch.float16)] * 6 and written("as compiled")[0].types == []


def test_the_parts_of_merged_projections_are_quantized(written):
    parts, whole = written("parts quantized")[0], written("as compiled")[0]
    assert len(parts.quantized) == len(whole.quantized) + 2
