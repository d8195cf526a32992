"""TensorRT's network, as far as `NetworkWriter` uses it, that runs its layers with torch."""

import itertools
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional


class Layer:
    """A layer that computes its output when `get_output` is called, after its settings are made."""

    numbers, axis = itertools.count(), None

    def __init__(self, output):
        self.output = output

    def set_input(self, index, tensor):
        assert index == 1
        self.weight = tensor

    def get_output(self, index):
        assert index == 0
        output = self.output(self).as_subclass(Named)
        output.name = f"tensor {next(Layer.numbers)}"
        return output


class Named(Tensor):
    """A tensor with a name."""

    name = ""


class Network:
    """TensorRT's network as far as `NetworkWriter` uses it, run by torch. Strict about dtypes, as TensorRT is."""

    def __init__(self, images, any_size, typed=False):
        self.images, self.any_size, self.typed, self.outputs = images.as_subclass(Named), any_size, typed, []
        self.quantized = []  # the tensors that are

    def add_input(self, name, dtype, shape):
        size = -1 if self.any_size else len(self.images)
        assert (name, dtype, shape) == ("images", torch.float32, (size, *self.images.shape[1:]))
        return self.images

    def add_convolution_nd(self, x, channels, kernel, weight, bias):
        if weight is None:
            assert x.dtype == bias.dtype == torch.float32 and len(bias) == channels
            return Layer(lambda layer: functional.conv2d(x, layer.weight, bias, layer.stride_nd, layer.padding_nd))
        assert (
            weight.shape[0] == bias.shape[0] == channels
            and tuple(weight.shape[2:]) == kernel
            and weight.dtype == x.dtype
        )
        whole = [part.float() for part in (x, weight, bias)]  # FP16 takes minutes on a CPU.
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

    def add_constant(self, shape, values):
        assert values.dtype == torch.float32
        return Layer(lambda layer: values.reshape(shape))

    def add_quantize(self, x, scale, *dtype):
        """TensorRT 8.6 takes no type, and newer ones want it."""
        assert x.dtype == torch.float32 and dtype == ((torch.int8,) if self.typed else ())
        self.quantized.append((x.name, scale.flatten().tolist()))
        return Layer(lambda layer: (x / along(layer, scale)).round().clamp(-128, 127).to(torch.int8))

    def add_dequantize(self, x, scale, *dtype):
        assert x.dtype == torch.int8 and dtype == ((torch.float32,) if self.typed else ())
        return Layer(lambda layer: x.float() * along(layer, scale))

    def mark_output(self, x):
        self.outputs.append(x)


def along(layer, scale):
    """The scale in the place of the layer's axis; without one it is a single number."""
    assert (layer.axis, scale.dim()) in ((None, 0), (0, 1))
    return scale if layer.axis is None else scale[:, None, None, None]


def stand_in(**changes):
    """Return the other parts of TensorRT that `NetworkWriter` uses."""
    names = {
        "float16": torch.float16,
        "float32": torch.float32,
        "int8": torch.int8,
        "Weights": lambda array=None: None if array is None else torch.from_numpy(array),
        "ActivationType": SimpleNamespace(RELU="relu"),
        "PoolingType": SimpleNamespace(MAX="max"),
        "ElementWiseOperation": SimpleNamespace(SUM="sum"),
    }
    return SimpleNamespace(**{**names, **changes})
