"""Expand files, folders, patterns and lists to the paths of pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from PIL import Image

from ssdtrt.errors import ImageError

STDIN = "-"


def expand(arguments: Iterable[str | Path], stdin: TextIO, failures: list[ImageError]) -> Iterator[Path]:
    """Expand arguments to paths, in their order, found as they are taken.

    Args:
        arguments: A folder stands for the pictures in it and below, by name; a pattern (`*`, `?`, `[`, `**`) for the
            files that match; `-` for the paths in `stdin`, one a line; anything else for itself, whether it exists or
            not.
        stdin: Where `-` reads from.
        failures: Takes an error for each folder or pattern without a picture.
    """
    for argument in arguments:
        text = str(argument)
        if text == STDIN:
            yield from (Path(line.rstrip("\r\n")) for line in stdin if line.strip())
            continue
        if os.path.isdir(text):
            found, problem = pictures_below(text), "holds no pictures"
        elif glob.has_magic(text) and not os.path.exists(text):
            matches = sorted(glob.iglob(text, recursive=True))
            found, problem = (Path(match) for match in matches if not os.path.isdir(match)), "matches no file"
        else:
            yield Path(argument)
            continue
        empty = True
        for path in found:
            empty = False
            yield path
        if empty:
            failures.append(ImageError(f"{text} {problem}."))


def pictures_below(folder: str) -> Iterator[Path]:
    """Yield the files in a folder and below whose suffix Pillow knows, sorted by name, without hidden ones."""
    suffixes = Image.registered_extensions()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(parent, name)
