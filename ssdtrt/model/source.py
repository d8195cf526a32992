"""The origin of a model's weights. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Optional

import msgspec

from ssdtrt.system.report import Report

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256, as 64 lowercase hex digits."""


class WeightsSource(Report, frozen=True):
    """The origin of a model's weights.

    Attributes:
        name: `coco`, `random` or a file's name.
        sha256: The SHA-256 of the tensors (see `ssdtrt.model.weights.state_sha256`).
        trained: False for random weights.
        file_sha256: The SHA-256 of the file; None for random weights.
    """

    name: str
    sha256: Digest
    trained: bool
    file_sha256: Optional[Digest] = None
