"""The eager baselines of a saved file: the model that it was built from, as a runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, check_file
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.formats.onnx_file import is_onnx
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import model_from_state, state_sha256
from ssdtrt.runners import onnx_runtime, torchscript
from ssdtrt.runners.runner import FileRunner
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.files import as_list


class _File(Protocol):
    """A saved file with its path and metadata."""

    @property
    def path(self) -> Path: ...
    @property
    def metadata(self) -> Metadata: ...


class _PlacedFile(_File, Protocol):
    """And with the device that it runs on."""

    @property
    def device(self) -> torch.device: ...


class InPrecision(torch.nn.Module):
    """A model that computes in another precision and returns float32.

    Args:
        model: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]); it is cast in place.
        precision: A name of `PRECISIONS`.
        channels_last: Whether to use this memory format, in which 16-bit convolutions are faster.
    """

    def __init__(self, model: torch.nn.Module, precision: str, channels_last: bool = False):
        super().__init__()
        self.dtype = PRECISIONS[precision].dtype
        self.layout = torch.channels_last if channels_last else torch.preserve_format
        self.model = model.to(dtype=self.dtype, memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run images of any floating-point type that are on the model's device."""
        return tuple(part.float() for part in self.model(images.to(self.dtype, memory_format=self.layout)))


class EagerRunner:
    """A baseline as a runner: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    TF32 is disabled in every call, but where the network enables it.

    Args:
        name: The baseline.
        network: The eager model, such as `InPrecision`, or what stands for it.
        file: The file whose baseline this is. Path, metadata, device, labels and preprocessing are taken from it.
        precision: What the network computes in.
    """

    batch = None

    def __init__(self, name: str, network: Callable[[Tensor], tuple[Tensor, ...]], file: _PlacedFile, precision: str):
        self.name, self.network, self.precision = name, network, precision
        self.path, self.metadata, self.device = file.path, file.metadata, file.device
        self.labels, self.trained = file.metadata.model.labels, file.metadata.trained
        self.preprocess = file.metadata.model.preprocess

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), tf32_disabled():
            return self.network(images.to(self.device))


def baseline_runners(
    runner: FileRunner, module: str | Path | None, names: str | Sequence[str]
) -> dict[str, EagerRunner]:
    """Return the named baselines of a file.

    Args:
        runner: The file.
        module: The module that it was built from; by default `find_module` finds it.
        names: The baselines, from config.BASELINES.

    Raises:
        SsdtrtError: If a name is unknown, or is FP16 on a CPU.
        ArtifactError: If the module is not found.
    """
    names = as_list(names)
    for name in names:
        if name not in config.BASELINES:
            raise SsdtrtError(f"Unknown baseline {name!r}; expected {' or '.join(config.BASELINES)}.")
        if name == "eager-fp16" and runner.device.type != "cuda":
            raise SsdtrtError("eager-fp16 needs a GPU: PyTorch has no fast FP16 on a CPU. Leave it out.")
    if not names:
        return {}
    module_path, reason = find_module(runner, module)
    if module_path is None:
        raise ArtifactError(f"{runner.path} cannot be compared with {', '.join(names)}: {reason}.")
    baselines = {}
    for name in names:
        precision = name.removeprefix("eager-")
        network = InPrecision(eager_model(module_path, runner.device), precision)
        baselines[name] = EagerRunner(name, network, runner, precision)
    return baselines


def find_module(file: _File, module: str | Path | None = None) -> tuple[Path | None, str]:
    """Find the module that a file was built from; for a module, and for any ONNX file, that is the file itself.

    Args:
        file: The file.
        module: The module; by default the recorded file name, in the engine's folder or the current one.

    Returns:
        (path, ""), or (None, reason) if no such file has the recorded SHA-256.
    """
    if not isinstance(file.metadata, EngineMetadata):
        return file.path, ""
    recorded = file.metadata.module
    candidates = [Path(module)] if module else [file.path.parent / recorded.file, Path(recorded.file)]
    found = [path for path in candidates if path.is_file()]
    if module and not found:
        return None, f"{module}: no such file; give the module that it was built from with --module"
    for path in found:
        if sha256_file(path) == recorded.sha256:
            return path, ""
    if found:
        return None, f"{found[0]} is not the module it was built from; name that with --module, or compile again"
    return None, f"its module {recorded.file} was not found; name it with --module"


def eager_model(module: str | Path, device: torch.device) -> SSD300:
    """Return the FP32 eager model with the weights of an exported module.

    Raises:
        ArtifactError: If the file is not an intact module.
        SsdtrtError: If it is an ONNX file, and onnx is not installed.
    """
    if is_onnx(Path(module)):
        check_file(module, ("module", "detector"))  # Its weights are part of what its own SHA-256 is of.
        return model_from_state(onnx_runtime.read_weights(Path(module)), str(module)).to(device)
    metadata = check_file(module, ("module",))
    state = torchscript.load(module).state_dict()
    weights = metadata.model.weights
    if weights and state_sha256(state) != weights.sha256:
        raise ArtifactError(f"{module} is damaged: its weights are not the recorded ones. Make it again: ssdtrt export")
    return model_from_state(state, str(module)).to(device)
