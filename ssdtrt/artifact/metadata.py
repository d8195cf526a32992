"""What a saved file says of itself: a JSON member inside the TorchScript archive, readable without torch."""

from __future__ import annotations

import contextlib
import datetime
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ssdtrt import config
from ssdtrt.artifact import fields
from ssdtrt.artifact.archive import check_digest, check_intact, read_member
from ssdtrt.errors import ArtifactError
from ssdtrt.system.files import BusyError, check_writable, replacing

KINDS = tuple(fields.OF_KIND)


def read_metadata(path: str | Path, kinds: tuple[str, ...] = KINDS) -> dict:
    """The metadata of one of our files, complete, and an ArtifactError that says what was found where it is not one.

    `kinds` are those that the caller can use. The other members are not read: `check_file` does that.
    """
    path = Path(path)
    text, names = read_member(path, f"/extra/{config.METADATA_NAME}", config.MAX_METADATA)
    if text is None:
        raise ArtifactError(f"{path} {describe_foreign(names)}.")
    metadata = parse(path, text)
    if metadata["schema"] > config.SCHEMA:
        raise ArtifactError(
            f"{path} was written by a newer ssdtrt (schema {metadata['schema']}, "
            f"this one reads up to {config.SCHEMA}). Update ssdtrt."
        )
    kind = metadata["kind"]
    if kind not in KINDS:
        raise ArtifactError(f"{path} is of the unknown kind {kind[:40]!r}; expected {' or '.join(kinds)}.")
    if kind not in kinds:
        raise ArtifactError(wrong_kind(path, kind, kinds))
    reason = fields.complaint(metadata, fields.OF_KIND[kind])
    if reason:
        raise ArtifactError(damaged(path, reason))
    return metadata


def parse(path: Path, text: bytes) -> dict:
    """The JSON object, with a schema and a kind. Raises ArtifactError."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(damaged(path, str(error))) from error
    if not isinstance(metadata, dict):
        raise ArtifactError(damaged(path, f"it is {fields.shown(metadata)}; expected an object"))
    reason = fields.complaint(metadata, fields.ALWAYS)
    if reason:
        raise ArtifactError(damaged(path, reason))
    return metadata


def damaged(path: Path, reason: str) -> str:
    """The message for metadata that we did not write."""
    return f"{path} carries damaged metadata ({reason}). Make it again."


def check_file(path: str | Path, kinds: tuple[str, ...] = KINDS, *, sha256: str | None = None) -> dict:
    """The metadata of a file that may be loaded: its archive intact, its digest right, and what it says complete.

    The digest is `sha256`, or that in `<path>.sha256` where there is one. Runs nothing of the file. Raises
    ArtifactError.
    """
    check_intact(path)
    check_digest(path, sha256)
    return read_metadata(path, kinds)


def describe_foreign(names: list[str]) -> str:
    """What a zip archive without our metadata is, and what to do with it."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript archive without ssdtrt's metadata; make it with ssdtrt export or ssdtrt compile"
    if any(name.endswith("/data.pkl") for name in names):
        return "is a checkpoint, not a module; first run: ssdtrt export --weights FILE"
    return "is a zip archive, but not one of ssdtrt's files"


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


def check_output(path: str | Path, option: str = " with -o") -> Path:
    """The path as a Path, where a file can be written there; else ArtifactError, before any work is done.

    `option` says how another path is given.
    """
    path = Path(path)
    reason = check_writable(path)
    if reason:
        raise ArtifactError(f"{path} cannot be written: {reason}. Give another path{option}.")
    return path
