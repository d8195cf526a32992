"""Checkpoint files: from bytes on disk to a state dict of tensors, without running the code that a file may hold."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from ssdtrt import config
from ssdtrt.errors import WeightsError, first_line
from ssdtrt.system.progress import Progress, silent

_DDP_PREFIXES = ("module.1.", "module.")
_SHOWN_CHARACTERS = 160  # of torch's own messages


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


def read_checkpoint(
    path: str | Path, trust: bool = False, note: Progress = silent, *, published: bool = False
) -> dict[str, torch.Tensor]:
    """Read the state dict in a checkpoint file.

    It may be under the key `model` (NVIDIA's format), under `state_dict`, or be the whole content. A prefix that
    distributed training put before every key is removed.

    Args:
        path: The file.
        trust: Whether the file may run code while it is loaded (`weights_only=False`). Before torch 2.6
            `weights_only=True` is no protection (CVE-2025-32434), so there a file is read only with `trust`.
        note: Called with a line if the file has no checksums, so that damage would not be noticed.
        published: Whether it is NVIDIA's own file, which every version of torch reads.

    Raises:
        WeightsError: If the file is not a checkpoint, or is damaged.
    """
    path = Path(path)
    check_is_checkpoint(path)
    if not trust and not published and Version(torch.__version__).release[:2] < config.SAFE_WEIGHTS_ONLY:
        fixed = ".".join(map(str, config.SAFE_WEIGHTS_ONLY))
        raise WeightsError(
            f"{path}: torch {torch.__version__} cannot read a checkpoint safely (CVE-2025-32434, fixed in {fixed}). "
            "Update torch or, if you trust where the file is from, add --trust-weights."
        )
    if not _check_sums(path):
        note(
            f"{path} has no checksums (an old format, or they were switched off), so damage to it would not be "
            "noticed. Check the file with --sha256."
        )
    return _state_dict_in(_load(path, weights_only=not trust), path)


def check_is_checkpoint(path: Path) -> None:
    """Look at the beginning of a file, which may be anything.

    Raises:
        WeightsError: If the file cannot be a PyTorch checkpoint, with what it is instead.
    """
    if path.is_dir():
        raise CheckpointError(path, "is a directory; expected a checkpoint file.")
    if not path.exists():
        raise WeightsError(f"{path}: no such file. Give a checkpoint's path, `coco` or `random` as weights.")
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
    elif not start.startswith(b"\x80"):
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
    if not any(name.endswith("/data.pkl") for name in names):
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


def _state_dict_in(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in what `torch.load` returned, its keys without a prefix of distributed training."""
    if isinstance(loaded, dict):
        for key in ("model", "state_dict"):
            if isinstance(loaded.get(key), dict):
                loaded = loaded[key]
                break
    if (
        not isinstance(loaded, dict)
        or not loaded
        or not all(isinstance(value, torch.Tensor) for value in loaded.values())
    ):
        raise CheckpointError(
            path,
            f"holds {_describe(loaded)}; expected a state dict, or NVIDIA's format with one under the key 'model'.",
        )
    for prefix in _DDP_PREFIXES:
        if all(str(key).startswith(prefix) for key in loaded):
            return {key[len(prefix) :]: value for key, value in loaded.items()}
    return {str(key): value for key, value in loaded.items()}


def _damaged(path: Path, reason: str) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(path, f"is truncated or damaged ({size:,} bytes, {reason}). Fetch it again.")


def _describe(loaded: Any) -> str:
    if isinstance(loaded, dict):
        shown = ", ".join(map(str, list(loaded)[:5]))
        return f"a dict with the keys {shown}" if loaded else "an empty dict"
    return f"an object of type {type(loaded).__name__}"
