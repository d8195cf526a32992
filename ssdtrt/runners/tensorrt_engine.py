"""Run a serialized TensorRT engine through TensorRT's own runtime, on memory of torch."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt.errors import ArtifactError
from ssdtrt.formats.plan_file import MAGIC
from ssdtrt.runners import runtime
from ssdtrt.system.devices import current_device
from ssdtrt.system.gpu_errors import gpu_errors

# A text in a pickle is this byte, its length in four, and the text; here one that begins as a plan does, with a letter and
# "trt", as it is or in base64.
_PLAN_TEXT = re.compile(rb"X(.{4})(?=.trt|.[HXn3]Ryd)", re.DOTALL)


class TensorRTEngine:
    """A deserialized engine of a FusedSSD300, whose weights are on the device once for all of its execution contexts.

    Its contexts also share the memory of their activations, so that their calls must be in one stream.

    Args:
        plan: The serialized engine.
        device: The GPU, of the kind that it was built for.

    Attributes:
        engine: The `ICudaEngine`.

    Raises:
        ArtifactError: If TensorRT refuses the engine.
    """

    def __init__(self, plan: bytes, device: torch.device):
        self.tensorrt, self.device = runtime.import_tensorrt(), device
        self._logger = runtime.make_logger(self.tensorrt)
        with current_device(device):
            self._runtime = self.tensorrt.Runtime(self._logger)
            self.engine = self._runtime.deserialize_cuda_engine(plan)
            if self.engine is None:
                raise ArtifactError(f"TensorRT cannot load the engine ({self._reason()}). Build it again.")
            self._size = max(1, getattr(self.engine, "device_memory_size_v2", None) or self.engine.device_memory_size)
            self._memory = torch.empty(self._size, dtype=torch.uint8, device=device)
        names = [self.engine.get_tensor_name(number) for number in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == self.tensorrt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ArtifactError(f"The engine has the tensors {', '.join(names)}; expected one input and one output.")
        self.input_name, self.output_name = inputs[0], outputs[0]

    def new_context(self) -> Any:
        """Return a new `IExecutionContext`.

        Raises:
            ArtifactError: If TensorRT cannot create one.
        """
        strategies = getattr(self.tensorrt, "ExecutionContextAllocationStrategy", None)
        with current_device(self.device):
            if strategies is not None:
                context = self.engine.create_execution_context(strategies.USER_MANAGED)
            else:  # TensorRT 8.6
                context = self.engine.create_execution_context_without_device_memory()
            if context is None:
                raise ArtifactError(f"TensorRT could not create an execution context ({self._reason()}).")
            if hasattr(context, "set_device_memory"):
                context.set_device_memory(self._memory.data_ptr(), self._size)
            else:  # TensorRT 8.6 and 10.0
                context.device_memory = self._memory.data_ptr()
        return context

    def _reason(self) -> str:
        """Return the first line of TensorRT's first error."""
        return str(next(iter(self._logger.errors), "no reason reported")).split("\n")[0]


class PlanNetwork:
    """An execution context of an engine as a network: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    Args:
        engine: The engine.
        min_batch: The smallest batch size that it takes; smaller batches are padded with zeros.
    """

    def __init__(self, engine: TensorRTEngine, min_batch: int):
        self.engine, self.min_batch = engine, min_batch
        self._context, self._shape = engine.new_context(), torch.Size()
        self._stream = torch.cuda.Stream(engine.device)

    def another(self) -> PlanNetwork:
        """Return a network with another execution context of the same engine, as each CUDA graph needs one."""
        return PlanNetwork(self.engine, self.min_batch)

    def attach(self, profiler: Any) -> None:
        """Let a TensorRT `IProfiler` know the time of each layer in a call when `report_layer_times` is called.

        By itself TensorRT 8.6 reports nothing of an engine with auxiliary streams.
        """
        self._context.profiler = self._profiler = profiler  # TensorRT does not keep it alive.
        self._context.enqueue_emits_profile = False

    def report_layer_times(self) -> None:
        """Wait for the last call, and hand the time of each of its layers to the attached profiler."""
        torch.cuda.synchronize(self.engine.device)
        _require(self._context.report_to_profiler(), "a report of the layers' times")

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs, views of one tensor, for images of any floating-point type on the engine's device."""
        count = len(images)
        images = images.float().contiguous()
        if count < self.min_batch:
            images = torch.cat([images, images.new_zeros(self.min_batch - count, *images.shape[1:])])
        output = self._run(images)
        return output[:count, :4], output[:count, 4:]

    def _run(self, images: Tensor) -> Tensor:
        context, engine = self._context, self.engine
        if images.shape != self._shape:
            _require(context.set_input_shape(engine.input_name, tuple(images.shape)), f"the shape {list(images.shape)}")
            self._shape = images.shape
        output = torch.empty(tuple(context.get_tensor_shape(engine.output_name)), device=images.device)
        for name, tensor in ((engine.input_name, images), (engine.output_name, output)):
            _require(context.set_tensor_address(name, tensor.data_ptr()), f"the memory of {name}")
        caller = torch.cuda.current_stream(images.device)
        if caller.cuda_stream:
            _require(context.execute_async_v3(caller.cuda_stream), "the call")
            return output
        self._stream.wait_stream(caller)  # In the default stream TensorRT would wait for the whole device.
        _require(context.execute_async_v3(self._stream.cuda_stream), "the call")
        caller.wait_stream(self._stream)
        for tensor in (images, output):
            tensor.record_stream(self._stream)
        return output


def _require(accepted: bool, what: str) -> None:
    """Raise RuntimeError unless TensorRT accepted something."""
    if not accepted:
        raise RuntimeError(f"TensorRT refused {what}")


def load_plan(plan: bytes, device: torch.device, min_batch: int) -> PlanNetwork:
    """Load a serialized engine as a network.

    Raises:
        ArtifactError: If TensorRT refuses it.
        GpuError: If the GPU fails or has no memory left.
    """
    with gpu_errors():
        return PlanNetwork(TensorRTEngine(plan, device), min_batch)


def plan_in_archive(path: Path) -> bytes | None:
    """Return the serialized engine inside an engine file, or None if it is not found where it is expected.

    Torch-TensorRT pickles an engine as a list of texts, one of which is the engine, serialized anew, in base64 or as it
    is.

    Args:
        path: A checked engine file.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/data.pkl"):
                continue
            pickled = archive.read(name)
            for found in _PLAN_TEXT.finditer(pickled):
                (size,) = struct.unpack("<I", found[1])
                text = pickled[found.end() : found.end() + size]
                if len(text) < size:
                    continue
                if text[1:].startswith(MAGIC):
                    return text
                with contextlib.suppress(binascii.Error):
                    return base64.b64decode(text, validate=True)
    return None
