"""The forms that `benchmarks/int8_forms.py` builds: what each writes, into a stand-in for TensorRT's network."""

import pytest

from conftest import script
from ssdtrt.artifact.request import BatchRange
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import convolutions, quantize, quantized_tensors

int8_forms = script("int8_forms")


class Layer:
    """A layer that remembers what was set."""

    def __init__(self, kind, output):
        self.kind, self.output, self.types = kind, output, []

    def get_output(self, _):
        return self.output

    def set_output_type(self, _, dtype):
        self.types.append(dtype)

    def set_input(self, _, tensor):
        self.weights = tensor


class Network:
    """Records the layers."""

    def __init__(self):
        self.layers = []

    def __getattr__(self, name):
        if not name.startswith(("add_", "mark_")):
            raise AttributeError(name)

        def add(*_):
            self.layers.append(Layer(name, type("Tensor", (), {"name": f"tensor {len(self.layers)}"})()))
            return self.layers[-1].output if name == "add_input" else self.layers[-1]

        return add

    @property
    def num_layers(self):
        return len(self.layers)

    def get_layer(self, number):
        return self.layers[number]

    def count(self, kind):
        return sum(layer.kind == kind for layer in self.layers)


class TensorRT:
    """The names that the writer takes from TensorRT."""

    float16, float32 = "half", "float"
    int8 = "int8"
    Weights = staticmethod(lambda *_: object())
    ActivationType = PoolingType = ElementWiseOperation = type("Any", (), {"RELU": 0, "MAX": 0, "SUM": 0})


@pytest.fixture(scope="module")
def written(model):
    """The network that each form writes."""

    def write(form):
        writer, folded, stays = int8_forms.FORMS[form]
        ranges = {
            one.name: 1.0 + i for i, one in enumerate(quantized_tensors(FusedSSD300(model, fold_projections=False)))
        }
        fused = FusedSSD300(model, fold_projections=folded)
        kept = [name for name, _ in convolutions(fused) if stays(name)]
        network = Network()
        writer(TensorRT, network).write(quantize(fused, ranges, kept), BatchRange.parse(2))
        return network, len(kept)

    return write


@pytest.mark.parametrize("form", int8_forms.FORMS)
def test_a_form_quantizes_all_but_what_stays(written, form):
    network, kept = written(form)
    apart = int8_forms.FORMS[form][1] is False
    assert network.count("add_convolution_nd") == (59 if apart else 57)
    # Each quantized convolution has constants for its weights and their scales.
    assert sum(hasattr(layer, "weights") for layer in network.layers) == (59 if apart else 57) - kept
    assert network.count("add_quantize") == network.count("add_dequantize")
    assert kept == {"first convolution in FP16": 1, "first head in FP16": 1, "heads in FP16": 6,
                    "additional blocks in FP16": 10}.get(form, 0)  # fmt: skip


def test_heads_are_cast_or_give_fp16(written):
    assert written("as compiled")[0].count("add_cast") == 0
    assert written("heads cast to FP16")[0].count("add_cast") == 7
    assert [layer.types for layer in written("heads give FP16")[0].layers if layer.types] == [["half"]] * 6


def test_the_parts_of_merged_projections_are_quantized(written):
    assert written("parts quantized")[0].count("add_quantize") == written("as compiled")[0].count("add_quantize") + 2
