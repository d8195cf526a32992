"""Run ONNX files with ONNX Runtime, on a CPU or, where its CUDA provider is installed, on a GPU."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt.errors import ArtifactError, SsdtrtError, first_line
from ssdtrt.system.devices import pick_device
from ssdtrt.system.versions import pip_install

LOC_CONF = ("loc", "conf")
"""The network's outputs, which are tensors inside a detector too."""
NORMALIZED = "normalized"
"""The network's input inside a detector."""
_CUDA = "CUDAExecutionProvider"
_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(uint8)": torch.uint8,
    "tensor(int64)": torch.int64,
}
_WARNINGS_OFF = 3  # of ONNX Runtime's severities: errors and worse


def check_installed(*modules: str) -> None:
    """Check that the modules of the extra `onnx` are installed: `onnx`, `onnxruntime`.

    Raises:
        SsdtrtError: If one is not.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise SsdtrtError(f"ONNX files need {' and '.join(missing)}, not installed here: {pip_install('onnx')}")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device that ONNX Runtime runs on.

    Args:
        device: `cpu`, `cuda` or `cuda:N`; by default the GPU if there is one and ONNX Runtime can use it, else the CPU.

    Raises:
        SsdtrtError: If ONNX Runtime is missing or cannot use that device, or there is no such device.
    """
    check_installed("onnxruntime")
    import onnxruntime

    uses_gpu = _CUDA in onnxruntime.get_available_providers()
    chosen = pick_device("cpu" if device is None and not uses_gpu else device)
    if chosen.type == "cuda" and not uses_gpu:
        raise SsdtrtError(
            f"ONNX Runtime cannot use {chosen} here: it has no {_CUDA}. Install onnxruntime-gpu in place of "
            "onnxruntime, or run on the CPU."
        )
    return chosen


class OnnxModule:
    """A network in ONNX Runtime, called with tensors on its device as a TorchScript module is.

    Args:
        read: Returns the ONNX model as bytes; called when the network is first used.
        device: The device, from `choose_device`.
        origin: The file, for messages.
        engine: For a detector the network alone: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]).
    """

    def __init__(
        self, read: Callable[[], bytes], device: torch.device, origin: str | Path, engine: OnnxModule | None = None
    ):
        self._read, self.device, self.origin = read, device, origin
        self.engine: Any = engine

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the outputs, each with as many rows as the first input: one tensor, or a tuple of several."""
        binding = self.open()._session.io_binding()
        place = self.device.type, self.device.index or 0
        kept = []  # ONNX Runtime reads and writes the memory of these tensors.
        for described, tensor in zip(self._session.get_inputs(), inputs):
            tensor = tensor.to(self.device, _DTYPES[described.type]).contiguous()
            kept.append(tensor)
            binding.bind_input(described.name, *place, _numpy_type(tensor), list(tensor.shape), tensor.data_ptr())
        outputs = []
        for described in self._session.get_outputs():
            shape = [len(inputs[0]), *described.shape[1:]]
            output = torch.empty(shape, dtype=_DTYPES[described.type], device=self.device)
            outputs.append(output)
            binding.bind_output(described.name, *place, _numpy_type(output), shape, output.data_ptr())
        if self.device.type == "cuda":  # ONNX Runtime has a stream of its own.
            torch.cuda.current_stream(self.device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own types, which derive from none but Exception.
            raise RuntimeError(first_line(error)) from error
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def open(self) -> OnnxModule:
        """Load the model now, and return this object.

        Raises:
            ArtifactError: If ONNX Runtime refuses it.
            SsdtrtError: If ONNX Runtime cannot start on the GPU.
        """
        if self.device.type == "cuda" and _CUDA not in self._session.get_providers():
            raise SsdtrtError(f"ONNX Runtime has a {_CUDA}, but cannot start it here. Does its CUDA fit this machine?")
        return self

    @functools.cached_property
    def _session(self) -> Any:
        """The `onnxruntime.InferenceSession`, with as many threads as torch has."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _WARNINGS_OFF
        settings = {"device_id": self.device.index or 0, "use_tf32": 0}
        on_gpu = [(_CUDA, settings)] if self.device.type == "cuda" else []
        try:
            return onnxruntime.InferenceSession(self._read(), options, providers=[*on_gpu, "CPUExecutionProvider"])
        except SsdtrtError:
            raise
        except Exception as error:
            raise ArtifactError(f"{self.origin} cannot be loaded ({first_line(error)}). Make it again.") from error


def load(path: Path, device: torch.device, is_detector: bool) -> OnnxModule:
    """Return a file's network, or its whole detector, on a device from `choose_device`.

    What is inside is loaded when it is first called: of a detector the whole file, or the network alone.
    """
    engine = part(path, device, [NORMALIZED], LOC_CONF) if is_detector else None
    return OnnxModule(path.read_bytes, device, path, engine)


def part(path: Path, device: torch.device, inputs: Sequence[str], outputs: Sequence[str]) -> OnnxModule:
    """Return the part of a file between tensors of these names."""

    def read() -> bytes:
        check_installed("onnx")
        import onnx.utils

        extractor = onnx.utils.Extractor(onnx.load_from_string(path.read_bytes()))
        return extractor.extract_model(list(inputs), list(outputs)).SerializeToString()

    return OnnxModule(read, device, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in an ONNX file by their names in the model, which has 32-bit floats only.

    `num_batches_tracked` of a BatchNorm, which has no part in inference, is 0: the file does not hold it.
    """
    check_installed("onnx")
    import onnx

    graph = onnx.load_from_string(path.read_bytes()).graph
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    weights = {name: torch.from_numpy(array.copy()) for name, array in tensors.items() if "/" not in name}
    means = [name for name in weights if name.endswith(".running_mean")]
    return weights | {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}


def _numpy_type(tensor: Tensor) -> Any:
    """Return the numpy type of a tensor's elements."""
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
