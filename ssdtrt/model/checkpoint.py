"""Reading a checkpoint file: from bytes on disk to a state dict of tensors, without running what it may carry."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import torch

from ssdtrt.errors import WeightsError, first_line
from ssdtrt.system.progress import Progress, silent

DDP_PREFIXES = ("module.1.", "module.")


def read_checkpoint(path: str | Path, trust: bool = False, note: Progress = silent) -> dict[str, torch.Tensor]:
    """The state dict in `path`: NVIDIA's format (key `model`), one under `state_dict`, or a plain state dict.

    A prefix that distributed training put on every key is removed. `trust` lets the file run code while it loads
    (`weights_only=False`); below torch 2.6 `weights_only=True` is no protection (CVE-2025-32434), so there a file is
    read only with `trust`. `note` is told of a file that carries no checksums. Raises WeightsError.
    """
    path = Path(path)
    check_looks_like_checkpoint(path)
    if not trust and not weights_only_is_safe():
        raise WeightsError(
            f"{path}: torch {torch.__version__} cannot read a checkpoint safely (CVE-2025-32434, mended in 2.6). "
            "Update torch, or, if you trust where the file is from, add --trust-weights."
        )
    if not check_sums(path):
        note(
            f"{path} carries no checksums (an old format, or they were switched off), so a flipped bit in it would not "
            "be noticed. --sha256 demands the file that you know."
        )
    return state_dict_in(load(path, weights_only=not trust), path)


def weights_only_is_safe() -> bool:
    """Whether this torch's `weights_only=True` keeps a checkpoint from running code (from 2.6 on)."""
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (2, 6)


def check_looks_like_checkpoint(path: Path) -> None:
    """Raises WeightsError, with what was found instead, unless the file can be a PyTorch checkpoint."""
    if path.is_dir():
        raise WeightsError(f"{path} is a directory; expected a checkpoint file.")
    if not path.exists():
        raise WeightsError(f"{path}: no such file. Give a checkpoint's path, `coco` or `random` as weights.")
    if not path.is_file():
        raise WeightsError(f"{path} is a pipe or a device; expected a checkpoint file.")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if not start:
        raise WeightsError(f"{path} is empty; expected a checkpoint. Fetch it again.")
    if start.startswith(b"PK"):
        check_zip(path)
    elif start.lstrip().startswith(b"<"):
        raise WeightsError(f"{path} is an HTML or XML page, not a checkpoint. Fetch it again and look at what came.")
    elif not start.startswith(b"\x80"):
        raise WeightsError(f"{path} is not a PyTorch checkpoint (it begins with {start[:12]!r}).")


def check_zip(path: Path) -> None:
    """Raises WeightsError unless the zip is whole and holds a checkpoint rather than a TorchScript module."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # A damaged directory raises more than BadZipFile.
        raise WeightsError(_damaged(path, str(error))) from error
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{path} is a TorchScript module, not a checkpoint. To build an engine: ssdtrt compile {path}"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise WeightsError(f"{path} is a zip archive but not a PyTorch checkpoint (it holds no data.pkl).")


def check_sums(path: Path) -> bool:
    """Whether the file carries checksums; raises WeightsError where one is wrong.

    torch's zip format has a CRC of every member, which torch itself does not look at. They are all 0 after
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
        raise WeightsError(_damaged(path, str(error) or type(error).__name__)) from error
    if bad is not None:
        raise WeightsError(_damaged(path, f"wrong checksum of {bad}"))
    return True


def load(path: Path, weights_only: bool):
    """`torch.load` to the CPU, with its failures told apart."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What torch has to say of a damaged file, the error below says.
            return torch.load(path, map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError as error:
        if weights_only and "nsupported" in str(error):
            found = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
            raise WeightsError(
                f"{path} holds more than tensors and plain values, and reading that could run code ({found}). "
                "If you trust where the file is from, add --trust-weights."
            ) from error
        raise WeightsError(f"{path} is truncated or damaged ({_first_line(error)}). Fetch it again.") from error
    except Exception as error:  # A damaged pickle raises almost anything.
        raise WeightsError(
            f"{path} cannot be loaded ({_first_line(error)}). It is damaged or from another tool."
        ) from error


def state_dict_in(loaded, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in what `torch.load` returned, its keys without a DDP prefix."""
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
        raise WeightsError(
            f"{path} holds {_describe(loaded)}; expected a state dict, or NVIDIA's format with one under the key 'model'."
        )
    for prefix in DDP_PREFIXES:
        if all(str(key).startswith(prefix) for key in loaded):
            return {key[len(prefix) :]: value for key, value in loaded.items()}
    return {str(key): value for key, value in loaded.items()}


def _damaged(path: Path, reason: str) -> str:
    size = path.stat().st_size
    return f"{path} is truncated or damaged ({size:,} bytes, {reason[:160]}). Fetch it again."


def _describe(loaded) -> str:
    if isinstance(loaded, dict):
        shown = ", ".join(map(str, list(loaded)[:5]))
        return f"a dict with the keys {shown}" if loaded else "an empty dict"
    return f"an object of type {type(loaded).__name__}"


def _first_line(error: BaseException) -> str:
    return first_line(error)[:160]
