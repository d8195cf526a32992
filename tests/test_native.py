"""The network as `benchmarks/native.py` writes it for TensorRT, run by torch: TensorRT itself needs a GPU."""

from types import SimpleNamespace

import pytest
import torch
from conftest import script
from torch import Tensor
from torch.nn import functional

from ssdtrt.fused import FusedSSD300
from ssdtrt.image import synthetic_images

native = script("native")


class Layer:
    """A layer whose settings may change until its output is asked for, when all is known, as in the writer."""

    def __init__(self, output):
        self.output = output

    def get_output(self, index):
        assert index == 0
        return self.output(self)


class Named(Tensor):
    """A tensor that can be given a name."""

    name = ""


class Network:
    """What `Writer` uses of TensorRT's network, as torch does it at once. Strict about types, as TensorRT is."""

    def __init__(self, images):
        self.images, self.outputs = images.as_subclass(Named), []

    def add_input(self, name, dtype, shape):
        assert (name, dtype, shape) == ("images", torch.float32, tuple(self.images.shape))
        return self.images

    def add_convolution_nd(self, x, channels, kernel, weight, bias):
        assert weight.shape[0] == bias.shape[0] == channels and tuple(weight.shape[2:]) == kernel and weight.dtype == x.dtype
        whole = [part.float() for part in (x, weight, bias)]  # A CPU takes minutes for FP16.
        return Layer(lambda layer: functional.conv2d(*whole, layer.stride_nd, layer.padding_nd).to(x.dtype))

    def add_activation(self, x, kind):
        assert kind == "relu"
        return Layer(lambda layer: torch.relu(x))

    def add_pooling_nd(self, x, kind, size):
        assert kind == "max"
        return Layer(lambda layer: functional.max_pool2d(x, size, layer.stride_nd, layer.padding_nd))

    def add_elementwise(self, x, y, kind):
        assert kind == "sum" and x.shape == y.shape and x.dtype == y.dtype
        return Layer(lambda layer: x + y)

    def add_concatenation(self, parts):
        return Layer(lambda layer: torch.cat(parts, layer.axis))

    def add_shuffle(self, x):
        return Layer(lambda layer: x.reshape(layer.reshape_dims))

    def add_cast(self, x, to):
        return Layer(lambda layer: x.to(to))

    def mark_output(self, x):
        self.outputs.append(x)


def written(form: FusedSSD300, images: Tensor) -> Tensor:
    tensorrt = SimpleNamespace(
        float16=torch.float16,
        float32=torch.float32,
        Weights=torch.from_numpy,
        ActivationType=SimpleNamespace(RELU="relu"),
        PoolingType=SimpleNamespace(MAX="max"),
        ElementWiseOperation=SimpleNamespace(SUM="sum"),
    )
    network = Network(images)
    with torch.no_grad():
        native.Writer(tensorrt, network).write(form, len(images))
    (found,) = network.outputs
    assert found.name == "joined"
    return found.as_subclass(Tensor)


@pytest.mark.parametrize("projections", [True, False])
def test_what_is_written_is_the_network(model, projections):
    images = synthetic_images(2, seed=5)
    form = FusedSSD300(model, projections=projections)
    with torch.no_grad():
        assert torch.equal(written(form, images), form(images))


def test_in_half_all_but_the_edges_is_half(model):
    images = synthetic_images(1, seed=5)
    with torch.no_grad():
        expected = FusedSSD300(model)(images)
    found = written(FusedSSD300(model, torch.float16), images)
    assert found.dtype == torch.float32
    assert 5e-4 < (found - expected).norm() / expected.norm() < 1e-2


def test_another_module_is_refused(model):
    form = FusedSSD300(model)
    form.additional_blocks[2][2] = torch.nn.Sigmoid()
    with pytest.raises(TypeError, match="^Sigmoid is no part of FusedSSD300$"):
        written(form, synthetic_images(1, seed=5))
