"""Folders by path or by address: on a disk, or in an object store through fsspec. Each file appears as a whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ssdtrt.errors import ArtifactError, first_line
from ssdtrt.reading.addresses import is_address, shown
from ssdtrt.system.files import replacing


def is_stored(picture: object) -> bool:
    """Return whether a picture or a folder is given by an address that fsspec opens: neither http nor https."""
    return is_address(picture) and str(picture).partition("://")[0].lower() not in ("http", "https")


def file_system(address: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it.

    Raises:
        ArtifactError: Where fsspec knows no such file system, or its package is missing.
    """
    import fsspec

    try:
        return fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ArtifactError(f"{shown(address)} cannot be opened with fsspec: {first_line(error)}") from error


class Folder:
    """A folder that is written to from many machines.

    Args:
        place: Its path, or its address such as `s3://bucket/results`.

    Attributes:
        place: Its absolute path, or its address.
    """

    def __init__(self, place: str):
        self._given = place
        self.place = place if is_stored(place) else os.path.abspath(place)
        self._remote: tuple[Any, str] | None = file_system(place) if is_stored(place) else None

    def __str__(self) -> str:
        return shown(self._given)

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder, (self.place,)

    def make(self) -> None:
        """Make the folder, where it is not there.

        Raises:
            ArtifactError: Where it cannot be made.
        """
        with self._writing():
            if self._remote:
                self._remote[0].makedirs(self._remote[1], exist_ok=True)
            else:
                os.makedirs(self.place, exist_ok=True)

    def names(self) -> list[str]:
        """Return the names of what is in the folder, as they are now; none where there is no folder.

        Raises:
            ArtifactError: Where it cannot be read.
        """
        try:
            if not self._remote:
                return os.listdir(self.place)
            system, path = self._remote
            system.invalidate_cache(path)
            return [str(name).rstrip("/").rpartition("/")[2] for name in system.ls(path, detail=False)]
        except FileNotFoundError:
            return []
        except Exception as error:  # File systems of object stores raise what they like.
            raise ArtifactError(f"{self} cannot be read: {_reason(error)}.") from error

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, of which no more is read than is needed.

        Raises:
            ArtifactError: Where it cannot be opened.
        """
        try:
            if self._remote:
                return cast(BinaryIO, self._remote[0].open(f"{self._remote[1]}/{name}", "rb"))
            return open(os.path.join(self.place, name), "rb")
        except Exception as error:
            raise ArtifactError(f"{self}/{name} cannot be read: {_reason(error)}.") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears as a whole: on a disk by its name, in an object store by its upload.

        Raises:
            ArtifactError: Where it cannot be written.
        """
        with self._writing():
            if self._remote:
                self._remote[0].pipe_file(f"{self._remote[1]}/{name}", content)
            else:
                with replacing(Path(self.place, name), remove_stale=False) as temporary:
                    temporary.write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a file.

        Raises:
            ArtifactError: Where it cannot be removed.
        """
        with self._writing():
            if self._remote:
                self._remote[0].rm_file(f"{self._remote[1]}/{name}")
            else:
                os.unlink(os.path.join(self.place, name))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise ArtifactError(f"{self} cannot be written: {_reason(error)}. Give another with -o.") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error).rstrip(".")
