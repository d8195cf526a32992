"""Build the network with weights: NVIDIA's, those of a checkpoint, the package's own, or random ones."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import WeightsError
from ssdtrt.model.checkpoint import check_is_checkpoint, read_checkpoint
from ssdtrt.model.contents import CheckpointError
from ssdtrt.model.download import coco_checkpoint
from ssdtrt.model.labels import class_names, names_of_checkpoint, without_background
from ssdtrt.model.random import random_model
from ssdtrt.model.source import WeightsSource
from ssdtrt.model.ssd import SSD300
from ssdtrt.system.digests import check_sha256, sha256_file
from ssdtrt.system.progress import Progress, silent

_SHOWN_KEYS = 4
_COUNT = "num_batches_tracked"


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
    """Build SSD300 with weights: in eval mode, float32, on the CPU, without gradients.

    Args:
        weights: `coco` for NVIDIA's checkpoint, which is fetched once into torch's hub cache; the path of a checkpoint,
            whose class heads give the number of classes; `scenes` for those in the package, which find ten shapes in
            generated scenes; or `random`.
        seed: The seed of random weights.
        labels: The names of the classes without the background; by default those that the checkpoint records, or
            `class 1`, `class 2` and so on where it records none. `coco` and random weights have COCO's.
        sha256: The SHA-256 that the file must have.
        trust: Whether the file may run code while it is loaded (see `ssdtrt.model.checkpoint.read_checkpoint`).
        progress: Called with a line about the progress of a download.
        note: Called with a line if a file has neither a SHA-256 nor checksums to detect damage, if not every class has
            a name, and about what was done to find the weights.

    Returns:
        The model, a `torch.nn.Module` of images [N, 3, 300, 300], normalized -> (loc [N, 4, 8732], conf [N, C, 8732]).
        Its `labels` name the C classes, the background first, and its `source` is the origin of the weights.

    Raises:
        WeightsError: If the weights cannot be fetched or read, or do not fit the network.

    Example:
        >>> import torch
        >>> from ssdtrt import build_model
        >>> model = build_model("random", labels=["cat", "dog"])
        >>> loc, conf = model(torch.zeros(1, 3, 300, 300))
        >>> tuple(loc.shape), tuple(conf.shape), model.labels
        ((1, 4, 8732), (1, 3, 8732), ('background', 'cat', 'dog'))
    """
    recorded: dict[int, str] = {}
    labels = None if labels is None else without_background(labels)
    if weights == "random":
        if sha256 is not None:
            raise WeightsError("Random weights come from no file, so there is no SHA-256 to check.")
        model, digest = random_model(len(labels) + 1 if labels else config.NUM_CLASSES, seed), None
        name = "random"
    else:
        name = str(weights) if weights in config.NAMED_WEIGHTS else Path(weights).name
        model, recorded, digest = _model_from_file(weights, sha256, trust, progress, note)
    if labels is None and name in ("coco", "random") and model.num_classes == config.NUM_CLASSES:
        labels = config.COCO_LABELS[1:]
    if labels is None:
        model.labels, remark = names_of_checkpoint(model.num_classes, recorded)
        if remark:
            note(f"{weights} {remark}")
    else:
        model.labels = class_names(model.num_classes, labels)
    model.source = WeightsSource(name, state_sha256(model.state_dict()), name != "random", digest)
    return model


def _model_from_file(
    weights: str | Path, sha256: str | None, trust: bool, progress: Progress, note: Progress
) -> tuple[SSD300, dict[int, str], str]:
    """The model with the weights of `coco`, `scenes` or a checkpoint's path, the recorded class names, the file's SHA-256."""
    if weights == "coco":
        path = coco_checkpoint(sha256, functools.partial(_coco_model, trust=trust), progress)
        return *_coco_model(path, trust), sha256_file(path)
    path = config.SCENES_WEIGHTS if weights == "scenes" else Path(weights)
    if weights == "scenes" and not path.exists():
        raise WeightsError(f"{path}: no such file, though it is part of ssdtrt. Install ssdtrt again.")
    check_is_checkpoint(path)
    digest = sha256_file(path) if sha256 is None else check_sha256(path, sha256, WeightsError)
    found = read_checkpoint(path, trust, note, unchecked=sha256 is None)
    return model_from_state(found.state, path, note), found.names, digest


def _coco_model(path: Path, trust: bool) -> tuple[SSD300, dict[int, str]]:
    found = read_checkpoint(path, trust, published=True)
    return model_from_state(found.state, path), found.names


def model_from_state(state: Mapping[str, Tensor], origin: str | Path, note: Progress = silent) -> SSD300:
    """Build SSD300 with these tensors and as many classes as they have, in eval mode.

    Args:
        state: The tensors by name; those of a lower precision become float32. `num_batches_tracked`, which counts in
            training alone, may be missing.
        origin: Their origin, for messages.
        note: Called with a line if such counts are missing.

    Raises:
        WeightsError: If they do not fit the network or are not finite.
    """
    heads = state.get("conf.0.weight")
    boxes = config.BOXES_PER_CELL[0]
    classes = config.NUM_CLASSES
    if heads is not None and heads.dim() == 4 and heads.shape[0] % boxes == 0 and heads.shape[0] >= 2 * boxes:
        classes = heads.shape[0] // boxes
    with torch.device("meta"):
        model = SSD300(classes)
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    if missing and all(key.endswith(_COUNT) for key in missing):
        state = {**state, **{key: torch.zeros((), dtype=torch.int64) for key in missing}}
        note(f"{origin} lacks {len(missing)} {_COUNT}, which only training needs; they are 0.")
    _check_fits(state, expected, origin)
    tensors = {
        key: value.detach().float() if value.is_floating_point() else value.detach() for key, value in state.items()
    }
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CheckpointError(origin, f"holds NaN or Inf in {_some(broken)}; expected finite weights.")
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str | Path) -> None:
    """Raises CheckpointError that lists missing, extra and misshapen keys."""
    shared = [key for key in expected if key in state]
    problems = {
        "missing": [key for key in expected if key not in state],
        "extra": [key for key in state if key not in expected],
        "misshapen": [
            f"{key} {list(state[key].shape)} instead of {list(expected[key].shape)}"
            for key in shared
            if state[key].shape != expected[key].shape
        ],
        "without floats": [
            f"{key} of {state[key].dtype}"
            for key in shared
            if expected[key].is_floating_point() and not state[key].is_floating_point()
        ],
    }
    found = "; ".join(f"{len(keys)} {problem}: {_some(keys)}" for problem, keys in problems.items() if keys)
    if found:
        raise CheckpointError(
            origin,
            f"does not fit SSD300 with a ResNet-50 backbone ({found}). "
            "Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it.",
        )


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the names, types, shapes and bytes of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        if value.numel():
            digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:_SHOWN_KEYS])
    return shown + (f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else "")
