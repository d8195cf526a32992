"""Which pictures are meant: files, folders, patterns and lists become paths."""

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
    """The paths that `arguments` mean, in their order, found as they are taken.

    A folder means the pictures in it and below, by name; a pattern (`*`, `?`, `[`, `**`) the files that match; `-` the
    paths in `stdin`, one a line; anything else itself, whether it exists or not. A folder or pattern without a picture
    goes to `failures`.
    """
    for argument in arguments:
        text = str(argument)
        if text == STDIN:
            yield from (Path(line.rstrip("\r\n")) for line in stdin if line.strip())
            continue
        if os.path.isdir(text):
            found, what = pictures_below(text), "holds no pictures"
        elif glob.has_magic(text) and not os.path.exists(text):
            matches = sorted(glob.iglob(text, recursive=True))
            found, what = (Path(match) for match in matches if not os.path.isdir(match)), "matches no file"
        else:
            yield Path(argument)
            continue
        count = 0
        for count, path in enumerate(found, 1):
            yield path
        if not count:
            failures.append(ImageError(f"{text} {what}."))


def pictures_below(folder: str) -> Iterator[Path]:
    """The files of a folder and of those in it whose suffix Pillow knows, sorted by name, hidden ones left out."""
    suffixes = Image.registered_extensions()
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(place, name)
