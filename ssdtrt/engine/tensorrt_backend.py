"""The network through TensorRT's own API, whose builder may run kernels beside each other on several streams."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from ssdtrt import config
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.baseline import eager_model
from ssdtrt.engine.build import BuildJob
from ssdtrt.engine.cache import keep_timing_cache, read_timing_cache
from ssdtrt.engine.modules import EngineModule
from ssdtrt.engine.rewrite import FusedNetwork, FusedSSD300, ProjectedBlock
from ssdtrt.engine.torch_tensorrt_backend import timing_iterations
from ssdtrt.errors import CompileError, first_line
from ssdtrt.model.backbone import ResNet50Features

IMAGES, JOINED = "images", "joined"
NEEDED = ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "BuilderFlag.FP16", "IBuilderConfig.max_aux_streams")


def build(job: BuildJob) -> nn.Module:
    """Build the network for one batch size, with auxiliary streams. Raises CompileError, also with what TensorRT said."""
    request, device = job.request, torch.device(job.device)
    batch = request.batch_range
    assert batch is not None
    torch.cuda.set_device(device)
    network = FusedSSD300(eager_model(job.module, device), request.computes_in.dtype)
    known = Path(job.timing_cache) if job.timing_cache else None
    built = build_module(network, batch.opt, request.streams, request.workspace_mib, device, known)
    return EngineModule(FusedNetwork(torchscript.reload(built)), torch.float32, batch, channels_last=False)


def build_module(
    form: FusedSSD300, size: int, streams: int, workspace_mib: int, device: torch.device, known: Path | None = None
) -> torch.jit.ScriptModule:
    """The form as one engine in a TorchScript module: images [size, 3, 300, 300] -> [size, 4 + C, A], both float32.

    TensorRT may use `streams` auxiliary streams, and computes in the type of the form's weights. It builds on the
    current GPU, which has to be `device`. The kernels' times are read from the file `known`, where there is one, and
    kept in it. Holds the interpreter lock for minutes. Raises CompileError, also with what TensorRT said.
    """
    runtime.check_front_end(runtime.import_torch_tensorrt())
    import tensorrt  # Torch-TensorRT brings it.

    check_api(tensorrt)
    plan, times = serialized(tensorrt, form, size, streams, workspace_mib, read_timing_cache(known))
    keep_timing_cache(known, times)
    return embed(plan, IMAGES, JOINED, device)


def embed(plan: bytes, images: str, output: str, device: torch.device) -> torch.jit.ScriptModule:
    """An engine that TensorRT itself wrote, with one input and one output of these names, in a TorchScript module.

    Raises CompileError.
    """
    torch_tensorrt = runtime.import_torch_tensorrt()
    target = torch_tensorrt.Device(str(device))
    try:
        return torch_tensorrt.ts.embed_engine_in_new_module(
            plan, input_binding_names=[images], output_binding_names=[output], device=target
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise CompileError(f"Torch-TensorRT could not take the engine ({first_line(error)}).") from error


def check_api(tensorrt) -> None:
    """Raises CompileError for a TensorRT whose API is another than the one that is called here."""
    for name in NEEDED:
        owner, attribute = name.split(".")
        if not hasattr(getattr(tensorrt, owner, None), attribute):
            raise CompileError(
                f"TensorRT {tensorrt.__version__} has no {name}, which an engine with more streams is built with; "
                "known to work: TensorRT 8.6. Build without --streams."
            )


def serialized(
    tensorrt, form: FusedSSD300, size: int, streams: int, workspace_mib: int, times: bytes
) -> tuple[bytes, bytes]:
    """The engine and the kernels' times, both as TensorRT writes them.

    Raises CompileError with the first thing that TensorRT called an error.
    """
    log = new_log(tensorrt)
    try:
        return build_plan(tensorrt, log, form, size, streams, workspace_mib, times)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:  # It gives None for what it refuses.
        reason = next(filter(None, log.errors), "").split("\n")[0] or first_line(error)
        raise CompileError(f"TensorRT could not build the engine ({reason}).") from error


def new_log(tensorrt):
    """A log for TensorRT, whose `errors` keeps what went wrong; that and warnings are shown."""

    class Log(tensorrt.ILogger):  # type: ignore[name-defined]
        def __init__(self):
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity, message):
            if severity <= tensorrt.ILogger.ERROR:
                self.errors.append(message)
            if severity <= tensorrt.ILogger.WARNING:
                print(f"TensorRT: {message}", file=sys.stderr)

    return Log()


def build_plan(
    tensorrt, log, form: FusedSSD300, size: int, streams: int, workspace_mib: int, times: bytes
) -> tuple[bytes, bytes]:
    """The engine and the kernels' times. Raises what TensorRT's Python raises, or RuntimeError."""
    builder = tensorrt.Builder(log)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    writer = Writer(tensorrt, network)  # Holds the weights until the engine is built.
    writer.write(form, size)
    settings = builder.create_builder_config()
    if form.inside == torch.float16:
        settings.set_flag(tensorrt.BuilderFlag.FP16)
    settings.clear_flag(tensorrt.BuilderFlag.TF32)
    settings.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    settings.avg_timing_iterations = timing_iterations(size)
    settings.max_aux_streams = streams
    cache = settings.create_timing_cache(times)
    if cache is None or not settings.set_timing_cache(cache, False):  # Times that it does not take for its own.
        cache = settings.create_timing_cache(b"")
        settings.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise RuntimeError("it did not say why")
    return bytes(plan), bytes(cache.serialize())


class Writer:
    """Writes a FusedSSD300 into a TensorRT network, layer by layer, in the type that its weights have."""

    def __init__(self, tensorrt, network):
        self.tensorrt, self.network, self.held = tensorrt, network, []

    def write(self, form: FusedSSD300, size: int) -> None:
        """The whole network for `size` images, from them to the joined maps, both float32."""
        shape = size, 3, config.IMAGE_SIZE, config.IMAGE_SIZE
        half = form.inside == torch.float16
        images = self.network.add_input(IMAGES, self.tensorrt.float32, shape)
        features = self.run(self.cast(images, self.tensorrt.float16) if half else images, form.feature_extractor)
        maps = [self.run(features, form.heads[0])]
        for block, head in zip(form.additional_blocks, form.heads[1:]):
            features = self.run(features, block)
            maps.append(self.run(features, head))
        rows = [self.reshaped(one, (size, form.channels, k)) for one, k in zip(maps, form.boxes_per_map)]
        joined = self.joined(rows, axis=2)
        if half:
            joined = self.cast(joined, self.tensorrt.float32)
        joined.name = JOINED
        self.network.mark_output(joined)

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
                y = self.network.add_elementwise(
                    self.run(y, module.conv3), x, kind.ElementWiseOperation.SUM
                ).get_output(0)
            return self.run(y, module.relu)
        raise TypeError(f"{type(module).__name__} is no part of FusedSSD300")

    def convolution(self, x, module: nn.Conv2d):
        """A convolution with its bias."""
        weight, bias = (self.weights(part) for part in (module.weight, module.bias))
        layer = self.network.add_convolution_nd(x, module.out_channels, module.kernel_size, weight, bias)
        layer.stride_nd, layer.padding_nd = module.stride, module.padding
        return layer.get_output(0)

    def weights(self, tensor: torch.Tensor | None):
        """A tensor's values; TensorRT reads them while it builds, not here."""
        assert tensor is not None
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
