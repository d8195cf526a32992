"""Engines kept for the next identical build: found by everything that changes them, and checked before they are taken."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path

import torch

import ssdtrt
from ssdtrt import config
from ssdtrt.system import machine
from ssdtrt.system.files import replacing, sha256_file, write_text

logger = logging.getLogger(__name__)
NUMBERS = re.compile(rb"\.?___torch_mangle_\d+")
SETTINGS = ("backend", "precision", "batch", "streams", "workspace_mib", "device", "detector", "preprocess")


def cache_folder() -> Path | None:
    """Where engines are kept: SSDTRT_CACHE, which may be empty for nowhere, or ssdtrt/engines in the user's cache folder."""
    given = os.environ.get(config.CACHE_VARIABLE)
    if given is not None:
        return Path(given) if given else None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # No home.
        return None
    return Path(base) / "ssdtrt" / "engines"


def key_of(request: dict, module: Path, metadata: dict) -> str:
    """SHA-256 of all that an engine depends on.

    The module's weights and code, every setting, ssdtrt's own source, the GPU, driver and versions here.
    """
    weights = metadata["model"]["weights"]
    parts = {
        "settings": {name: request[name] for name in SETTINGS},
        "weights": weights and weights["sha256"],
        "module": contents(module),
        "ssdtrt": source_digest(),
        "versions": machine.versions(),
        "machine": machine.machine(torch.device(request["device"])),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def contents(module: Path) -> list[list]:
    """Size and CRC of every tensor in a module's archive, and SHA-256 of the lines of its code.

    torch numbers the classes of a process and groups them in files by that, so two exports of one model differ in names
    and in the order of their classes: the numbers are left out and the lines sorted.
    """
    found: list[list] = []
    lines: list[bytes] = []
    with zipfile.ZipFile(module) as archive:
        for info in archive.infolist():
            name = info.filename.split("/", 1)[-1]
            if name.startswith("data/"):
                found.append([name, info.file_size, info.CRC])
            elif name.startswith("code/") and name.endswith(".py"):
                lines += NUMBERS.sub(b"", archive.read(info)).splitlines()
    return [*sorted(found), [hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()]]


def source_digest() -> str:
    """SHA-256 of this package's source."""
    digest = hashlib.sha256()
    folder = Path(ssdtrt.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def take(key: str, target: Path) -> dict | None:
    """Copies a kept engine to `target` and returns what was found out when it was built; None where there is none.

    What is not as it was written is thrown away.
    """
    folder = cache_folder()
    if folder is None:
        return None
    engine, facts = folder / f"{key}.ts", folder / f"{key}.json"
    try:
        known = json.loads(facts.read_text(encoding="utf-8"))
        shutil.copyfile(engine, target)
        if sha256_file(target) == known["sha256"]:
            os.utime(facts)  # The last used are kept the longest.
            return known["built"]
        logger.warning("%s is damaged and is built again", engine)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s cannot be used (%s) and is built again", facts, error)
    discard(folder, key)
    return None


def keep(key: str, engine: Path, built: dict) -> None:
    """Keeps a copy of a proven engine, and of the others the last used. A failure is logged and nothing more."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(folder / f"{key}.ts") as temporary:
            shutil.copyfile(engine, temporary)
            digest = sha256_file(temporary)
        write_text(folder / f"{key}.json", json.dumps({"sha256": digest, "built": built}))
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in kept[config.CACHE_ENGINES :]:
            discard(folder, old.stem)
    except OSError as error:
        logger.warning("the engine is not kept in %s: %s", folder, error.strerror or error)


def discard(folder: Path, key: str) -> None:
    """Removes an entry, its description first."""
    for name in (f"{key}.json", f"{key}.ts"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
