"""What a file is measured against: the eager model that it came from, as a runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.capabilities import PRECISIONS
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, check_file
from ssdtrt.artifact.runner import FileRunner
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import model_from_state, state_sha256
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.digests import sha256_file


class _File(Protocol):
    """A saved file of which the path and the metadata are known."""

    @property
    def path(self) -> Path: ...
    @property
    def metadata(self) -> Metadata: ...


class InPrecision(torch.nn.Module):
    """A model that computes in another precision and returns float32.

    Args:
        model: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]); it is cast in place.
        precision: A name of `PRECISIONS`.
        channels_last: Whether it computes in that layout, which convolutions in 16 bits prefer.
    """

    def __init__(self, model: torch.nn.Module, precision: str, channels_last: bool = False):
        super().__init__()
        self.dtype = PRECISIONS[precision].dtype
        self.layout = torch.channels_last if channels_last else torch.preserve_format
        self.model = model.to(dtype=self.dtype, memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run images of any type, on the model's device."""
        return tuple(part.float() for part in self.model(images.to(self.dtype, memory_format=self.layout)))


class EagerRunner:
    """The eager model in FP32 or FP16 as a runner: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    TF32 is disabled in every call. What else a runner has is that of `engine`, whose baseline it is.
    """

    batch = None

    def __init__(self, name: str, model: torch.nn.Module, engine: FileRunner, precision: str):
        self.name, self.model = name, model
        self.network = InPrecision(model, precision)
        self.path, self.metadata = engine.path, engine.metadata
        self.device, self.labels, self.trained, self.precision = engine.device, engine.labels, engine.trained, precision
        self.preprocess = engine.preprocess

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), tf32_disabled():
            return self.network(images.to(self.device))


def baseline_runners(runner: FileRunner, module: str | Path | None, names: Sequence[str]) -> dict[str, EagerRunner]:
    """Return the baselines of a file by name, each once.

    Args:
        runner: The file.
        module: The module that it was built from, where `find_module` does not find it.
        names: Some of config.BASELINES.

    Raises:
        SsdtrtError: For an unknown name, or FP16 on a CPU.
        ArtifactError: Without the module.
    """
    for name in names:
        if name not in config.BASELINES:
            raise SsdtrtError(f"{name!r} is nothing to compare with; expected {' or '.join(config.BASELINES)}.")
        if name == "eager-fp16" and runner.device.type != "cuda":
            raise SsdtrtError("eager-fp16 needs a GPU: PyTorch has no fast FP16 on a CPU. Leave it out.")
    if not names:
        return {}
    place, reason = find_module(runner, module)
    if place is None:
        raise ArtifactError(f"{runner.path} cannot be compared with {', '.join(names)}: {reason}.")
    return {
        name: EagerRunner(name, eager_model(place, runner.device), runner, name.removeprefix("eager-"))
        for name in names
    }


def find_module(file: _File, module: str | Path | None = None) -> tuple[Path | None, str]:
    """Find the module that a file was built from; a module is its own.

    Args:
        file: The file.
        module: The module; without it the file of the recorded name beside the engine or in the current folder.

    Returns:
        (path, ""), or (None, reason) where there is none whose SHA-256 is the recorded one.
    """
    if not isinstance(file.metadata, EngineMetadata):
        return file.path, ""
    recorded = file.metadata.module
    places = [Path(module)] if module else [file.path.parent / recorded.file, Path(recorded.file)]
    found = [place for place in places if place.is_file()]
    if module and not found:
        return None, f"{module}: no such file"
    for place in found:
        if sha256_file(place) == recorded.sha256:
            return place, ""
    if found:
        return None, f"{found[0]} is not the module it was built from"
    return None, f"its module {recorded.file} was not found; name it with --module"


def eager_model(module: str | Path, device: torch.device) -> SSD300:
    """Return the FP32 eager model with the weights of an exported module.

    Raises:
        ArtifactError: Where the file is no intact module.
    """
    metadata = check_file(module, ("module",))
    state = torchscript.load(module).state_dict()
    weights = metadata.model.weights
    if weights and state_sha256(state) != weights.sha256:
        raise ArtifactError(f"{module} is damaged: its weights are not the recorded ones. Make it again: ssdtrt export")
    return model_from_state(state, str(module)).to(device)
