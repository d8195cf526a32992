"""The folder of cached engines and timing caches: where it is, how large it may be, what is removed. Imports no torch."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ssdtrt import config
from ssdtrt.artifact.cache_entries import TYPES, CacheEntry, CacheReport, ClearReport, read_entries, time_text
from ssdtrt.errors import SsdtrtError
from ssdtrt.system.files import BusyError, remove_temporary, remove_unused
from ssdtrt.system.progress import Progress, silent

_logger = logging.getLogger(__name__)
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kmgt]?)(i?)b?", re.IGNORECASE)


def cache_folder() -> Path | None:
    """Return the folder of the cache, or None if it is turned off.

    It is the folder in SSDTRT_CACHE, whose empty value turns the cache off, or else ssdtrt/engines in the user's cache
    folder.
    """
    folder = os.environ.get(config.CACHE_VARIABLE)
    if folder is not None:
        return Path(folder) if folder else None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # There is no home folder.
        return None
    return Path(base) / "ssdtrt" / "engines"


def cache_limit() -> int | None:
    """Return the largest size of the cache in bytes, from SSDTRT_CACHE_LIMIT; None for no limit.

    Raises:
        SsdtrtError: If the value is not a size.
    """
    text = os.environ.get(config.CACHE_LIMIT_VARIABLE) or config.CACHE_LIMIT
    found = _SIZE.fullmatch(text.strip())
    if not found or (found[3] and not found[2]):
        raise SsdtrtError(
            f"{config.CACHE_LIMIT_VARIABLE} is {text!r}; expected a size such as 10GB or 500MB, or 0 for no limit."
        )
    number, power = float(found[1]), " kmgt".index(found[2].lower() or " ")
    return max(1, int(number * (1024 if found[3] else 1000) ** power)) if number else None


def list_cache() -> CacheReport:
    """List what is in the cache, the last used first. Only records are read, and no link is followed.

    Raises:
        SsdtrtError: If the limit in SSDTRT_CACHE_LIMIT is not a size.
        OSError: If the folder cannot be read.
    """
    folder, limit = cache_folder(), cache_limit()
    checkpoint = _hub_folder() / "checkpoints" / config.COCO_FILE
    return CacheReport(
        folder=str(folder) if folder else None,
        limit=limit,
        entries=tuple(read_entries(folder)) if folder else (),
        checkpoint=str(checkpoint) if os.path.isfile(checkpoint) else None,
    )


def choose_entries(
    report: CacheReport, names: Iterable[str] = (), older_than: float | None = None
) -> tuple[CacheEntry, ...]:
    """Return the entries with these names that were not used for some time.

    Args:
        report: What is in the cache.
        names: Types (see `CacheEntry`) and beginnings of keys; none for all entries.
        older_than: The days since the last use, at least 0; None for any.

    Raises:
        SsdtrtError: If a name is neither a type nor the beginning of exactly one key.
    """
    names = tuple(names)
    chosen = {entry.key for name in names for entry in _named(report.entries, name)}
    before = None if older_than is None else time_text(max(0.0, time.time() - 86400 * older_than))
    return tuple(
        entry
        for entry in report.entries
        if (not names or entry.key in chosen) and (before is None or entry.last_used <= before)
    )


def clear_cache(report: CacheReport, entries: Iterable[CacheEntry]) -> ClearReport:
    """Remove entries from the cache, but for those that other processes read or write, or have used since.

    Args:
        report: What is in the cache, from `list_cache`.
        entries: Some of its entries, such as from `choose_entries`.
    """
    removed: list[CacheEntry] = []
    in_use, failures = [], []
    for entry in entries if report.folder else ():
        try:
            _remove(Path(report.folder or ""), entry)
            removed.append(entry)
        except BusyError:
            in_use.append(entry.key)
        except OSError as error:
            failures.append(f"{entry.key} cannot be removed: {error.strerror or error}.")
    return ClearReport(
        folder=report.folder,
        freed=sum(entry.bytes for entry in removed),
        removed=tuple(entry.key for entry in removed),
        in_use=tuple(in_use),
        failures=tuple(failures),
    )


def keep_cache_limit(stored: Collection[str] = (), note: Progress = silent) -> None:
    """Remove the least recently used entries while the cache is larger than its limit. An error is only logged.

    Args:
        stored: The keys of entries that are kept in any case, such as what was just stored.
        note: Called with one line about what was removed.
    """
    limit = cache_limit()
    if limit is None:
        return
    try:
        report = list_cache()
        size, removed = report.bytes, 0
        for entry in reversed(report.entries):
            if size > limit and entry.key not in stored and clear_cache(report, [entry]).removed:
                size, removed = size - entry.bytes, removed + 1
    except OSError as error:
        _logger.warning("the cache could not be kept within its limit: %s", error)
        return
    if removed:
        entries = "entry was" if removed == 1 else "entries were"
        note(
            f"{removed} least recently used {entries} removed from the cache ({size_text(report.bytes - size)}), whose "
            f"limit is {size_text(limit)} ({config.CACHE_LIMIT_VARIABLE})"
        )


def size_text(size: int) -> str:
    """Return a number of bytes in kB, MB or GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _remove(folder: Path, entry: CacheEntry) -> None:
    """Remove the files of an entry; raise BusyError if it is in use, or was used since it was listed."""
    if entry.type == "unfinished":
        if not remove_temporary(folder / entry.key):
            raise BusyError(f"another process is writing {entry.key}")
        (folder / entry.key).unlink(missing_ok=True)  # Only to raise what kept the file from being removed.
        return
    names = (f"{entry.key}.bin",) if entry.type == "timings" else (f"{entry.key}.json", f"{entry.key}.ts")
    paths = [folder / name for name in names]
    for path in paths:
        if path.exists():
            if time_text(path.stat().st_mtime) > entry.last_used:
                raise BusyError(f"another process used {entry.key}")
            break
    remove_unused(*(path for path in paths if not path.is_symlink()))


def _named(entries: Sequence[CacheEntry], name: str) -> list[CacheEntry]:
    if name in TYPES:
        return [entry for entry in entries if entry.type == name]
    found = [entry for entry in entries if name and entry.key.startswith(name)]
    if len(found) != 1:
        raise SsdtrtError(
            f"{name!r} is the beginning of {len(found)} keys in the cache; expected that of one, as ssdtrt cache list "
            f"shows them, or a type: {', '.join(TYPES)}."
        )
    return found


def _hub_folder() -> Path:
    """Return what `torch.hub.get_dir` does, without torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))) / "hub"
