"""From the name of some weights to a network that carries them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import WeightsError
from ssdtrt.model.checkpoint import (
    check_looks_like_checkpoint,
    check_sums,
    load,
    read_checkpoint,
    state_dict_in,
)
from ssdtrt.model.download import coco_checkpoint
from ssdtrt.model.labels import class_names
from ssdtrt.model.random import random_model
from ssdtrt.model.source import WeightsSource
from ssdtrt.model.ssd import SSD300
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, silent

SHOWN_KEYS = 4


def build_model(
    weights: str | Path = config.WEIGHTS,
    *,
    seed: int = config.SEED,
    labels: Sequence[str] | None = None,
    sha256: str | None = None,
    trust: bool = False,
    progress: Progress = silent,
    note: Progress = silent,
) -> SSD300:
    """SSD300 in eval mode, float32, on the CPU.

    `weights` is `coco` (NVIDIA's checkpoint, fetched once into torch's hub cache), a checkpoint's path, or `random`
    (drawn from `seed`). The number of classes is that of the checkpoint's class heads. `labels` names them without the
    background; by default COCO's names where there are 80, else "class 1", "class 2" and so on. `sha256` is the digest
    the file must have; `trust` is that of `read_checkpoint`. `note` is called when nothing guards a file against
    damage: no digest and no checksums. The model's `source` and `labels` say what it carries. Raises WeightsError.
    """
    if weights == "random":
        if sha256:
            raise WeightsError("Random weights come from no file, so no SHA-256 can be demanded of them.")
        classes = len(labels) + 1 if labels else config.NUM_CLASSES
        model = random_model(classes, seed)
        name, file_sha256 = "random", None
    else:
        name, path = ("coco", None) if weights == "coco" else (Path(weights).name, Path(weights))
        if path is None:
            path = coco_checkpoint(sha256, functools.partial(_check_coco, trust=trust), progress)
            state = _read_coco(path, trust)
            file_sha256 = sha256_file(path)
        else:
            check_looks_like_checkpoint(path)
            file_sha256 = sha256_file(path)
            if sha256 and file_sha256 != sha256.lower():
                raise WeightsError(f"{path} has SHA-256 {file_sha256}; expected {sha256.lower()}.")
            state = read_checkpoint(path, trust, silent if sha256 else note)
        model = model_from_state(state, str(path))
    model.labels = class_names(model.num_classes, labels)
    model.source = WeightsSource(name, state_sha256(model.state_dict()), name != "random", file_sha256)
    return model


def model_from_state(state: Mapping[str, Tensor], origin: str) -> SSD300:
    """SSD300 with these tensors and as many classes as they have, in eval mode. Raises WeightsError naming `origin`."""
    heads = state.get("conf.0.weight")
    boxes = config.BOXES_PER_CELL[0]
    classes = config.NUM_CLASSES
    if heads is not None and heads.dim() == 4 and heads.shape[0] % boxes == 0 and heads.shape[0] >= 2 * boxes:
        classes = heads.shape[0] // boxes
    with torch.device("meta"):
        model = SSD300(classes)
    check_fits(state, model.state_dict(), origin)
    tensors = {
        key: value.detach().float() if value.is_floating_point() else value.detach() for key, value in state.items()
    }
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{origin} holds NaN or Inf in {_some(broken)}; expected finite weights.")
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str) -> None:
    """Raises WeightsError that lists missing, extra and misshapen keys."""
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    integers = [
        f"{key} of {state[key].dtype}"
        for key in expected
        if key in state and expected[key].is_floating_point() and not state[key].is_floating_point()
    ]
    problems = [
        f"{len(keys)} {name}: {_some(keys)}"
        for name, keys in (
            ("missing", missing),
            ("extra", extra),
            ("misshapen", misshapen),
            ("without floats", integers),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{origin} does not fit SSD300 with a ResNet-50 backbone ({'; '.join(problems)}). "
            "Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it."
        )


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return digest.hexdigest()


def _check_coco(path: Path, trust: bool) -> None:
    model_from_state(_read_coco(path, trust), str(path))


def _read_coco(path: Path, trust: bool) -> dict[str, Tensor]:
    """The published file is the one that the user asked for by its address, so no older torch refuses it."""
    check_looks_like_checkpoint(path)
    check_sums(path)
    return state_dict_in(load(path, weights_only=not trust), path)


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:SHOWN_KEYS])
    return shown + (f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else "")
