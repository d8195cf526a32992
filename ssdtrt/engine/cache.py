"""Cache accepted engines, by a key of everything that determines them, and TensorRT's timing cache."""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.artifact.cache_folder import cache_folder, cache_limit
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.build import Built
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.files import open_in_use, remove_unused, replacing
from ssdtrt.system.versions import installed_versions, this_machine

_logger = logging.getLogger(__name__)
_MANGLED = re.compile(rb"\.?___torch_mangle_\d+")
_DIGEST_SIZE = hashlib.sha256().digest_size
# The modules whose code determines the content of an engine file.
_WRITERS = (
    "runners.torchscript", "engine.modules", "engine.network_writer", "rewriting.equalized", "rewriting.fused", "rewriting.quantized", "rewriting.quantizers",
    "engine.tensorrt_backend", "engine.torch_tensorrt_backend", "engine.torchscript_backend", "engine.worker",
    "images.tensors", "model.backbone", "model.boxes", "model.nms", "model.ssd",
)  # fmt: skip


class _Entry(msgspec.Struct, frozen=True):
    """The record of a cached engine: its SHA-256, its build, its comparison with FP32 and what was asked for."""

    sha256: str
    built: Built
    parity: ParityReport
    request: BuildRequest | None = None


def cache_key(request: BuildRequest, device: torch.device) -> str:
    """Return the SHA-256 of everything that determines an engine.

    That is the request, with the digests of the weights and the graph, the device, the driver, the installed versions,
    and the code of the modules that write the network, without its comments and docstrings.
    """
    if request.quantization is not None:  # Its ranges count, not the names of the files that they came from.
        request = replace(request, quantization=replace(request.quantization, table="", pictures=()))
    parts = {"request": request.as_dict(), "code": _code_digest(), "here": _environment(device)}
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def graph_digest(module: Path) -> str:
    """Return a SHA-256 of a module's code and of the sizes and checksums of its tensors.

    The names of the classes in the code, and their order, depend on what the process exported before. Therefore the
    numbers in the names are removed and the lines sorted.
    """
    tensors: list[tuple[str, int, int]] = []
    lines: list[bytes] = []
    with zipfile.ZipFile(module) as archive:
        for info in archive.infolist():
            name = info.filename.split("/", 1)[-1]
            if name.startswith("data/"):
                tensors.append((name, info.file_size, info.CRC))
            elif name.startswith("code/") and name.endswith(".py"):
                lines += _MANGLED.sub(b"", archive.read(info)).splitlines()
    digest = hashlib.sha256(b"\n".join(sorted(lines)))
    digest.update(repr(sorted(tensors)).encode())
    return digest.hexdigest()


def copy_from_cache(key: str, target: Path) -> _Entry | None:
    """Copy a cached engine to a file.

    A damaged entry is removed from the cache.

    Args:
        key: The key from `cache_key`.
        target: The file to write.

    Returns:
        The record of the engine (`built`, `parity`); None if it is not in the cache.

    Raises:
        SsdtrtError: If the limit in SSDTRT_CACHE_LIMIT, which is kept after the build, is not a size.
        OSError: If the target's disk is full.
    """
    folder = cache_folder()
    if folder is None:
        return None
    cache_limit()
    engine, record = folder / f"{key}.ts", folder / f"{key}.json"
    try:
        with open_in_use(record) as opened:
            entry = msgspec.json.decode(opened.read(), type=_Entry)
            shutil.copyfile(engine, target)
            _note_use(record)
        if sha256_file(target) == entry.sha256:
            return entry
        _logger.warning("%s is damaged; the engine is built again", engine)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):  # It is the target that has no room.
            raise
        _logger.warning("%s cannot be used (%s); the engine is built again", record, error)
    with contextlib.suppress(OSError):
        remove_unused(record, engine)
    return None


def add_to_cache(
    key: str, engine: Path, built: Built, parity: ParityReport, request: BuildRequest | None = None
) -> None:
    """Copy an accepted engine to the cache. An error is only logged."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The record appears last. While it is being written, `remove_unused` leaves the engine alone too.
        with replacing(folder / f"{key}.json") as record, replacing(folder / f"{key}.ts") as temporary:
            shutil.copyfile(engine, temporary)
            entry = _Entry(sha256_file(temporary), built, parity, request)
            record.write_bytes(msgspec.json.encode(entry))
    except (OSError, UnicodeEncodeError) as error:  # The latter for a request with a path that is no text.
        _logger.warning("the engine could not be cached in %s: %s", folder, getattr(error, "strerror", None) or error)


def timing_cache_file(device: torch.device) -> Path | None:
    """Return the path of TensorRT's timing cache for this GPU and these versions; None if the cache is turned off."""
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(msgspec.json.encode(_environment(device), order="sorted")).hexdigest()
    return folder / f"timings-{digest[:16]}.bin"


def read_timing_cache(path: Path | None) -> bytes:
    """Return the timing cache that `write_timing_cache` wrote; empty if there is none, or it is damaged."""
    try:
        content = path.read_bytes() if path else b""
    except OSError:
        return b""
    if path:
        _note_use(path)
    timing_cache = content[_DIGEST_SIZE:]
    return timing_cache if content[:_DIGEST_SIZE] == hashlib.sha256(timing_cache).digest() else b""


def write_timing_cache(path: Path | None, timing_cache: bytes) -> None:
    """Write a timing cache, preceded by its SHA-256. Of two builds at the same time, the later one wins.

    An error is only logged.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as temporary:
            temporary.write_bytes(hashlib.sha256(timing_cache).digest() + timing_cache)
    except OSError as error:
        _logger.warning("the timing cache could not be written to %s: %s", path, error.strerror or error)


def _environment(device: torch.device) -> dict[str, dict[str, Any]]:
    """Return the device, the driver and the library versions.

    The number of available cores, Python's version and ssdtrt's own are left out: they do not change an engine.
    """
    versions = {
        name: value for name, value in installed_versions().as_dict().items() if name not in ("ssdtrt", "python")
    }
    machine = {name: value for name, value in this_machine(device).as_dict().items() if name != "cores"}
    return {"versions": versions, "machine": machine}


def _code_digest() -> str:
    """Return the SHA-256 of the code of `_WRITERS`, without comments and docstrings, and of its `config` constants."""
    digest = hashlib.sha256()
    for name in _WRITERS:
        spec = importlib.util.find_spec(f"ssdtrt.{name}")
        assert spec is not None and spec.origin is not None
        code, constants = _parse(Path(spec.origin).read_bytes())
        for constant in constants:
            digest.update(f"{constant} {getattr(config, constant)}\n".encode())
        digest.update(f"{name}\n{code}\n".encode())
    return digest.hexdigest()


@functools.cache
def _parse(source: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the code of a module without comments and docstrings, and the `config` constants that it names."""
    tree = ast.parse(source)
    constants = []
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
            constants.append(node.attr)
    return ast.dump(tree), tuple(constants)


def _note_use(path: Path) -> None:
    """Set a file's time to now: what was not used for the longest time is removed first (`keep_cache_limit`)."""
    with contextlib.suppress(OSError):  # The folder may be one that only others can write to.
        os.utime(path)
