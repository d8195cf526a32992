"""Read what a file records, and check whether it can run on this machine. Imports no torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdtrt.artifact.metadata import EngineMetadata, Metadata, read_metadata
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.archive import check_digest
from ssdtrt.formats.container import check_intact
from ssdtrt.model.labels import are_numbered
from ssdtrt.system.report import Report
from ssdtrt.system.versions import installed, installed_versions, tensorrt_version, this_machine

if TYPE_CHECKING:
    import torch

# What must be the same where a TensorRT engine is built and where it runs: fields of the metadata's `machine` or
# `versions`, and their names in messages.
_MUST_MATCH = {
    "os": "operating system",
    "architecture": "architecture",
    "sm": "compute capability",
    "tensorrt": "TensorRT",
    "torch_tensorrt": "Torch-TensorRT",
}

_NO_NAMES = "the classes have no names, only numbers (ssdtrt export --labels FILE names them)"


class Inspection(Report, frozen=True):
    """The metadata of a file, and whether it can run on this machine.

    Attributes:
        file: The path.
        bytes: The size.
        bytes_per_parameter: The size divided by the number of parameters; None if that number is not recorded.
        checked: Whether the whole file was checked, or only the metadata was read.
        differs: A sentence for each difference from this machine that prevents the file from running. The GPU is not
            compared, which would take torch.
        metadata: The metadata, as JSON types.
        notes: What a user of the file must know.
    """

    kind = "inspection"
    schema = 2

    file: str
    bytes: int
    bytes_per_parameter: float | None
    checked: bool
    differs: tuple[str, ...]
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


def inspect_file(path: str | Path, *, check: bool = False, sha256: str | None = None) -> Inspection:
    """Return what a file records, without running any of its code.

    Args:
        path: The file.
        check: Whether to check the checksum of every byte, and the SHA-256 if there is a `<path>.sha256`.
        sha256: The SHA-256 that the file must have.

    Raises:
        ArtifactError: If the file cannot be read, is damaged, or is not one of ssdtrt's files.
    """
    path = Path(path)
    if check:
        check_intact(path)
    metadata = read_metadata(path)
    if check or sha256 is not None:
        check_digest(path, sha256)
    size, parameters = os.path.getsize(path), metadata.model.parameters
    per_parameter = size / parameters if parameters else None
    return Inspection(
        file=str(path),
        bytes=size,
        bytes_per_parameter=per_parameter,
        checked=check,
        differs=tuple(_differences(metadata)),
        metadata=metadata.as_dict(),
        notes=(_NO_NAMES,) if are_numbered(metadata.model.labels) else (),
    )


def described(metadata: Metadata) -> dict[str, str]:
    """Return what a notebook shows of a file: names and values, in words."""
    model, names = metadata.model, metadata.model.labels[1:]
    batch, weights = metadata.batch_range, model.weights
    name = weights.name if weights else "not recorded"
    return {
        "kind": f"{metadata.kind}, {metadata.format}",
        "precision": metadata.precision,
        "batch size": "any" if batch is None else str(batch),
        "classes": f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
        "weights": name if metadata.trained else f"{name}, untrained",
        "preprocessing": model.preprocess,
        "created": metadata.created,
    }


def module_path(path: Path, metadata: EngineMetadata) -> Path:
    """Return where the module of an engine is by its recorded name: in the engine's folder, or else the current one."""
    beside = path.parent / metadata.module.file
    return beside if beside.is_file() else Path(metadata.module.file)


def check_fits(path: Path, metadata: Metadata, device: torch.device) -> None:
    """Check that an engine was built for this operating system, GPU generation, TensorRT and Torch-TensorRT.

    Args:
        path: The file.
        metadata: The metadata of the file.
        device: The GPU to run on.

    Raises:
        ArtifactError: If it was not; the message has the command that builds the engine again.
    """
    if not isinstance(metadata, EngineMetadata):
        return
    here = {**installed_versions().as_dict(), **this_machine(device).as_dict()}
    built = _built(metadata)
    for key in _must_match(metadata):
        if here[key] != built[key]:
            name = _MUST_MATCH[key]
            raise ArtifactError(
                f"{path} was built for {name} {built[key]}; this machine has {here[key]}. "
                f"Build it again here: {metadata.request.command(str(module_path(path, metadata)), str(path))}"
            )


def _must_match(metadata: EngineMetadata) -> list[str]:
    """Return the names of what must be the same, which for a plan is not Torch-TensorRT."""
    return [key for key in _MUST_MATCH if metadata.format != "plan" or key != "torch_tensorrt"]


def _built(metadata: EngineMetadata) -> dict[str, Any]:
    return {**metadata.versions.as_dict(), **metadata.machine.as_dict()}


def _differences(metadata: Metadata) -> list[str]:
    """Return the differences that prevent a TensorRT engine from running, except the compute capability."""
    if not isinstance(metadata, EngineMetadata) or not metadata.request.capabilities.on_gpu:
        return []
    built = _built(metadata)
    here = {
        "os": platform.system(),
        "architecture": platform.machine(),
        "tensorrt": tensorrt_version(),
        "torch_tensorrt": installed("torch-tensorrt"),
    }
    return [
        f"built for {_MUST_MATCH[key]} {built[key]}; this machine has {here[key] or 'none'}"
        for key in _must_match(metadata)
        if key in here and here[key] != built[key]
    ]
