"""Read the record and check the bytes of a saved file, whichever format it has. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ssdtrt import config
from ssdtrt.formats import archive, onnx_file


def read_record(path: Path) -> bytes:
    """Return the metadata of a file, as JSON text.

    Raises:
        ArtifactError: If the file is damaged, or is not one of ssdtrt's.
    """
    if onnx_file.is_onnx(path):
        return onnx_file.read_record(path)
    return archive.read_member(path, f"/extra/{config.METADATA_NAME}", config.MAX_METADATA)


def check_intact(path: str | Path) -> None:
    """Check the checksums that a file holds of itself: an archive's CRCs, an ONNX file's SHA-256.

    Raises:
        ArtifactError: If the file is damaged, or is not one of ssdtrt's.
    """
    path = Path(path)
    (onnx_file if onnx_file.is_onnx(path) else archive).check_intact(path)
