"""SHA-256 of files, and the one check of a file against a digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ssdtrt.errors import SsdtrtError


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
    origin: str = "as demanded",
    *,
    found: str | None = None,
) -> str:
    """Return the SHA-256 of a file after comparing it with the one expected.

    Args:
        path: The file, or what a message calls it.
        expected: The digest that it must have, 64 hex digits of either case.
        raising: The error to raise.
        origin: Where the expected digest is from, for the message.
        found: The file's digest, where it is known already.

    Raises:
        SsdtrtError: The error of the type `raising`, where `expected` is no SHA-256 or not the file's.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise raising(f"{expected!r} is no SHA-256; expected 64 hex digits, as sha256sum {path} prints them.")
    found = found or sha256_file(path)
    if found != expected.lower():
        raise raising(
            f"{path} has the SHA-256 {found}; expected {expected.lower()}, {origin}. "
            "It is damaged or another file: get it again from where the digest is from."
        )
    return found
