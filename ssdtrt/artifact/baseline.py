"""What an engine is set against: the eager model that it came from, as a runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.system import machine
from ssdtrt.engine import parity
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.artifact.runner import FileRunner, eager_model, find_module


class InPrecision(torch.nn.Module):
    """A model that computes in another type: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    The model is cast in place. With `channels_last` it computes in that layout, which convolutions in 16 bits prefer.
    """

    def __init__(self, model: torch.nn.Module, precision: str, channels_last: bool = False):
        super().__init__()
        self.dtype = parity.DTYPE[precision]
        self.layout = torch.channels_last if channels_last else torch.preserve_format
        self.model = model.to(self.dtype, memory_format=self.layout)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images of any type, on the model's device."""
        loc, conf = self.model(images.to(self.dtype, memory_format=self.layout))
        return loc.float(), conf.float()


class EagerRunner:
    """The eager model in FP32 or FP16 as a runner: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    TF32 is off in every call. What else a runner has is that of `engine`, which it is set against.
    """

    batch = None

    def __init__(self, name: str, model: torch.nn.Module, engine: FileRunner, precision: str):
        self.name, self.model = name, model
        self.network = InPrecision(model, precision)
        self.path, self.metadata = engine.path, engine.metadata
        self.device, self.labels, self.trained, self.precision = engine.device, engine.labels, engine.trained, precision
        self.preprocess = engine.preprocess

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), machine.plain_fp32():
            return self.network(images.to(self.device))


def peer_runners(runner: FileRunner, module: str | Path | None, names: Sequence[str]) -> dict[str, EagerRunner]:
    """The peers by name, each once; `eager-fp32`, as `bench` calls it, is `eager`.

    Raises SsdtrtError for an unknown one, or ArtifactError without the module.
    """
    names = ["eager" if name == "eager-fp32" else name for name in names]
    for name in names:
        if name not in config.PEERS:
            raise SsdtrtError(f"{name!r} is nothing to compare with; expected {' or '.join(config.PEERS)}.")
        if name == "eager-fp16" and runner.device.type != "cuda":
            raise SsdtrtError("eager-fp16 needs a GPU: PyTorch has no fast FP16 on a CPU. Leave it out.")
    if not names:
        return {}
    place, reason = find_module(runner, module)
    if place is None:
        raise ArtifactError(f"{runner.path} cannot be compared with {', '.join(names)}: {reason}.")
    precisions = {"eager": "fp32", "eager-fp16": "fp16"}
    return {name: EagerRunner(name, eager_model(place, runner.device), runner, precisions[name]) for name in names}
