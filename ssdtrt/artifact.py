"""What a saved file says of itself: a JSON member inside the TorchScript archive, readable without torch."""

from __future__ import annotations

import contextlib
import datetime
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.files import BusyError, check_writable, replacing

KINDS = ("module", "engine", "detector")


def read_metadata(path: str | Path, kinds: tuple[str, ...] = KINDS) -> dict:
    """The metadata of one of our files, and an ArtifactError that says what was found where it is not one.

    `kinds` are those that the caller can use.
    """
    path = Path(path)
    check_readable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            ours = [name for name in names if name.endswith(f"/extra/{config.METADATA_NAME}")]
            text = archive.read(ours[-1]) if ours else None
    except Exception as error:  # A damaged archive raises more than BadZipFile.
        raise ArtifactError(f"{path} is truncated or not one of ssdtrt's files ({error}). Make it again.") from error
    if text is None:
        raise ArtifactError(f"{path} {describe_foreign(names)}.")
    try:
        metadata = json.loads(text)
        kind, schema = metadata["kind"], int(metadata["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} carries damaged metadata ({error}). Make it again.") from error
    if schema > config.SCHEMA:
        raise ArtifactError(
            f"{path} was written by a newer ssdtrt (schema {schema}, this one reads up to {config.SCHEMA}). Update ssdtrt."
        )
    if kind not in kinds:
        raise ArtifactError(wrong_kind(path, kind, kinds))
    return metadata


def check_readable(path: Path) -> None:
    """Raises ArtifactError, naming what is there instead, unless `path` is a file that can be a zip archive."""
    if path.is_dir():
        raise ArtifactError(f"{path} is a directory; expected a file that ssdtrt export or ssdtrt compile wrote.")
    if not path.exists():
        raise ArtifactError(f"{path}: no such file. {making(path)}")
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    if not start:
        raise ArtifactError(f"{path} is empty; expected a file that ssdtrt export or ssdtrt compile wrote.")
    if not start.startswith(b"PK"):
        raise ArtifactError(
            f"{path} is not one of ssdtrt's files (it begins with {start!r}); "
            "expected one that ssdtrt export or ssdtrt compile wrote."
        )


def describe_foreign(names: list[str]) -> str:
    """What a zip archive without our metadata is, and what to do with it."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript archive without ssdtrt's metadata; make it with ssdtrt export or ssdtrt compile"
    if any(name.endswith("/data.pkl") for name in names):
        return "is a checkpoint, not a module; first run: ssdtrt export --weights FILE"
    return "is a zip archive, but not one of ssdtrt's files"


def making(path: Path) -> str:
    """The command that makes a file of this name."""
    commands = {".engine": "ssdtrt compile", ".detector": "ssdtrt compile --detector"}
    known = [command for part, command in commands.items() if part in path.name]
    return f"Make it first: {known[0] if known else 'ssdtrt export'}"


def wrong_kind(path: Path, kind: str, kinds: tuple[str, ...]) -> str:
    """The message for a file of ours that the caller cannot use."""
    article = "an" if kind == "engine" else "a"
    text = f"{path} is {article} {kind}; expected a file of kind {' or '.join(kinds)}."
    if kind in ("engine", "detector") and kinds == ("module",):
        text += " An engine is not compiled again: give the module that ssdtrt export wrote."
    return text


def add_metadata(path: str | Path, metadata: dict) -> None:
    """Adds the metadata member to a TorchScript archive that `torch.jit.save` wrote, leaving its other bytes alone."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        folder = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(f"{folder}/extra/{config.METADATA_NAME}", json.dumps(metadata, indent=1))


def new_metadata(kind: str) -> dict:
    """What every file's metadata begins with."""
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"schema": config.SCHEMA, "kind": kind, "created": created}


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """`files.replacing`, alone, with what the system refuses said as an ArtifactError."""
    try:
        with replacing(path, alone=True) as temporary:
            yield temporary
    except BusyError as error:
        raise ArtifactError(f"{path} cannot be written: {error}. Wait for it, or give another path with -o.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_output(path: str | Path) -> Path:
    """The path as a Path, where a file can be written there; else ArtifactError, before any work is done."""
    path = Path(path)
    reason = check_writable(path)
    if reason:
        raise ArtifactError(f"{path} cannot be written: {reason}. Give another path with -o.")
    return path
