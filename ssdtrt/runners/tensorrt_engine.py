"""Run a serialized TensorRT engine through TensorRT's own runtime, on torch's memory."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ssdtrt.errors import ArtifactError
from ssdtrt.system.devices import current_device


class TensorRTEngine:
    """A serialized engine of a FusedSSD300 on a GPU: images [N, 3, 300, 300] -> [N, 4 + C, A], both float32.

    The weights are on the device once. Each context runs one batch size at a time, with activations of its own.

    Args:
        plan: The serialized engine.
        device: The GPU that it was built for.

    Raises:
        ArtifactError: If TensorRT cannot read it.
    """

    def __init__(self, plan: bytes, device: torch.device):
        import tensorrt

        self.device = device
        logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        with current_device(device):
            self._runtime = tensorrt.Runtime(logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ArtifactError("TensorRT cannot read this engine; it names the reason above. Build it again.")
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        mode = {name: self._engine.get_tensor_mode(name) for name in names}
        (self.input_name,) = (name for name in names if mode[name] == tensorrt.TensorIOMode.INPUT)
        (self.output_name,) = (name for name in names if mode[name] == tensorrt.TensorIOMode.OUTPUT)

    def context(self) -> ExecutionContext:
        """Return a new execution context."""
        with current_device(self.device):
            return ExecutionContext(self)


class ExecutionContext:
    """An execution context of an engine, which is called with images on its device."""

    def __init__(self, engine: TensorRTEngine):
        self.engine = engine
        self._context = engine._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError("CUDA out of memory: TensorRT could not create an execution context")
        self._shape: tuple[int, ...] = ()
        self._stream = torch.cuda.Stream(engine.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the output [N, 4 + C, A], float32, of images [N, 3, 300, 300], float32."""
        engine, images = self.engine, images.contiguous()
        if images.shape != self._shape:
            self._shape = tuple(images.shape)
            self._require(self._context.set_input_shape(engine.input_name, self._shape))
        shape = tuple(self._context.get_tensor_shape(engine.output_name))
        output = torch.empty(shape, device=engine.device)
        self._require(self._context.set_tensor_address(engine.input_name, images.data_ptr()))
        self._require(self._context.set_tensor_address(engine.output_name, output.data_ptr()))
        caller = torch.cuda.current_stream(engine.device)
        if caller.cuda_stream:
            self._require(self._context.execute_async_v3(caller.cuda_stream))
            return output
        self._stream.wait_stream(caller)  # On the default stream TensorRT would wait for the device.
        self._require(self._context.execute_async_v3(self._stream.cuda_stream))
        caller.wait_stream(self._stream)
        for tensor in (images, output):
            tensor.record_stream(self._stream)
        return output

    def _require(self, done: bool) -> None:
        if not done:
            raise RuntimeError(f"TensorRT refused to run batch {self._shape[0]}; it names the reason above")


class PaddedNetwork:
    """An engine's outputs split into `loc` and `conf`, with a context for each batch size.

    Args:
        engine: The engine.
        min_batch: The smallest batch size that it takes; smaller batches are padded with zeros.
    """

    def __init__(self, engine: TensorRTEngine, min_batch: int):
        self.engine, self.min_batch = engine, min_batch

    def for_batch(self, count: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return the network for batches of `count` images: images -> (loc [N, 4, A], conf [N, C, A])."""
        context, missing = self.engine.context(), max(self.min_batch - count, 0)

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            images = images.float()
            if missing:
                images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
            output = context(images)
            return output[:count, :4], output[:count, 4:]

        return run


def embedded_plan(module: torch.jit.ScriptModule) -> bytes | None:
    """Return the serialized engine in a module that Torch-TensorRT made; None if it is not where it is expected.

    Torch-TensorRT pickles its engines as a list of texts, the longest of which is the serialized engine in base64.
    """
    parts: Iterable[Any] = module.modules()
    for part in parts:
        nodes = part.graph.nodes() if part._c._has_method("forward") else ()
        for node in nodes:
            if node.kind() == "prim::GetAttr" and "tensorrt.Engine" in str(node.output().type()):
                engine = part._c.getattr(node.s("name"))
                with contextlib.suppress(ValueError):  # Not in base64.
                    return base64.b64decode(max(engine.__getstate__(), key=len), validate=True)
    return None
