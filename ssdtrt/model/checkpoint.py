"""Checkpoint files: from bytes on disk to a state dict of tensors, without running the code that a file may hold."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from ssdtrt import config
from ssdtrt.errors import WeightsError, first_line
from ssdtrt.formats.packed_weights import is_packed, read_packed
from ssdtrt.model.contents import Checkpoint, CheckpointError, find_weights
from ssdtrt.model.labels import RECORDED_AS
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.report import counted
from ssdtrt.system.versions import pip_install

_SHOWN_CHARACTERS = 160  # of torch's own messages
_NAMES = "{}, {} or {}".format(*(f"`{name}`" for name in config.NAMED_WEIGHTS))
_NO_CHECKSUMS = "{} has no checksums ({}), so damage to it would not be noticed. Check the file with --sha256."


def read_checkpoint(
    path: str | Path,
    trust: bool = False,
    note: Progress = silent,
    *,
    published: bool = False,
    unchecked: bool = True,
) -> Checkpoint:
    """Read the state dict and the class names in a checkpoint file: of torch, of safetensors, or of packed weights.

    The state dict may be under the key `model` (NVIDIA's format) or another usual one, or be the whole content. A
    prefix that wrapping the network put before every key is removed.

    Args:
        path: The file.
        trust: Whether the file may run code while it is loaded (`weights_only=False`). Before torch 2.6
            `weights_only=True` is no protection (CVE-2025-32434), so there a file is read only with `trust`.
        note: Called with a line if the file has no checksums, so that damage would not be noticed, and about what was
            done to find the weights.
        published: Whether it is NVIDIA's own file, which every version of torch reads.
        unchecked: Whether no SHA-256 has shown that the file is intact.

    Raises:
        WeightsError: If the file is not a checkpoint, or is damaged.
    """
    path = Path(path)
    check_is_checkpoint(path)
    if _is_safetensors(path):
        if unchecked:
            note(_NO_CHECKSUMS.format(path, "the safetensors format"))
        return find_weights(_load_safetensors(path), path, note)
    if is_packed(path):
        return _load_packed(path)
    if not trust and not published and Version(torch.__version__).release[:2] < config.SAFE_WEIGHTS_ONLY:
        fixed = ".".join(map(str, config.SAFE_WEIGHTS_ONLY))
        raise WeightsError(
            f"{path}: torch {torch.__version__} cannot read a checkpoint safely (CVE-2025-32434, fixed in {fixed}). "
            "Update torch or, if you trust where the file is from, add --trust-weights."
        )
    if not _check_sums(path) and unchecked:
        note(_NO_CHECKSUMS.format(path, "an old format, or they were switched off"))
    return find_weights(_load(path, weights_only=not trust), path, note)


def check_is_checkpoint(path: Path) -> None:
    """Look at the beginning of a file, which may be anything.

    Raises:
        WeightsError: If the file cannot be a PyTorch checkpoint, with what it is instead.
    """
    if path.is_dir():
        raise CheckpointError(path, "is a directory; expected a checkpoint file.")
    if not path.exists():
        raise WeightsError(f"{path}: no such file. Give a checkpoint's path, {_NAMES} as weights.")
    if not path.is_file():
        raise CheckpointError(path, "is a pipe or a device; expected a checkpoint file.")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}.") from error
    if not start:
        raise CheckpointError(path, "is empty; expected a checkpoint. Fetch it again.")
    if start.startswith(b"PK"):
        _check_zip(path)
    elif start.lstrip().startswith(b"<"):
        raise CheckpointError(path, "is an HTML or XML page, not a checkpoint. Fetch it again and look at what came.")
    elif not start.startswith(b"\x80") and not _is_safetensors(path):
        raise CheckpointError(path, f"is not a PyTorch checkpoint (it begins with {start[:12]!r}).")


def _check_zip(path: Path) -> None:
    """Raises CheckpointError if a zip file is damaged, or is a TorchScript module or something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # A damaged directory raises more than BadZipFile.
        raise _damaged(path, first_line(error)) from error
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(path, "is a TorchScript module, not a checkpoint. Give it to ssdtrt compile instead.")
    if not any(name.endswith("/data.pkl") for name in names) and not is_packed(path):
        raise CheckpointError(path, "is a zip archive but not a PyTorch checkpoint (it holds no data.pkl).")


def _check_sums(path: Path) -> bool:
    """Checks the checksums of a file, and returns whether there are any.

    torch's zip format has a CRC of every member, which torch itself does not check. All are 0 after
    `torch.serialization.set_crc32_options(False)`. The format before torch 1.6 has none.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(member.CRC for member in archive.infolist()):
                return False
            bad = archive.testzip()
    except Exception as error:  # As above.
        raise _damaged(path, first_line(error)) from error
    if bad is not None:
        raise _damaged(path, f"wrong checksum of {bad}")
    return True


def _load(path: Path, weights_only: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The errors below report what torch warns of in a damaged file.
            return torch.load(path, map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError as error:
        refused = _refused_content(error) if weights_only else None
        if refused is None:
            reason = f"is truncated or damaged ({first_line(error, limit=_SHOWN_CHARACTERS)}). Fetch it again."
        else:
            reason = (
                f"holds more than tensors and plain values, and reading that could run code ({refused}). "
                "If you trust where the file is from, add --trust-weights."
            )
        raise CheckpointError(path, reason) from error
    except Exception as error:  # A damaged pickle raises almost anything.
        shown = first_line(error, limit=_SHOWN_CHARACTERS)
        raise CheckpointError(path, f"cannot be loaded ({shown}). It is damaged or from another tool.") from error


def _refused_content(error: pickle.UnpicklingError) -> str | None:
    """What torch's restricted unpickler refused to load; None if the pickle is damaged.

    torch raises the same type for both, so this is the one place that has to look at its text: "Unsupported global",
    "Unsupported operand", "Trying to load unsupported GLOBAL" and the like.
    """
    text = str(error)
    return text.split("WeightsUnpickler error:")[-1].strip().splitlines()[0] if "nsupported" in text else None


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header in JSON, and that header."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _load_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file under `model`, and beside them its metadata on classes, which is JSON."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(path, f"is of the safetensors format: {pip_install('safetensors')}") from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            recorded = file.metadata() or {}
            keys = file.keys()
            loaded: dict[str, Any] = {"model": {key: file.get_tensor(key) for key in keys}}
    except SafetensorError as error:
        raise _damaged(path, first_line(error, limit=_SHOWN_CHARACTERS)) from error
    for key in RECORDED_AS:
        with contextlib.suppress(KeyError, ValueError, RecursionError):
            loaded[key] = json.loads(recorded[key])
    return loaded


def _load_packed(path: Path) -> Checkpoint:
    try:
        arrays, record = read_packed(path)
    except Exception as error:  # A damaged archive raises almost anything.
        raise _damaged(path, first_line(error, limit=_SHOWN_CHARACTERS)) from error
    return Checkpoint({key: torch.from_numpy(array) for key, array in arrays.items()}, dict(enumerate(record.labels)))


def _damaged(path: Path, reason: str) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(path, f"is truncated or damaged ({counted(size, 'byte')}, {reason}). Fetch it again.")
