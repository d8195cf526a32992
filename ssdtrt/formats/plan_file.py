"""Read the record of a TensorRT plan, and check the plan against it. Imports no torch.

A plan is a serialized engine by itself, as trtexec and other programs of TensorRT take it, so that nothing of ours is in
it. Its metadata is the file `NAME.json` beside it, which also holds the size and the SHA-256 of the plan.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.regular_file import read_start
from ssdtrt.system.digests import Digest, sha256_bytes, sha256_file
from ssdtrt.system.report import Report

MAGIC = b"trt"  # Of every plan, after a letter: TensorRT writes "f", TensorRT-RTX "v".


class PlanInfo(Report, frozen=True):
    """A serialized engine: its size in bytes and its SHA-256."""

    size: int
    sha256: Digest

    @classmethod
    def of(cls, plan: bytes) -> PlanInfo:
        """Return the record of a serialized engine."""
        return cls(len(plan), sha256_bytes(plan))


class _Record(msgspec.Struct, frozen=True):
    """The part of the record that the plan is checked against."""

    plan: PlanInfo


def is_plan(path: Path) -> bool:
    """Return whether a file is a TensorRT plan, by its first bytes, or, unless it is an archive, by its name.

    Raises:
        ArtifactError: If it is not a regular file, cannot be read, or is empty.
    """
    start = read_start(path)
    return start[1:4] == MAGIC or (path.suffix == ".plan" and not start.startswith(b"PK"))


def record_path(path: Path) -> Path:
    """Return the path of the record of a plan."""
    return path.with_name(f"{path.name}.json")


def read_record(path: Path) -> bytes:
    """Return the record of a plan, as JSON text.

    Raises:
        ArtifactError: If there is none, or it cannot be read.
    """
    record = record_path(path)
    if not os.path.lexists(record):
        raise ArtifactError(
            f"{path} is a TensorRT plan without its record {record.name}, which must be beside it. Copy both, or build it "
            "again: ssdtrt compile --format plan"
        )
    read_start(record)  # Refuses a named pipe, which would block.
    try:
        with open(record, "rb") as file:
            text = file.read(config.MAX_METADATA + 1)
    except OSError as error:
        raise ArtifactError(f"{record} cannot be read: {error.strerror or error}.") from error
    if len(text) > config.MAX_METADATA:
        raise ArtifactError(
            f"{record} has more than {config.MAX_METADATA:,} bytes, which no record has. Make it again."
        )
    return text


def check_intact(path: Path) -> None:
    """Check the SHA-256 of a plan against its record.

    Raises:
        ArtifactError: If it is another, or the record has none.
    """
    record = record_path(path)
    try:
        recorded = msgspec.json.decode(read_record(path), type=_Record).plan
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{record} is damaged ({error}). Make the plan again: ssdtrt compile --format plan"
        ) from error
    if sha256_file(path) != recorded.sha256:
        raise ArtifactError(
            f"{path} is not the plan that {record.name} is the record of (the SHA-256 is another). Copy both from where "
            "they were built, or build it again: ssdtrt compile --format plan"
        )
