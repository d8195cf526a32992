"""Expand files, folders, patterns and lists to the paths of pictures."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ssdtrt.errors import ImageError

STDIN = "-"
_CHUNK = 1 << 16  # bytes


def expand(arguments: Iterable[str | Path], stdin: BinaryIO, failures: list[ImageError]) -> Iterator[Path]:
    """Expand arguments to paths, in their order, found as they are taken.

    Args:
        arguments: A folder stands for the pictures in it and below, by name; a pattern (`*`, `?`, `[`, `**`) for the
            files that match, or what is called so; `-` for the paths in `stdin`, one a line or each with a NUL behind
            it; anything else for itself, whether it exists or not.
        stdin: Where `-` reads from.
        failures: Takes an error for each folder, pattern or list without a picture.
    """
    for argument in arguments:
        text = str(argument)
        if text == STDIN:
            found, problem = _listed(stdin), "(the list on stdin) names no picture"
        elif os.path.isdir(text):
            found, problem = pictures_below(text), "holds no pictures"
        elif glob.has_magic(text) and not os.path.exists(text):
            found, problem = (Path(match) for match in _matches(text)), "matches no file"
        else:
            yield Path(argument)
            continue
        empty = True
        for path in found:
            empty = False
            yield path
        if empty:
            failures.append(ImageError(f"{text} {problem}."))


def _listed(stdin: BinaryIO) -> Iterator[Path]:
    """The paths in a list, as they come."""
    read = getattr(stdin, "read1", stdin.read)  # What is there, without waiting for more.
    decoder: codecs.IncrementalDecoder | None = None
    separator, rest, chunk = "\n", "", b" "
    while chunk:
        chunk = read(_CHUNK)
        decoder = decoder or _decoder_of(chunk)
        rest += decoder.decode(chunk, final=not chunk)
        separator = "\0" if "\0" in rest else separator  # No path has one: it is `find -print0`.
        *entries, rest = rest.split(separator)
        for entry in entries if chunk else [*entries, rest]:
            entry = entry.removeprefix("\ufeff")  # A byte-order mark, also that of a list which was put behind another.
            entry = entry if separator == "\0" else entry.rstrip("\r")
            if entry.strip():
                yield Path(entry)


def _decoder_of(start: bytes) -> codecs.IncrementalDecoder:
    """A decoder for a list: of UTF-16 where its mark begins the list, else of the system's file names."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return codecs.getincrementaldecoder("utf-16")("replace")
    return codecs.getincrementaldecoder(sys.getfilesystemencoding())("surrogateescape")


def _matches(pattern: str) -> list[str]:
    """The files that match a pattern, sorted. Folders whose names are patterns, such as `set [v1]`, are taken as such."""
    folder, rest = os.path.split(pattern)
    while folder and not os.path.exists(folder):
        folder, last = os.path.split(folder)
        rest = os.path.join(last, rest)
    found = glob.glob(os.path.join(glob.escape(folder), rest), recursive=True)
    if not found:  # The brackets may be those of a folder behind a `*`.
        found = glob.glob(pattern.replace("[", "[[]"), recursive=True)
    return sorted(path for path in found if not os.path.isdir(path))


def pictures_below(folder: str) -> Iterator[Path]:
    """Yield the files in a folder and below whose suffix Pillow knows, sorted by name, without hidden ones."""
    suffixes = Image.registered_extensions()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(parent, name)
