"""What a file records, and whether it fits this machine: zip and JSON alone, no torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdtrt.artifact.archive import check_digest, check_intact
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, read_metadata
from ssdtrt.errors import ArtifactError
from ssdtrt.system.report import Report
from ssdtrt.system.versions import installed, installed_versions, tensorrt_version, this_machine

if TYPE_CHECKING:
    import torch

# What a TensorRT engine was built with and must find again, by the field of its metadata's `machine` or `versions`.
MUST_AGREE = {
    "os": "operating system",
    "architecture": "architecture",
    "sm": "compute capability",
    "tensorrt": "TensorRT",
    "torch_tensorrt": "Torch-TensorRT",
}


class Inspection(Report, frozen=True):
    """A file of ours, and how it agrees with this machine.

    Attributes:
        file: Its path.
        bytes: Its size.
        bytes_per_parameter: The same over the number of parameters; None where that is not recorded.
        checked: Whether every byte was checked, or the metadata alone read.
        differs: A sentence for each difference that keeps it from running here, as far as that is seen without torch
            and without asking the GPU.
        metadata: What it records, as JSON types.
    """

    kind = "inspection"
    schema = 2

    file: str
    bytes: int
    bytes_per_parameter: float | None
    checked: bool
    differs: tuple[str, ...]
    metadata: dict[str, Any]


def inspect_file(path: str | Path, *, check: bool = False, sha256: str | None = None) -> Inspection:
    """Return what one of our files records; runs nothing of it.

    Args:
        path: The file.
        check: Whether to check the CRC of every member, and the SHA-256 where `<path>.sha256` has one.
        sha256: The digest that the file must have.

    Raises:
        ArtifactError: Says what is wrong with it.
    """
    path = Path(path)
    if check:
        check_intact(path)
    metadata = read_metadata(path)
    if check or sha256 is not None:
        check_digest(path, sha256)
    size, parameters = os.path.getsize(path), metadata.model.parameters
    per_parameter = size / parameters if parameters else None
    return Inspection(str(path), size, per_parameter, check, tuple(_differences(metadata)), metadata.as_dict())


def check_fits(path: Path, metadata: Metadata, device: torch.device) -> None:
    """Check that an engine was built for this system, GPU generation, TensorRT and Torch-TensorRT.

    Raises:
        ArtifactError: Where it was not, with the command that builds it here.
    """
    if not isinstance(metadata, EngineMetadata):
        return
    here = {**installed_versions().as_dict(), **this_machine(device).as_dict()}
    built = _built(metadata)
    for key, name in MUST_AGREE.items():
        if here[key] != built[key]:
            raise ArtifactError(
                f"{path} was built for {name} {built[key]}; this machine has {here[key]}. "
                f"Build it again here: {metadata.rebuild_command}"
            )


def _built(metadata: EngineMetadata) -> dict[str, Any]:
    return {**metadata.versions.as_dict(), **metadata.machine.as_dict()}


def _differences(metadata: Metadata) -> list[str]:
    """What keeps a TensorRT engine from running here, without torch; its compute capability is not looked at."""
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
        f"built for {MUST_AGREE[key]} {built[key]}; here is {here[key] or 'none'}"
        for key in here
        if here[key] != built[key]
    ]
