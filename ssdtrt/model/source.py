"""The origin of a model's weights. Imports no torch."""

from __future__ import annotations

from typing import Optional

from ssdtrt.system.digests import Digest
from ssdtrt.system.report import Report


class WeightsSource(Report, frozen=True):
    """The origin of a model's weights.

    Attributes:
        name: `coco`, `scenes`, `random` or a file's name.
        sha256: The SHA-256 of the tensors (see `ssdtrt.model.weights.state_sha256`).
        trained: False for random weights.
        file_sha256: The SHA-256 of the file; None for random weights.
    """

    name: str
    sha256: Digest
    trained: bool
    file_sha256: Optional[Digest] = None
