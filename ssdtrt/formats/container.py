"""Read the record and check the bytes of a saved file, whichever format it has. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ssdtrt import config
from ssdtrt.formats import archive, onnx_file, plan_file


def format_of(path: Path) -> str:
    """Return the format of a file: `torchscript`, `onnx` or `plan`.

    Raises:
        ArtifactError: If it is not a regular file, cannot be read, or is empty.
    """
    if plan_file.is_plan(path):
        return "plan"
    return "onnx" if onnx_file.is_onnx(path) else "torchscript"


def read_record(path: Path) -> bytes:
    """Return the metadata of a file, as JSON text.

    Raises:
        ArtifactError: If the file is damaged, or is not one of ssdtrt's.
    """
    found = format_of(path)
    if found == "plan":
        return plan_file.read_record(path)
    if found == "onnx":
        return onnx_file.read_record(path)
    return archive.read_member(path, f"/extra/{config.METADATA_NAME}", config.MAX_METADATA)


def check_intact(path: str | Path) -> None:
    """Check the checksums that are kept of a file: an archive's CRCs, the SHA-256 of an ONNX file or a plan.

    Raises:
        ArtifactError: If the file is damaged, or is not one of ssdtrt's.
    """
    path = Path(path)
    {"plan": plan_file, "onnx": onnx_file, "torchscript": archive}[format_of(path)].check_intact(path)
