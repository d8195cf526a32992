"""The list of the pictures that are asked for: files, folders, patterns and lists, also in object stores. No torch here."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssdtrt.clusters.storage import file_system, is_stored
from ssdtrt.errors import ImageError, first_line
from ssdtrt.reading.addresses import shown
from ssdtrt.reading.sources import expand, picture_suffixes
from ssdtrt.system.progress import Progress, silent


def list_pictures(arguments: Iterable[str | Path], output: str | None = None, note: Progress = silent) -> list[str]:
    """Return the paths and addresses of pictures, in the order of the arguments.

    Args:
        arguments: As for `expand`; or addresses of fsspec. That of a folder such as `s3://bucket/folder` stands for the files in
            it and below that have the suffix of a picture; one with `*`, `?` or `[` for what matches it; any other for itself.
        output: The folder that will be written to.
        note: Called with a line on what was left out.

    Raises:
        ImageError: For a folder, pattern or list without a picture, and for what an object store cannot list.
        ArtifactError: Where fsspec does not know the file system.
    """
    found: list[str] = []
    for stored, group in itertools.groupby(map(str, arguments), is_stored):
        if stored:
            found += itertools.chain.from_iterable(map(_stored_pictures, group))
        else:
            found += map(str, expand(group, output=output, addresses=True, note=note))
    return found


def _stored_pictures(address: str) -> Iterator[str]:
    """The addresses that one stands for."""
    system, path = file_system(address)
    try:
        if glob.has_magic(path):
            found = sorted(map(str, system.glob(path)))
        elif system.isdir(path):
            suffixes = picture_suffixes()
            below = map(str, system.find(path))
            found = sorted(name for name in below if os.path.splitext(name)[1].lower() in suffixes)
        else:
            yield address
            return
    except Exception as error:  # File systems of object stores raise what they like.
        raise ImageError(f"{shown(address)} cannot be listed: {first_line(error)}") from error
    if not found:
        raise ImageError(f"{shown(address)} {'matches no file' if glob.has_magic(path) else 'holds no pictures'}.")
    for name in found:
        yield system.unstrip_protocol(name)
