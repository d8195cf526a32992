"""What is kept for the next build of the same: accepted engines, found by all that changes them, and kernel times."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path

import msgspec
import torch

from ssdtrt import config
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.build import Built
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.files import replacing
from ssdtrt.system.versions import installed_versions, this_machine

logger = logging.getLogger(__name__)
_NUMBERS = re.compile(rb"\.?___torch_mangle_\d+")
_DIGEST = hashlib.sha256().digest_size
# The modules whose code decides what lies in an engine file; the text of any other changes none.
_WRITERS = (
    "artifact.torchscript", "engine.backends", "engine.modules", "engine.rewrite", "engine.tensorrt_backend",
    "engine.torch_tensorrt_backend", "engine.torchscript_backend", "engine.worker", "images.tensors", "model.backbone",
    "model.boxes", "model.nms", "model.ssd",
)  # fmt: skip


class Kept(msgspec.Struct, frozen=True):
    """What is known of a kept engine: its SHA-256, how it was built, and how far it is from FP32."""

    sha256: str
    built: Built
    parity: ParityReport


def cache_folder() -> Path | None:
    """Return where engines are kept.

    That is the folder named by SSDTRT_CACHE (nowhere if it is empty), or ssdtrt/engines in the user's cache folder.
    """
    given = os.environ.get(config.CACHE_VARIABLE)
    if given is not None:
        return Path(given) if given else None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # No home.
        return None
    return Path(base) / "ssdtrt" / "engines"


def cache_key(request: BuildRequest, device: torch.device) -> str:
    """Return the SHA-256 of all that can change an engine.

    That is the request (with the digests of weights and graph), the GPU, the driver, the versions here, and the code
    of the modules that write the network, without its comments and docstrings.
    """
    parts = {"request": request.as_dict(), "code": _code_digest(), "here": _here(device)}
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def graph_digest(module: Path) -> str:
    """Return a SHA-256 of a module's code and of the sizes and checksums of its tensors.

    torch numbers the classes of a process and groups them in files by that, so two exports of one model differ in names
    and in the order of their classes: the numbers are left out and the lines sorted.
    """
    tensors: list[tuple[str, int, int]] = []
    lines: list[bytes] = []
    with zipfile.ZipFile(module) as archive:
        for info in archive.infolist():
            name = info.filename.split("/", 1)[-1]
            if name.startswith("data/"):
                tensors.append((name, info.file_size, info.CRC))
            elif name.startswith("code/") and name.endswith(".py"):
                lines += _NUMBERS.sub(b"", archive.read(info)).splitlines()
    digest = hashlib.sha256(b"\n".join(sorted(lines)))
    digest.update(repr(sorted(tensors)).encode())
    return digest.hexdigest()


def take(key: str, target: Path) -> Kept | None:
    """Copy a kept engine to `target` and return what is known of it; None where there is none.

    What is not as it was written is thrown away.
    """
    folder = cache_folder()
    if folder is None:
        return None
    engine, facts = folder / f"{key}.ts", folder / f"{key}.json"
    try:
        known = msgspec.json.decode(facts.read_bytes(), type=Kept)
        shutil.copyfile(engine, target)
        if sha256_file(target) == known.sha256:
            os.utime(facts)  # The last used are kept the longest.
            return known
        logger.warning("%s is damaged and is built again", engine)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be used (%s) and is built again", facts, error)
    _discard(folder, key)
    return None


def keep(key: str, engine: Path, built: Built, parity: ParityReport) -> None:
    """Keep a copy of an accepted engine, and of the others the last used. A failure is logged and nothing more."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(folder / f"{key}.ts") as temporary:
            shutil.copyfile(engine, temporary)
            digest = sha256_file(temporary)
        with replacing(folder / f"{key}.json") as temporary:
            temporary.write_bytes(msgspec.json.encode(Kept(digest, built, parity)))
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in kept[config.CACHE_ENGINES :]:
            _discard(folder, old.stem)
    except OSError as error:
        logger.warning("the engine is not kept in %s: %s", folder, error.strerror or error)


def timing_cache_file(device: torch.device) -> Path | None:
    """Return where the times of TensorRT's kernels on this GPU with these versions are kept; None for nowhere."""
    folder = cache_folder()
    if folder is None:
        return None
    return folder / f"timings-{hashlib.sha256(msgspec.json.encode(_here(device), order='sorted')).hexdigest()[:16]}.bin"


def read_timing_cache(path: Path | None) -> bytes:
    """Return what `keep_timing_cache` wrote there last; nothing where there is none or it is not as it was written."""
    try:
        found = path.read_bytes() if path else b""
    except OSError:
        return b""
    timings = found[_DIGEST:]
    return timings if found[:_DIGEST] == hashlib.sha256(timings).digest() else b""


def keep_timing_cache(path: Path | None, timings: bytes) -> None:
    """Write the times, their SHA-256 before them; of two builds at once those of the later one stay.

    A failure is logged and nothing more.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as temporary:
            temporary.write_bytes(hashlib.sha256(timings).digest() + timings)
    except OSError as error:
        logger.warning("the kernels' times are not kept in %s: %s", path, error.strerror or error)


def _here(device: torch.device) -> dict:
    """The GPU or processor, the driver and the libraries; not which cores this process may use, nor our own version."""
    versions = {
        name: value for name, value in installed_versions().as_dict().items() if name not in ("ssdtrt", "python")
    }
    machine = {name: value for name, value in this_machine(device).as_dict().items() if name != "cores"}
    return {"versions": versions, "machine": machine}


def _code_digest() -> str:
    """SHA-256 of the writers' code, without comments and docstrings, and of the constants of `config` that they name."""
    digest = hashlib.sha256()
    for name in _WRITERS:
        spec = importlib.util.find_spec(f"ssdtrt.{name}")
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_bytes())
        for node in ast.walk(tree):
            if (
                isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
                and ast.get_docstring(node, clean=False) is not None
            ):
                del node.body[0]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
                digest.update(f"{node.attr} {getattr(config, node.attr)}\n".encode())
        digest.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _discard(folder: Path, key: str) -> None:
    """Removes an entry, its description first."""
    for name in (f"{key}.json", f"{key}.ts"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
