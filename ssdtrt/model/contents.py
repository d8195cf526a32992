"""What a checkpoint holds, once it is loaded: the state dict, under its usual keys and prefixes, and class names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ssdtrt.errors import WeightsError
from ssdtrt.model.labels import recorded_names
from ssdtrt.system.progress import Progress

# Where training puts the weights, the more usual first.
_WEIGHTS_KEYS = (
    "model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "weights", "params",
    "checkpoint", "state", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
_USUAL = ((), ("model",), ("state_dict",))  # NVIDIA's format and the usual ones, which need no note
_MAX_DEPTH = 4  # A pickle can hold itself.
_KNOWN_KEY = "conf.0.weight"


class CheckpointError(WeightsError):
    """A checkpoint that cannot be used.

    Args:
        origin: The file, or what a message calls it.
        reason: The rest of the sentence: what was found, what was expected and what to do.
    """

    def __init__(self, origin: str | Path, reason: str):
        super().__init__(origin, reason)
        self.origin, self.reason = origin, reason

    def __str__(self) -> str:
        return f"{self.origin} {self.reason}"


class Checkpoint(NamedTuple):
    """What was read from a checkpoint file.

    Attributes:
        state: The tensors by name.
        names: {number: name} of the classes, as the file records them; empty if it records none.
    """

    state: dict[str, torch.Tensor]
    names: dict[int, str]


def find_weights(loaded: Any, path: Path, note: Progress) -> Checkpoint:
    """Find the state dict and the class names in what was loaded.

    Args:
        loaded: The content of the file.
        path: The file, for messages.
        note: Called with a line about where the weights were, if that is not usual, and about a removed prefix.

    Raises:
        CheckpointError: If there is no state dict.
    """
    names: dict[int, str] = {}
    keys: tuple[str, ...] = ()
    while isinstance(loaded, Mapping) and len(keys) < _MAX_DEPTH:
        names = names or recorded_names(loaded)
        key = next((key for key in _WEIGHTS_KEYS if isinstance(loaded.get(key), Mapping)), None)
        if key is None:
            break
        loaded, keys = loaded[key], (*keys, key)
    if (
        not isinstance(loaded, Mapping)
        or not loaded
        or not all(isinstance(value, torch.Tensor) for value in loaded.values())
    ):
        raise CheckpointError(
            path,
            f"holds {_describe(loaded)}; expected a state dict, or NVIDIA's format with one under the key 'model'.",
        )
    if keys not in _USUAL:
        note(f"{path}: the weights are those under {' > '.join(keys)}.")
    state = {str(key): value for key, value in loaded.items()}
    prefix = _common_prefix(state)
    if prefix:
        note(f"{path}: the prefix {prefix} of every key was removed.")
    return Checkpoint({key[len(prefix) :]: value for key, value in state.items()}, names)


def _common_prefix(state: Mapping[str, torch.Tensor]) -> str:
    """What a wrapper of the network put before every key, such as `module.` or `_orig_mod.`; or nothing."""
    prefix = next((key[: -len(_KNOWN_KEY)] for key in state if key.endswith(f".{_KNOWN_KEY}")), "")
    return prefix if all(key.startswith(prefix) for key in state) else ""


def _describe(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        shown = ", ".join(map(str, list(loaded)[:5]))
        return f"a dict with the keys {shown}" if loaded else "an empty dict"
    return f"an object of type {type(loaded).__name__}"
