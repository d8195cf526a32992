"""What the cache of engines holds, as records and as read from its folder. Imports no torch."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from ssdtrt.artifact.request import BuildRequest
from ssdtrt.system.report import Report
from ssdtrt.system.versions import Machine, Versions

# The names of the files that are written there; no other file is listed or removed.
_ENGINE = re.compile(r"([0-9a-f]{64})\.(?:json|ts)")
_TIMINGS = re.compile(r"timings-[0-9a-f]{16}\.bin")
_TEMPORARY = re.compile(r"\.(?:[0-9a-f]{30}|timings-[0-9a-f]{16}\.bin)-[0-9a-f]{8}\.[0-9]+\.\w+\.tmp")

_SHOWN = 12  # characters of a key, and of `timings-` with four

EntryType = Literal["engine", "timings", "damaged", "unfinished"]
TYPES: tuple[EntryType, ...] = ("engine", "timings", "damaged", "unfinished")


class CacheEntry(Report, frozen=True, kw_only=True):
    """What the cache keeps under one key.

    Attributes:
        key: The key of an engine, `timings-` with that of a timing cache, or the name of an unfinished file.
        type: `engine`; `timings`, TensorRT's timing cache; `damaged`, an engine or a record that cannot be used; or
            `unfinished`, a file that is being written, or whose writer was killed.
        bytes: The size of its files.
        last_used: When it was stored or last taken: ISO 8601, UTC.
        precision: The precision of an engine.
        request: What was asked of its build; None for engines from before this was recorded.
        versions: The versions that it was built with.
        machine: The machine that it was built on.
    """

    key: str
    type: EntryType
    bytes: int
    last_used: str
    precision: str | None = None
    request: BuildRequest | None = None
    versions: Versions | None = None
    machine: Machine | None = None

    @property
    def short_key(self) -> str:
        """The beginning of the key that is shown, which stands for it."""
        return self.key[:_SHOWN]

    @property
    def in_words(self) -> str:
        """What it is, such as `FP16, batch 8`."""
        if self.type != "engine" or self.precision is None:
            return "timing cache" if self.type == "timings" else self.type
        words, asked = [self.precision.upper()], self.request
        if asked is not None:
            words.append(f"batch {asked.batch}" if asked.batch else asked.backend)
            words += ["detector"] * asked.detector + ["plan"] * (asked.format == "plan")
        return ", ".join(words)

    @property
    def built_with(self) -> str:
        """The GPU and the version of torch that built it, such as `H200, torch 2.14.0`; a dash if not known."""
        if self.versions is None or self.machine is None:
            return "-"
        return f"{(self.machine.gpu or 'CPU').removeprefix('NVIDIA ')}, torch {self.versions.torch.partition('+')[0]}"


class CacheReport(Report, frozen=True, kw_only=True):
    """What is in the cache.

    Attributes:
        folder: Its folder; None if the cache is turned off.
        limit: The largest size, in bytes; None for no limit.
        entries: What it holds, the last used first.
        checkpoint: The path of the COCO checkpoint that was fetched, which is in torch's cache and neither counted nor
            removed; None if it is not there.
        bytes: The sum of the entries' sizes.
    """

    derived = ("bytes",)
    kind = "cache"

    folder: str | None
    limit: int | None
    entries: tuple[CacheEntry, ...]
    checkpoint: str | None

    @property
    def bytes(self) -> int:
        """The sum of the entries' sizes."""
        return sum(entry.bytes for entry in self.entries)


class ClearReport(Report, frozen=True, kw_only=True):
    """What was removed from the cache.

    Attributes:
        folder: Its folder; None if the cache is turned off.
        freed: The bytes that were freed.
        removed: The keys of the removed entries.
        in_use: The keys of those that other processes were reading or writing, or used meanwhile, and that were left.
        failures: A sentence for each that the system did not remove.
    """

    kind = "cache-clear"

    folder: str | None
    freed: int
    removed: tuple[str, ...]
    in_use: tuple[str, ...]
    failures: tuple[str, ...]


class _Build(msgspec.Struct):
    versions: Versions
    machine: Machine


class _Parity(msgspec.Struct):
    precision: str


class _Record(msgspec.Struct):
    """The part of an engine's record (`ssdtrt.engine.cache`) that is listed."""

    built: _Build
    parity: _Parity
    request: BuildRequest | None = None


def read_entries(folder: Path) -> list[CacheEntry]:
    """Return what a cache holds, the last used first. Only records are read, and no link is followed."""
    found: dict[str, os.stat_result] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as files:
        for file in files:
            ours = any(pattern.fullmatch(file.name) for pattern in (_ENGINE, _TIMINGS, _TEMPORARY))
            with contextlib.suppress(FileNotFoundError):
                if ours and file.is_file(follow_symlinks=False):
                    found[file.name] = file.stat(follow_symlinks=False)
    keys = sorted({match[1] for match in map(_ENGINE.fullmatch, found) if match})
    engines = [_engine(folder, key, found) for key in keys]
    others = [
        CacheEntry(
            key=name.removesuffix(".bin"),
            type="timings" if _TIMINGS.fullmatch(name) else "unfinished",
            bytes=status.st_size,
            last_used=time_text(status.st_mtime),
        )
        for name, status in found.items()
        if not _ENGINE.fullmatch(name)
    ]
    entries = [entry for entry in engines if entry] + others
    return sorted(entries, key=lambda entry: entry.last_used, reverse=True)


def _engine(folder: Path, key: str, found: dict[str, os.stat_result]) -> CacheEntry | None:
    """Return the entry of an engine; None for a JSON file alone that is not a record of one."""
    there = [found[name] for name in (f"{key}.json", f"{key}.ts") if name in found]
    common: dict[str, Any] = {
        "key": key,
        "bytes": sum(status.st_size for status in there),
        "last_used": time_text(there[0].st_mtime),
    }
    if f"{key}.json" not in found:
        return CacheEntry(type="damaged", **common)
    try:
        record = msgspec.json.decode((folder / f"{key}.json").read_bytes(), type=_Record)
    except msgspec.ValidationError:
        return CacheEntry(type="damaged", **common) if f"{key}.ts" in found else None
    except (OSError, ValueError):
        return CacheEntry(type="damaged", **common)
    return CacheEntry(
        type="engine" if len(there) == 2 else "damaged",
        precision=record.parity.precision,
        request=record.request,
        versions=record.built.versions,
        machine=record.built.machine,
        **common,
    )


def time_text(seconds: float) -> str:
    """Return a time such that the order of the texts is that of the times."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="microseconds")
