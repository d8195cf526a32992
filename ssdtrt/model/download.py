"""NVIDIA's COCO checkpoint: fetched into torch's hub cache once, and checked whenever it is used."""

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
from typing import BinaryIO

import torch

from ssdtrt import config
from ssdtrt.errors import FetchError, WeightsError
from ssdtrt.model.contents import CheckpointError
from ssdtrt.system.digests import check_sha256, sha256_file
from ssdtrt.system.files import replacing, write_text
from ssdtrt.system.progress import Progress, ProgressBar, silent

_TIMEOUT = 30  # seconds without a byte
_NETWORK_ERRORS = (
    urllib.error.URLError, ssl.SSLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError
)  # fmt: skip


def _no_check(_: Path) -> None:
    pass


def coco_checkpoint(
    sha256: str | None = None, check: Callable[[Path], object] = _no_check, progress: Progress = silent
) -> Path:
    """Return the path of NVIDIA's COCO checkpoint, fetching it if torch's hub cache does not have it.

    The environment variable SSDTRT_COCO_URL names another address (a mirror). The file's SHA-256 is recorded beside it
    at its first use, and checked at every later one.

    Args:
        sha256: The SHA-256 that the file must have.
        check: Called with the path of a file before its first use; raises CheckpointError if it cannot be used.
        progress: Called with a line about the progress of the download.

    Raises:
        FetchError: If the file cannot be fetched, or the fetched file cannot be used. It is not left in the cache.
        WeightsError: If the file has another SHA-256.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / config.COCO_FILE
    if not path.exists():
        url = os.environ.get(config.COCO_URL_VARIABLE, config.COCO_URL)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(url, path, sha256, check, progress)
        except OSError as error:
            raise FetchError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            _check_digests(path, sha256)
        except WeightsError:  # The record of an earlier file is still there, and this is another one.
            path.unlink()
            raise
        return path
    if not _record_of(path).exists():
        check(path)
    _check_digests(path, sha256)
    return path


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _check_digests(path: Path, sha256: str | None) -> None:
    """Checks the file against `sha256` and against the digest beside it, which is recorded if there is none."""
    if path.is_dir():
        raise WeightsError(f"{path} is a directory; expected the checkpoint. Remove it.")
    record = _record_of(path)
    found = sha256_file(path)
    if sha256 is not None:
        check_sha256(path, sha256, WeightsError, found=found)
    if record.exists():
        recorded = record.read_text(encoding="utf-8", errors="replace").split()[:1]
        try:
            check_sha256(path, "".join(recorded), WeightsError, f"as {record.name} has it", found=found)
        except WeightsError as error:
            raise WeightsError(f"{error} Remove it and {record.name} to fetch it again.") from error
    elif os.access(path.parent, os.W_OK):
        write_text(record, f"{found}  {path.name}\n")


def _fetch(url: str, path: Path, sha256: str | None, check: Callable[[Path], object], progress: Progress) -> None:
    """Fetches `url` to `path` atomically, through the proxy that the environment names."""
    advice = f"Fetch it by hand and give its path with --weights, or set {config.COCO_URL_VARIABLE} to a mirror."
    opener = urllib.request.build_opener()  # A new one, so that the proxy variables are those of now.
    with replacing(path) as temporary:
        try:
            with opener.open(url, timeout=_TIMEOUT) as response, open(temporary, "wb") as file:
                expected = int(response.headers.get("Content-Length") or 0)
                if response.headers.get_content_type() == "text/html":
                    raise FetchError(f"{url} answered with an HTML page instead of the checkpoint. {advice}")
                free = shutil.disk_usage(path.parent).free
                if expected > free:
                    raise FetchError(f"{path.parent} has {free:,} bytes free; the checkpoint needs {expected:,}.")
                digest, size = _copy(response, file, expected, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise FetchError(f"{url} answered {error.code} ({error.reason}). {advice}") from error
        except _NETWORK_ERRORS as error:
            raise FetchError(f"{url} cannot be fetched ({getattr(error, 'reason', error)}). {advice}") from error
        if expected and size != expected:
            raise FetchError(f"{url} broke off after {size:,} of {expected:,} bytes. Try again. {advice}")
        if sha256 is not None:
            check_sha256(url, sha256, WeightsError, found=digest)
        try:
            check(temporary)
        except CheckpointError as error:
            raise FetchError(f"{url} is not a usable checkpoint: it {error.reason}") from error


def _copy(source: BinaryIO, target: BinaryIO, expected: int, progress: Progress) -> tuple[str, int]:
    """Copies a stream, and returns its SHA-256 and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    bar = ProgressBar(progress, "fetching the COCO checkpoint", expected or None, unit="MB", scale=1e6)
    while block := source.read(1 << 18):
        target.write(block)
        digest.update(block)
        size += len(block)
        bar.update(size)
    return digest.hexdigest(), size
