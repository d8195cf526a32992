"""What a file says of itself, for people and for programs, on any machine: zip and JSON, no torch."""

from __future__ import annotations

import os
import platform
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdtrt.artifact.archive import check_digest, check_intact
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.artifact.fields import MUST_AGREE
from ssdtrt.system.host import installed, tensorrt_version
from ssdtrt.results import Result

MIN_VALUE = 24  # columns for a value, below which it goes under its name


@dataclass(frozen=True)
class Inspection(Result):
    """A file of ours: its size in bytes, its metadata, and how that agrees with this machine.

    `bytes_per_parameter` is None where the number of parameters is not recorded. `checked` says whether every byte was
    checked, or the metadata alone read. `differs` has a sentence for each difference that keeps it from running here,
    as far as that is seen without torch and without asking the GPU.
    """

    file: str
    bytes: int
    bytes_per_parameter: float | None
    checked: bool
    differs: tuple[str, ...]
    metadata: dict


def inspect_file(path: str | Path, *, check: bool = False, sha256: str | None = None) -> Inspection:
    """What one of our files says of itself; runs nothing of it. Raises ArtifactError.

    With `check` the CRC of every member is checked, and its SHA-256 where `<path>.sha256` has one; with `sha256` the
    file must have that digest.
    """
    path = Path(path)
    if check:
        check_intact(path)
    metadata = read_metadata(path)
    if check or sha256 is not None:
        check_digest(path, sha256)
    size, parameters = os.path.getsize(path), metadata["model"].get("parameters")
    per_parameter = size / parameters if type(parameters) is int and parameters > 0 else None
    return Inspection(str(path), size, per_parameter, check, tuple(differences(metadata)), metadata)


def differences(metadata: dict) -> list[str]:
    """What keeps a TensorRT engine from running here, without torch; its compute capability is not looked at."""
    if metadata["build"].get("backend") != "tensorrt":
        return []
    built = {**metadata["versions"], **metadata["machine"]}
    here = {
        "os": platform.system(),
        "architecture": platform.machine(),
        "tensorrt": tensorrt_version(),
        "torch_tensorrt": installed("torch-tensorrt"),
    }
    return [
        f"built for {MUST_AGREE[key]} {built[key]}; here is {here[key] or 'none'}"
        for key in here
        if here[key] != built[key]
    ]


def inspection_text(found: Inspection, width: int) -> str:
    """The whole of it as `name  value` lines, a value under its name where there is no room beside it."""
    size = f"{found.bytes:,} bytes"
    if found.bytes_per_parameter is not None:
        size += f", {found.bytes_per_parameter:.2f} a parameter"
    rows = [
        ("file", found.file),
        ("size", size),
        ("checked", "every byte's checksum" if found.checked else "metadata only (--check reads it all)"),
        ("fits this machine", fits(found)),
        *flat(found.metadata),
    ]
    column = max(len(name) for name, _ in rows) + 2
    if width - column < MIN_VALUE:
        return "\n".join("\n".join([printable(name), *wrapped(value, width, "  ")]) for name, value in rows)
    lines = []
    for name, value in rows:
        first, *more = wrapped(value, width, " " * column)
        lines += [printable(name).ljust(column) + first[column:], *more]
    return "\n".join(lines)


def fits(found: Inspection) -> str:
    """Whether it fits this machine, as far as that is known."""
    if found.differs:
        return "no: " + "; ".join(found.differs)
    if found.metadata["build"].get("backend") == "tensorrt":
        sm = found.metadata["machine"]["sm"]
        return f"yes, as far as can be told without the GPU; that must be of compute capability {sm}"
    return "yes: it needs torch alone"


def flat(value: dict, prefix: str = "") -> list[tuple[str, str]]:
    """The metadata as rows, an object's fields under dotted names."""
    rows = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            rows += flat(item, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", in_words(item)))
    return rows


def in_words(value: Any) -> str:
    """A value that is no object with fields, in one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    if isinstance(value, dict):
        if {"name", "dtype", "shape"} <= value.keys():
            return f"{in_words(value['name'])} [{in_words(value['shape'])}] {in_words(value['dtype'])}"
        return " ".join(f"{key} {in_words(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def wrapped(value: str, width: int, indent: str) -> list[str]:
    """A value as indented lines no wider than `width`, at least one."""
    text = printable(value) or "-"
    return textwrap.wrap(
        text, max(width, len(indent) + 8), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    ) or [indent]


def printable(text: str) -> str:
    """The text with what a terminal would act on written as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
