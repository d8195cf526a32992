"""Compute the SHA-256 of a file, and check it against an expected digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated

import msgspec

from ssdtrt.errors import SsdtrtError

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256, as 64 lowercase hex digits."""


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes, as 64 lowercase hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 lowercase hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(
    path: str | Path,
    expected: str,
    raising: type[SsdtrtError],
    origin: str = "as requested",
    *,
    found: str | None = None,
) -> str:
    """Check a file against an expected SHA-256, and return the digest.

    Args:
        path: The file, or the name for it in messages.
        expected: The digest that the file must have: 64 hex digits of either case.
        raising: The type of the error to raise.
        origin: Where the expected digest comes from, for the message.
        found: The file's digest, if it is known already.

    Raises:
        SsdtrtError: An error of the type `raising`, if `expected` is not a SHA-256 or not that of the file.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise raising(f"{expected!r} is not a SHA-256; expected 64 hex digits, as sha256sum {path} prints them.")
    found = found or sha256_file(path)
    if found != expected.lower():
        raise raising(
            f"{path} has the SHA-256 {found}; expected {expected.lower()}, {origin}. "
            "The file is damaged or a different one: get it again from the source of the digest."
        )
    return found
