"""The zip archive that each of our files is, looked at before anything in it is loaded. No torch here."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.system.digests import check_sha256

EXPECTED = "expected a file that ssdtrt export or ssdtrt compile wrote"
END_SIZE = 22  # bytes of a zip archive's end record without a comment
SIDECAR_LIMIT = 1 << 16  # bytes
SPECIAL = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_readable(path: Path) -> None:
    """Raises ArtifactError, naming what is there instead, unless `path` is a file that can be a zip archive.

    A link to a regular file is one. What is no regular file is never opened: a named pipe would block.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise ArtifactError(f"{path} is {SPECIAL.get(stat.S_IFMT(mode), 'no regular file')}; {EXPECTED}.")
        with open(path, "rb") as file:
            start = file.read(8)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"{path}: no such file. {making(path)}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
        raise ArtifactError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not start:
        raise ArtifactError(f"{path} is empty; {EXPECTED}.")
    if not start.startswith(b"PK"):
        raise ArtifactError(
            f"{path} is not one of ssdtrt's files (it begins with {start!r}); "
            "expected one that ssdtrt export or ssdtrt compile wrote."
        )


def making(path: Path) -> str:
    """The command that makes a file of this name."""
    commands = {".engine": "ssdtrt compile", ".detector": "ssdtrt compile --detector"}
    known = [command for part, command in commands.items() if part in path.name]
    return f"Make it first: {known[0] if known else 'ssdtrt export'}"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, its layout checked; whatever its reading raises becomes an ArtifactError that names the file."""
    check_readable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_layout(path, archive)
            yield archive
    except ArtifactError:
        raise
    except Exception as error:  # A damaged archive raises more than BadZipFile.
        reason = str(error) or type(error).__name__
        raise ArtifactError(
            f"{path} is truncated, damaged or not one of ssdtrt's files ({reason!s:.200}). Make it again."
        ) from error


def check_layout(path: Path, archive: zipfile.ZipFile) -> None:
    """Raises BadZipFile for an archive that no writer of ours makes; reads no member.

    Nothing may stand before or behind the archive, no two members may have one name (readers differ in which they
    take), none may be encrypted, and what they claim to hold may not be more than the file can: TorchScript stores
    weights as they are and compresses only its code.
    """
    with open(path, "rb") as file:
        file.seek(-END_SIZE, os.SEEK_END)
        end = file.read()
    if not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("bytes follow its end")
    members = archive.infolist()
    if members and min(member.header_offset for member in members) != 0:
        raise zipfile.BadZipFile("its first member is not at its beginning")
    if len({member.filename.lower() for member in members}) != len(members):
        raise zipfile.BadZipFile("two of its members have one name")
    if any(member.flag_bits & 1 for member in members):
        raise zipfile.BadZipFile("it is encrypted")
    stored = [member for member in members if member.compress_type == zipfile.ZIP_STORED]
    if any(member.file_size != member.compress_size for member in stored):
        raise zipfile.BadZipFile("a stored member has two sizes")
    size = os.path.getsize(path)
    claimed = sum(member.file_size for member in stored)
    inflated = sum(member.file_size for member in members) - claimed
    if claimed > size or inflated > config.MAX_INFLATED:
        raise zipfile.BadZipFile(f"its members claim {claimed + inflated:,} bytes, and the file has {size:,}")


def check_intact(path: str | Path) -> None:
    """Raises ArtifactError unless the archive is whole and every member has the CRC that it was written with."""
    with opened(Path(path)) as archive:
        bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {bad!r}")


def check_digest(path: str | Path, sha256: str | None = None) -> None:
    """Raises ArtifactError unless the file has the SHA-256 demanded, else that in `<path>.sha256` if it exists.

    A file beside it that holds no digest of it is an error too.
    """
    path = Path(path)
    sidecar = path.with_name(f"{path.name}.sha256")
    if sha256 is not None:
        check_sha256(path, sha256, ArtifactError)
    elif sidecar.is_file():
        check_sha256(path, read_sidecar(sidecar, path.name), ArtifactError, f"as {sidecar} says")


def read_sidecar(sidecar: Path, name: str) -> str:
    """The digest of the file `name` in what sha256sum wrote: a line `DIGEST  NAME`, or one digest alone."""
    try:
        with open(sidecar, "rb") as file:
            text = file.read(SIDECAR_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        raise ArtifactError(f"{sidecar} cannot be read: {error.strerror}.") from error
    for line in text.splitlines():
        match = re.fullmatch(r"\\?([0-9a-fA-F]{64})(?:\s+\*?(.+?))?\s*", line)
        if match and (match[2] is None or os.path.basename(match[2]) == name):
            return match[1]
    raise ArtifactError(
        f"{sidecar} holds no SHA-256 of {name}; expected a line as sha256sum writes it. Write it again or remove it."
    )


def read_member(path: Path, suffix: str, limit: int) -> bytes:
    """Return the bytes of the one member whose name ends so.

    Raises:
        ArtifactError: Where there is none, more than one, one outside the archive's only folder, or one of more than
            `limit` bytes.
    """
    with opened(path) as archive:
        names = archive.namelist()
        found = [member for member in archive.infolist() if member.filename.endswith(suffix)]
        if not found:
            raise ArtifactError(f"{path} {_describe_foreign(names)}.")
        if len(found) > 1:
            raise zipfile.BadZipFile(f"{len(found)} members end in {suffix}")
        if {name.split("/", 1)[0] for name in names} != {found[0].filename[: -len(suffix)]}:
            raise zipfile.BadZipFile(f"{found[0].filename!r} is not in its only folder")
        if found[0].file_size > limit:
            raise zipfile.BadZipFile(f"its metadata has {found[0].file_size:,} bytes, the limit is {limit:,}")
        return archive.read(found[0])


def _describe_foreign(names: list[str]) -> str:
    """What a zip archive without our metadata is, and what to do with it."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript archive without ssdtrt's metadata; make it with ssdtrt export or ssdtrt compile"
    if any(name.endswith("/data.pkl") for name in names):
        return "is a checkpoint, not a module; first run: ssdtrt export --weights FILE"
    return "is a zip archive, but not one of ssdtrt's files"
