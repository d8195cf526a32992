"""The network through TensorRT's own API, whose builder may run kernels beside each other on several streams."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from ssdtrt import config, torchscript, trt
from ssdtrt.errors import CompileError
from ssdtrt.fused import FusedNetwork, FusedSSD300, JoinedNetwork, ProjectedBlock
from ssdtrt.model.backbone import ResNet50Features
from ssdtrt.model.ssd import SSD300
from ssdtrt.timings import keep, read

IMAGES, JOINED = "images", "joined"
NEEDED = ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "BuilderFlag.FP16", "IBuilderConfig.max_aux_streams")


def form_of(model: SSD300, inside: torch.dtype, size: int) -> FusedSSD300:
    """The form of the model whose engine for `size` images at once is the fastest.

    In a small batch no kernel fills the GPU, and what runs beside another one costs nothing: projections stay apart.
    """
    return FusedSSD300(model, inside, projections=size >= config.APART_BELOW)


def build(
    form: FusedSSD300,
    size: int,
    streams: int,
    workspace_mib: int,
    device: torch.device,
    joined: bool | None = None,
    timings: Path | None = None,
) -> nn.Module:
    """The form around one engine: images [size, 3, 300, 300] -> (loc [size, 4, A], conf [size, C, A]), float32.

    TensorRT may use `streams` streams beside the one it is called on. It computes in the type of the form's weights.
    The maps of the levels are `joined` inside the engine or, by default for a small batch, by torch: then each is ready
    as soon as its head is. The kernels' times are read from the file `timings`, where there is one, and kept in it.
    Holds the interpreter lock for minutes. Raises CompileError, also with what TensorRT said.
    """
    torch_tensorrt = trt.import_torch_tensorrt()
    trt.check_front_end(torch_tensorrt)
    import tensorrt  # Torch-TensorRT brings it.

    check_api(tensorrt)
    joined = size >= config.APART_BELOW if joined is None else joined
    plan, known = serialized(tensorrt, form, size, streams, workspace_mib, joined, read(timings))
    keep(timings, known)
    module = torch_tensorrt.ts.embed_engine_in_new_module(
        plan,
        input_binding_names=[IMAGES],
        output_binding_names=[JOINED] if joined else [map_name(level) for level in range(len(form.heads))],
        device=torch_tensorrt.Device(str(device)),
    )
    module = torchscript.reload(module)
    return FusedNetwork(module) if joined else JoinedNetwork(module, form.channels)


def check_api(tensorrt) -> None:
    """Raises CompileError for a TensorRT whose API is another than the one that is called here."""
    for name in NEEDED:
        owner, attribute = name.split(".")
        if not hasattr(getattr(tensorrt, owner, None), attribute):
            raise CompileError(
                f"TensorRT {tensorrt.__version__} has no {name}, which an engine with more streams is built with; "
                "known to work: TensorRT 8.6. Build without --streams."
            )


def map_name(level: int) -> str:
    """What the engine calls the map of a level, 0 to 5."""
    return f"map{level}"


def serialized(
    tensorrt, form: FusedSSD300, size: int, streams: int, workspace_mib: int, joined: bool, timings: bytes
) -> tuple[bytes, bytes]:
    """The engine and the kernels' times, both as TensorRT writes them.

    Raises CompileError with the first thing that TensorRT called an error.
    """

    class Log(tensorrt.ILogger):
        """Keeps what went wrong, and shows it and the warnings."""

        def __init__(self):
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity, message):
            if severity <= tensorrt.ILogger.ERROR:
                self.errors.append(message)
            if severity <= tensorrt.ILogger.WARNING:
                print(f"TensorRT: {message}", file=sys.stderr)

    log = Log()
    builder = tensorrt.Builder(log)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    writer = Writer(tensorrt, network)  # Holds the weights until the engine is built.
    writer.write(form, size, joined)
    settings = builder.create_builder_config()
    if form.inside == torch.float16:
        settings.set_flag(tensorrt.BuilderFlag.FP16)
    settings.clear_flag(tensorrt.BuilderFlag.TF32)
    settings.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    settings.avg_timing_iterations = trt.timing_iterations(size)
    settings.max_aux_streams = streams
    known = settings.create_timing_cache(timings)
    settings.set_timing_cache(known, False)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        reason = log.errors[0].splitlines()[0] if log.errors else "it did not say why"
        raise CompileError(f"TensorRT could not build the engine ({reason}).")
    return bytes(plan), bytes(known.serialize())


class Writer:
    """Writes a FusedSSD300 into a TensorRT network, layer by layer, in the type that its weights have."""

    def __init__(self, tensorrt, network):
        self.tensorrt, self.network, self.held = tensorrt, network, []

    def write(self, form: FusedSSD300, size: int, joined: bool) -> None:
        """The whole network for `size` images, from them to the heads' maps, joined or one by one, all in float32."""
        shape = size, 3, config.IMAGE_SIZE, config.IMAGE_SIZE
        features = self.network.add_input(IMAGES, self.tensorrt.float32, shape)
        if form.inside == torch.float16:
            features = self.cast(features, self.tensorrt.float16)
        features = self.run(features, form.feature_extractor)
        maps = [self.run(features, form.heads[0])]
        for block, head in zip(form.additional_blocks, form.heads[1:]):
            features = self.run(features, block)
            maps.append(self.run(features, head))
        if joined:
            rows = [self.reshaped(one, (size, form.channels, k)) for one, k in zip(maps, form.boxes_per_map)]
            whole = self.joined(rows, axis=2)
            self.output(self.cast(whole, self.tensorrt.float32) if form.inside == torch.float16 else whole, JOINED)
        else:
            for level, one in enumerate(maps):
                self.output(one, map_name(level))

    def output(self, x, name: str) -> None:
        """Gives `x` out in float32; where it is half, its type and its layout are changed in one kernel."""
        x.name = name
        self.network.mark_output(x)
        x.dtype = self.tensorrt.float32

    def run(self, x, module: nn.Module):
        """What the module makes of `x`."""
        kind = self.tensorrt
        if isinstance(module, nn.Sequential):
            for child in module:
                x = self.run(x, child)
            return x
        if isinstance(module, ResNet50Features):
            return self.run(x, module.feature_extractor)
        if isinstance(module, nn.Identity):
            return x
        if isinstance(module, nn.Conv2d):
            return self.convolution(x, module)
        if isinstance(module, nn.ReLU):
            return self.network.add_activation(x, kind.ActivationType.RELU).get_output(0)
        if isinstance(module, nn.MaxPool2d):
            layer = self.network.add_pooling_nd(x, kind.PoolingType.MAX, pair(module.kernel_size))
            layer.stride_nd, layer.padding_nd = pair(module.stride), pair(module.padding)
            return layer.get_output(0)
        if isinstance(module, (Bottleneck, ProjectedBlock)):
            y = self.run(self.run(x, module.conv1), module.relu)
            y = self.run(self.run(y, module.conv2), module.relu)
            if isinstance(module, ProjectedBlock):
                y = self.run(self.joined([y, x], axis=1), module.conv3)
            else:
                x = x if module.downsample is None else self.run(x, module.downsample)
                y = self.network.add_elementwise(self.run(y, module.conv3), x, kind.ElementWiseOperation.SUM).get_output(0)
            return self.run(y, module.relu)
        raise TypeError(f"{type(module).__name__} is no part of FusedSSD300")

    def convolution(self, x, module: nn.Conv2d):
        """A convolution with its bias."""
        weight, bias = (self.weights(part) for part in (module.weight, module.bias))
        layer = self.network.add_convolution_nd(x, module.out_channels, module.kernel_size, weight, bias)
        layer.stride_nd, layer.padding_nd = module.stride, module.padding
        return layer.get_output(0)

    def weights(self, tensor: torch.Tensor):
        """A tensor's values; TensorRT reads them while it builds, not here."""
        self.held.append(np.ascontiguousarray(tensor.detach().cpu().numpy()))
        return self.tensorrt.Weights(self.held[-1])

    def cast(self, x, to):
        """`x` in another type."""
        return self.network.add_cast(x, to).get_output(0)

    def reshaped(self, x, shape: tuple[int, ...]):
        """`x` in another shape."""
        layer = self.network.add_shuffle(x)
        layer.reshape_dims = shape
        return layer.get_output(0)

    def joined(self, parts: list, axis: int):
        """Tensors one after the other along an axis."""
        layer = self.network.add_concatenation(parts)
        layer.axis = axis
        return layer.get_output(0)


def pair(number: int | tuple[int, int]) -> tuple[int, int]:
    """A length for both sides, as TensorRT takes it."""
    return (number, number) if isinstance(number, int) else number
