"""The back end that builds the network through TensorRT's own API, which can use auxiliary streams."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from ssdtrt import config
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.baseline import eager_model
from ssdtrt.engine.build import BuildJob
from ssdtrt.engine.cache import read_timing_cache, write_timing_cache
from ssdtrt.engine.modules import EngineModule
from ssdtrt.engine.rewrite import FusedNetwork, FusedSSD300, ProjectedBlock
from ssdtrt.engine.torch_tensorrt_backend import timing_iterations
from ssdtrt.errors import CompileError, first_line
from ssdtrt.model.backbone import ResNet50Features

_INPUT_NAME, _OUTPUT_NAME = "images", "loc_conf"
_REQUIRED_API = ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "BuilderFlag.FP16", "IBuilderConfig.max_aux_streams")


def build(job: BuildJob) -> nn.Module:
    """Build the network of a job for a single batch size, with auxiliary streams.

    Raises:
        CompileError: If the build fails; the message has TensorRT's first error.
    """
    request, device = job.request, torch.device(job.device)
    batch = request.batch_range
    assert batch is not None
    torch.cuda.set_device(device)
    fused = FusedSSD300(eager_model(job.module, device), request.computes_in.dtype)
    timing_cache = Path(job.timing_cache) if job.timing_cache else None
    built = build_module(fused, batch.opt, request.streams, request.workspace_mib, device, timing_cache)
    return EngineModule(FusedNetwork(torchscript.reload(built)), torch.float32, batch, channels_last=False)


def build_module(
    fused: FusedSSD300,
    batch_size: int,
    streams: int,
    workspace_mib: int,
    device: torch.device,
    timing_cache: Path | None = None,
) -> torch.jit.ScriptModule:
    """Build a fused network as one TensorRT engine in a TorchScript module.

    The build holds the interpreter lock for minutes.

    Args:
        fused: The network; the engine computes in the dtype of its weights.
        batch_size: The only batch size that the engine takes.
        streams: How many auxiliary streams TensorRT may use.
        workspace_mib: The memory that TensorRT may use while it chooses kernels, in MiB.
        device: The GPU to build on. It must be the current one.
        timing_cache: The file of the timing cache, which is read and written; None for none.

    Returns:
        A module: images [batch_size, 3, 300, 300] -> [batch_size, 4 + C, A], both float32.

    Raises:
        CompileError: If the build fails; the message has TensorRT's first error.
    """
    runtime.check_front_end(runtime.import_torch_tensorrt())
    import tensorrt  # A dependency of Torch-TensorRT.

    _check_api(tensorrt)
    plan, timings = _serialize(tensorrt, fused, batch_size, streams, workspace_mib, read_timing_cache(timing_cache))
    write_timing_cache(timing_cache, timings)
    return _embed(plan, device)


def _embed(plan: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """Embed a serialized TensorRT engine in a TorchScript module."""
    torch_tensorrt = runtime.import_torch_tensorrt()
    try:
        return torch_tensorrt.ts.embed_engine_in_new_module(
            plan,
            input_binding_names=[_INPUT_NAME],
            output_binding_names=[_OUTPUT_NAME],
            device=torch_tensorrt.Device(str(device)),
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise CompileError(f"Torch-TensorRT could not embed the engine ({first_line(error)}).") from error


def _check_api(tensorrt: ModuleType) -> None:
    """Raise CompileError if TensorRT lacks a part of the API that the build uses."""
    for name in _REQUIRED_API:
        owner, attribute = name.split(".")
        if not hasattr(getattr(tensorrt, owner, None), attribute):
            raise CompileError(
                f"TensorRT {tensorrt.__version__} has no {name}, which engines with auxiliary streams need "
                "(TensorRT 8.6 has it). Build without --streams."
            )


def _serialize(
    tensorrt: ModuleType,
    fused: FusedSSD300,
    batch_size: int,
    streams: int,
    workspace_mib: int,
    timing_cache: bytes,
) -> tuple[bytes, bytes]:
    """Return the serialized engine and the new timing cache; raise CompileError with TensorRT's first error."""
    logger = _make_logger(tensorrt)
    try:
        return _build_plan(tensorrt, logger, fused, batch_size, streams, workspace_mib, timing_cache)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:  # Its functions return None on failure.
        reason = next(filter(None, logger.errors), "").split("\n")[0] or first_line(error)
        raise CompileError(f"TensorRT could not build the engine ({reason}).") from error


def _make_logger(tensorrt: ModuleType) -> Any:
    """Return a TensorRT logger that prints warnings and errors to stderr and collects the errors in `errors`."""

    class Logger(tensorrt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.ERROR:
                self.errors.append(message)
            if severity <= tensorrt.ILogger.WARNING:
                print(f"TensorRT: {message}", file=sys.stderr)

    return Logger()


def _build_plan(
    tensorrt: ModuleType,
    logger: Any,
    fused: FusedSSD300,
    batch_size: int,
    streams: int,
    workspace_mib: int,
    timing_cache: bytes,
) -> tuple[bytes, bytes]:
    """Return the serialized engine and the new timing cache; raise what TensorRT raises, or RuntimeError."""
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    writer = _NetworkWriter(tensorrt, network)  # Must stay alive, with the weights, until the engine is built.
    writer.write(fused, batch_size)
    settings = builder.create_builder_config()
    if fused.compute_dtype == torch.float16:
        settings.set_flag(tensorrt.BuilderFlag.FP16)
    settings.clear_flag(tensorrt.BuilderFlag.TF32)
    settings.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    settings.avg_timing_iterations = timing_iterations(batch_size)
    settings.max_aux_streams = streams
    cache = settings.create_timing_cache(timing_cache)
    if cache is None or not settings.set_timing_cache(cache, False):  # One of another GPU or version.
        cache = settings.create_timing_cache(b"")
        settings.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise RuntimeError("no reason reported")
    return bytes(plan), bytes(cache.serialize())


class _NetworkWriter:
    """Add the layers of a FusedSSD300 to a TensorRT network, in the dtype of its weights."""

    def __init__(self, tensorrt: ModuleType, network: Any) -> None:
        self.tensorrt, self.network = tensorrt, network
        self.weights: list[np.ndarray] = []

    def write(self, fused: FusedSSD300, batch_size: int) -> None:
        """Add the whole network: input [batch_size, 3, 300, 300], output [batch_size, 4 + C, A], both float32."""
        shape = batch_size, 3, config.IMAGE_SIZE, config.IMAGE_SIZE
        half = fused.compute_dtype == torch.float16
        images = self.network.add_input(_INPUT_NAME, self.tensorrt.float32, shape)
        features = self._add(self._cast(images, self.tensorrt.float16) if half else images, fused.feature_extractor)
        maps = [self._add(features, fused.heads[0])]
        for block, head in zip(fused.additional_blocks, fused.heads[1:]):
            features = self._add(features, block)
            maps.append(self._add(features, head))
        rows = [self._reshape(x, (batch_size, fused.channels, k)) for x, k in zip(maps, fused.boxes_per_map)]
        output = self._concatenate(rows, axis=2)
        if half:
            output = self._cast(output, self.tensorrt.float32)
        output.name = _OUTPUT_NAME
        self.network.mark_output(output)

    def _add(self, x: Any, module: nn.Module) -> Any:
        """Add the layers of a module, and return its output for `x`."""
        tensorrt = self.tensorrt
        if isinstance(module, nn.Sequential):
            for child in module:
                x = self._add(x, child)
            return x
        if isinstance(module, ResNet50Features):
            return self._add(x, module.feature_extractor)
        if isinstance(module, nn.Identity):
            return x
        if isinstance(module, nn.Conv2d):
            return self._add_convolution(x, module)
        if isinstance(module, nn.ReLU):
            return self.network.add_activation(x, tensorrt.ActivationType.RELU).get_output(0)
        if isinstance(module, nn.MaxPool2d):
            layer = self.network.add_pooling_nd(x, tensorrt.PoolingType.MAX, _pair(module.kernel_size))
            layer.stride_nd, layer.padding_nd = _pair(module.stride), _pair(module.padding)
            return layer.get_output(0)
        if isinstance(module, (Bottleneck, ProjectedBlock)):
            return self._add_block(x, module)
        raise TypeError(f"{type(module).__name__} is not a layer of FusedSSD300")

    def _add_block(self, x: Any, block: Bottleneck | ProjectedBlock) -> Any:
        """Add a bottleneck block, whose projection may be folded."""
        y = self._add(self._add(x, block.conv1), block.relu)
        y = self._add(self._add(y, block.conv2), block.relu)
        if isinstance(block, ProjectedBlock):
            y = self._add(self._concatenate([y, x], axis=1), block.conv3)
        else:
            x = x if block.downsample is None else self._add(x, block.downsample)
            addition = self.tensorrt.ElementWiseOperation.SUM
            y = self.network.add_elementwise(self._add(y, block.conv3), x, addition).get_output(0)
        return self._add(y, block.relu)

    def _add_convolution(self, x: Any, module: nn.Conv2d) -> Any:
        weight, bias = (self._weights_of(part) for part in (module.weight, module.bias))
        layer = self.network.add_convolution_nd(x, module.out_channels, module.kernel_size, weight, bias)
        layer.stride_nd, layer.padding_nd = module.stride, module.padding
        return layer.get_output(0)

    def _weights_of(self, tensor: torch.Tensor | None) -> Any:
        """Return a tensor as TensorRT weights, and keep its array, which TensorRT reads during the build."""
        assert tensor is not None
        self.weights.append(np.ascontiguousarray(tensor.detach().cpu().numpy()))
        return self.tensorrt.Weights(self.weights[-1])

    def _cast(self, x: Any, dtype: Any) -> Any:
        return self.network.add_cast(x, dtype).get_output(0)

    def _reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        layer = self.network.add_shuffle(x)
        layer.reshape_dims = shape
        return layer.get_output(0)

    def _concatenate(self, parts: list[Any], axis: int) -> Any:
        layer = self.network.add_concatenation(parts)
        layer.axis = axis
        return layer.get_output(0)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width)."""
    return (size, size) if isinstance(size, int) else size
