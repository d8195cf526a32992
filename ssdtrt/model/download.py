"""Fetching NVIDIA's COCO checkpoint into torch's hub cache, once, and knowing it again."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.errors import FetchError, WeightsError
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.files import replacing, write_text
from ssdtrt.system.progress import Progress, silent

TIMEOUT = 30  # seconds without a byte
NETWORK_ERRORS = (
    urllib.error.URLError, ssl.SSLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError
)  # fmt: skip


def no_check(_: Path) -> None:
    """The check of a file that was checked before."""


def coco_checkpoint(
    sha256: str | None = None, check: Callable[[Path], None] = no_check, progress: Progress = silent
) -> Path:
    """The path of NVIDIA's COCO checkpoint, fetched if it is not in torch's hub cache yet.

    The environment variable SSDTRT_COCO_URL names another address (a mirror). The file's SHA-256 is recorded beside it
    at first use and checked at each later one; `sha256` demands one. `check` is called with what was fetched before it
    gets its name. Raises FetchError where nothing usable comes, WeightsError where a digest is another; then nothing new
    is left behind.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / config.COCO_FILE
    if not path.exists():
        url = os.environ.get(config.COCO_URL_VARIABLE, config.COCO_URL)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            download(url, path, sha256, check, progress)
        except OSError as error:
            raise FetchError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            verify_digest(path, sha256)
        except WeightsError:  # The record of an earlier file is still there, and this is another one.
            path.unlink()
            raise
        return path
    if not record_of(path).exists():
        check(path)
    verify_digest(path, sha256)
    return path


def record_of(path: Path) -> Path:
    """Where the digest of a fetched file is recorded."""
    return path.with_name(path.name + ".sha256")


def verify_digest(path: Path, sha256: str | None) -> None:
    """Checks the file against `sha256` and against the digest beside it, which is recorded where there is none."""
    if path.is_dir():
        raise WeightsError(f"{path} is a directory; expected the checkpoint. Remove it.")
    record = record_of(path)
    found = sha256_file(path)
    if sha256 and found != sha256.lower():
        raise WeightsError(f"{path} has SHA-256 {found}; expected {sha256.lower()}.")
    if record.exists():
        recorded = record.read_text(encoding="utf-8", errors="replace").split()[:1]
        if recorded != [found]:
            raise WeightsError(
                f"{path} has changed: its SHA-256 is {found}, and {record.name} says {' '.join(recorded) or 'nothing'}. "
                "Remove both to fetch it again."
            )
    elif os.access(path.parent, os.W_OK):
        write_text(record, f"{found}  {path.name}\n")


def download(url: str, path: Path, sha256: str | None, check: Callable[[Path], None], progress: Progress) -> None:
    """Fetches `url` to `path` atomically, honouring the proxy variables. Raises FetchError or WeightsError."""
    advice = f"Fetch it by hand and give its path with --weights, or set {config.COCO_URL_VARIABLE} to a mirror."
    opener = urllib.request.build_opener()  # A new one, so that the proxy variables are those of now.
    with replacing(path) as temporary:
        try:
            with opener.open(url, timeout=TIMEOUT) as answer, open(temporary, "wb") as file:
                expected = int(answer.headers.get("Content-Length") or 0)
                kind = answer.headers.get_content_type()
                if kind == "text/html":
                    raise FetchError(f"{url} answered with an HTML page instead of the checkpoint. {advice}")
                needed, free = expected, shutil.disk_usage(path.parent).free
                if needed > free:
                    raise FetchError(f"{path.parent} has {free:,} bytes free; the checkpoint needs {needed:,}.")
                digest, size = copy(answer, file, expected, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise FetchError(f"{url} answered {error.code} ({error.reason}). {advice}") from error
        except NETWORK_ERRORS as error:
            raise FetchError(f"{url} cannot be fetched ({getattr(error, 'reason', error)}). {advice}") from error
        if expected and size != expected:
            raise FetchError(f"{url} broke off after {size:,} of {expected:,} bytes. Try again. {advice}")
        if sha256 and digest != sha256.lower():
            raise WeightsError(f"{url} has SHA-256 {digest}; expected {sha256.lower()}. Nothing was kept.")
        try:
            check(temporary)
        except WeightsError as error:
            raise FetchError(f"{url} is not a usable checkpoint: {str(error).replace(str(temporary), 'it')}") from error


def copy(source, target, expected: int, progress: Progress) -> tuple[str, int]:
    """Copies a stream and tells how far it is: its SHA-256 and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(1 << 18):
        target.write(block)
        digest.update(block)
        size += len(block)
        progress(f"fetching the COCO checkpoint {_bar(size, expected)}")
    return digest.hexdigest(), size


def _bar(size: int, expected: int) -> str:
    done = f"{size / 1e6:.0f}"
    if not expected:
        return f"{done} MB"
    filled = 20 * size // expected
    return f"[{'#' * filled}{'.' * (20 - filled)}] {done} of {expected / 1e6:.0f} MB"
