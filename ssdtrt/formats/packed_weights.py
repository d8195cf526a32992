"""Write and read packed weights: a .npz file of NumPy that holds convolutions as int8. Imports no torch.

Each convolution's weights are int8, -63 to 63, with one float32 scale for each output channel, in an array of their name
and one of that name and `.scale`; all other tensors are as they were. The array `record` is JSON text. Zeros stay zeros, which
take little room once they are compressed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ssdtrt.system.digests import Digest
from ssdtrt.system.files import replacing
from ssdtrt.system.report import Report

_LEVELS = 63  # Seven of the eight bits: that takes a twelfth less room, and cost no accuracy.
_RECORD, _SCALE = "record", ".scale"


class PackedRecord(Report, frozen=True):
    """What packed weights are.

    Attributes:
        labels: The names of the classes, the background first.
        source_sha256: The SHA-256 of the tensors that were packed (see `ssdtrt.model.weights.state_sha256`).
        training: How those tensors were trained.
        figures: COCO's figures of the packed weights by their names, 0..1; empty if they were not evaluated.
        images: The number of pictures that the figures are of.
        annotations_sha256: The SHA-256 of the annotations that the figures are of.
    """

    labels: tuple[str, ...]
    source_sha256: Digest
    training: dict[str, Any]
    figures: dict[str, float] = msgspec.field(default_factory=dict)
    images: int = 0
    annotations_sha256: Digest | None = None


def is_packed(path: Path) -> bool:
    """Return whether a file is a zip archive with a record of packed weights; its content may still be damaged."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{_RECORD}.npy" in archive.namelist()
    except Exception:  # A damaged directory raises more than BadZipFile.
        return False


def write_packed(path: str | Path, state: Mapping[str, np.ndarray], record: PackedRecord) -> None:
    """Write weights, rounded where they are of convolutions.

    Args:
        path: The file.
        state: The tensors by name; those with four dimensions are of convolutions [out, in, height, width], float32.
        record: What they are.
    """
    arrays: dict[str, np.ndarray] = {_RECORD: np.array(msgspec.json.encode(record).decode())}
    for key, values in state.items():
        if values.ndim == 4:
            scale = np.abs(values).max(axis=(1, 2, 3)) / _LEVELS
            scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))  # Below it, division is inexact.
            arrays[key] = np.rint(values / scale[:, None, None, None]).astype(np.int8)
            arrays[key + _SCALE] = scale
        else:
            arrays[key] = values
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_packed(path: str | Path) -> tuple[dict[str, np.ndarray], PackedRecord]:
    """Read weights that `write_packed` wrote.

    Returns:
        The tensors by name, those of convolutions in float32, and what they are.

    Raises:
        Exception: Of almost any type, if the file is damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        record = _decode(file)
        arrays = {key: file[key] for key in file.files if key != _RECORD}
    scales = {key: arrays.pop(key) for key in [*arrays] if key.endswith(_SCALE)}
    for key, scale in scales.items():
        name = key.removesuffix(_SCALE)
        arrays[name] = arrays[name].astype(np.float32) * scale[:, None, None, None]
    return arrays, record


def read_packed_record(path: str | Path) -> PackedRecord:
    """Read what packed weights are, without them.

    Raises:
        Exception: Of almost any type, if the file is damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        return _decode(file)


def _decode(file: Any) -> PackedRecord:
    return msgspec.json.decode(file[_RECORD].item(), type=PackedRecord)
