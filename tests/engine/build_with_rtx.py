"""Build SSD300 with real TensorRT builders that need no GPU, and write what the engines are.

For a process of its own, which has the folder of a TensorRT-RTX first on its path. The models are files that torch.load
reads. Writes a JSON object: `writer` has for each build of the full one the bytes of the engine, its first four, and how
many layers compute in which dtype; `int8` has the layers of the narrow one quantized, but for KEPT; `front_end` has the
bytes of what Torch-TensorRT's TorchScript front end builds of the narrow one.
"""

import collections
import json

import tensorrt_rtx
import torch

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine import tensorrt_backend
from ssdtrt.engine.network_writer import NetworkWriter
from ssdtrt.engine.tensorrt_backend import BuildLimits, serialize
from ssdtrt.engine.torch_tensorrt_backend import _compile_arguments
from ssdtrt.errors import BuilderError
from ssdtrt.rewriting.fused import FusedSSD300, trace
from ssdtrt.rewriting.quantized import quantize, quantized_tensors
from ssdtrt.runners import runtime

HALF = torch.float16
ONE = BatchRange.parse(1)
KEPT = ["heads.0", "feature_extractor.feature_extractor.4.1.conv3"]
CASES = {
    "fp16, batch 1": (HALF, "1", 4),
    "fp16, batch 8": (HALF, "8", 0),
    "fp16, batches 1 to 32": (HALF, "1:8:32", 0),
    "fp32, batch 1": (torch.float32, "1", 0),
}


class WatchedWriter(NetworkWriter):
    """Records the layers of the last network that was written, and the shapes of its input and output."""

    layers: dict = {}
    shapes: tuple = ()

    def write(self, fused, batch):
        super().write(fused, batch)
        layers = [self.network.get_layer(number) for number in range(self.network.num_layers)]
        kinds = (f"{layer.type.name} {layer.get_output(0).dtype.name}" for layer in layers)
        WatchedWriter.layers = collections.Counter(kinds)
        WatchedWriter.shapes = tuple(self.network.get_input(0).shape), tuple(self.network.get_output(0).shape)


def write_and_build(model):
    """Return what the layers and the engine of each case are."""
    built = {}
    for name, (dtype, batch, streams) in CASES.items():
        fused = FusedSSD300(model, dtype)
        plan, _ = serialize(tensorrt_rtx, fused, BatchRange.parse(batch), BuildLimits(streams))
        built[name] = {
            "bytes": len(plan),
            "start": plan[:4].decode("latin-1"),
            "layers": WatchedWriter.layers,
            "shapes": WatchedWriter.shapes,
        }
    return built


def write_quantized(model):
    """Return what the layers of a quantized network are, and why RTX does not build it, which has no INT8 convolutions."""
    tensors = quantized_tensors(FusedSSD300(model, fold_projections=False))
    ranges = {tensor.name: 1 + number / 64 for number, tensor in enumerate(tensors)}
    for name in list(ranges):  # Two layers that read one tensor have one range.
        if name.endswith(".0.downsample.0"):
            ranges[name] = ranges[name.replace("downsample.0", "conv1")]
        if name.startswith("heads.") and name != "heads.5":
            ranges[f"additional_blocks.{name[-1]}.0"] = ranges[name]
    fused = quantize(FusedSSD300(model), ranges, KEPT)
    builder = tensorrt_rtx.Builder(runtime.make_logger(tensorrt_rtx))
    network = builder.create_network(tensorrt_backend._network_flags(tensorrt_rtx))
    writer = WatchedWriter(tensorrt_rtx, network, tensorrt_backend._strongly_typed(tensorrt_rtx))
    writer.write(fused, ONE)
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    maker = {layer.get_output(0).name: layer for layer in layers}

    def made_by(tensor):
        """The kinds of the layers that a tensor comes from, the last first, and its dtype."""
        kinds = []
        while tensor.name in maker and len(kinds) < 3:
            kinds.append(maker[tensor.name].type.name)
            tensor = maker[tensor.name].get_input(0)
            if tensor is None:
                break
        return kinds

    convolutions, pairs = {}, []
    for layer in layers:
        if layer.type.name == "CONVOLUTION":
            given = [layer.get_input(number) for number in range(layer.num_inputs)]
            kinds = [[*made_by(tensor), tensor.dtype.name] for tensor in given if tensor is not None]
            readers = [other.type.name for other in layers if reads(other, layer.get_output(0).name)]
            convolutions[layer.name] = [kinds, readers]
        if layer.type.name == "QUANTIZE":
            pairs.append([layer.get_input(0).name, layer.get_output(0).dtype.name])
    try:
        serialize(tensorrt_rtx, fused, ONE, BuildLimits())
        refused = None
    except BuilderError as error:
        refused = str(error)
    return {"layers": WatchedWriter.layers, "convolutions": convolutions, "quantize": pairs, "refused": refused}


def reads(layer, name):
    given = (layer.get_input(number) for number in range(layer.num_inputs))
    return any(tensor is not None and tensor.name == name for tensor in given)


def build_with_front_end(model):
    """Return the bytes of the FP16 engine that the TorchScript front end builds, and of the FP32 one."""
    gpu = type("Properties", (), {"major": 8, "minor": 9, "name": "none", "total_memory": 1 << 34})()
    replaced = {
        "get_device_capability": lambda device=None: (8, 9),
        "get_device_properties": lambda device=None: gpu,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
    }
    for name, function in replaced.items():  # It asks for the GPU when it is imported.
        setattr(torch.cuda, name, function)
    import torch_tensorrt

    built = {}
    for precision, dtype in (("fp16", HALF), ("fp32", torch.float32)):
        module = trace(FusedSSD300(model, dtype), torch.device("cpu"))
        arguments = _compile_arguments(precision, BatchRange.parse(1), 4096, torch.device("cuda:0"))
        for name in ("ir", "require_full_compilation"):  # Of `torch_tensorrt.compile` only.
            del arguments[name]
        arguments["inputs"] = [torch_tensorrt.Input(**image) for image in arguments["inputs"]]
        arguments["device"] = torch_tensorrt.Device("cuda:0")
        plan = torch_tensorrt.ts.convert_method_to_trt_engine(module, "forward", **arguments)
        built[precision] = len(plan)
    return built


def main(result, full, narrow, front_end):
    tensorrt_backend.NetworkWriter = WatchedWriter
    full, narrow = (torch.load(model, weights_only=False) for model in (full, narrow))
    results = {"version": tensorrt_rtx.__version__, "writer": write_and_build(full), "int8": write_quantized(narrow)}
    if front_end:
        results["front_end"] = build_with_front_end(narrow)
    result.write_text(json.dumps(results))
