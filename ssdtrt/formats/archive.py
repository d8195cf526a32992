"""Check the zip archive of a saved file before anything in it is loaded. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.regular_file import damaged, read_start
from ssdtrt.system.digests import check_sha256
from ssdtrt.system.files import decode_text

_END_RECORD_SIZE = 22  # bytes of a zip archive's end record without a comment
_SIDECAR_LIMIT = 1 << 16  # bytes


def _check_start(path: Path) -> None:
    """Raise ArtifactError unless `path` is a regular file that starts as a zip archive does."""
    start = read_start(path)
    if not start.startswith(b"PK"):
        raise ArtifactError(
            f"{path} is not one of ssdtrt's files (it begins with {start!r}); "
            "expected one that ssdtrt export or ssdtrt compile wrote."
        )


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive and check its layout; turn every error inside the block into an ArtifactError."""
    _check_start(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_layout(path, archive)
            yield archive
    except ArtifactError:
        raise
    except Exception as error:  # A damaged archive raises more than BadZipFile.
        raise damaged(path, error) from error


def _check_layout(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile for an archive that neither torch nor this package writes, without reading its members.

    No bytes may precede or follow the archive, and no member may be encrypted or share its name with another (readers
    differ in which one they take). The sizes of the members must fit the file: TorchScript compresses only its code,
    and stores the weights uncompressed.
    """
    with open(path, "rb") as file:
        file.seek(-_END_RECORD_SIZE, os.SEEK_END)
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
    """Check the layout of the archive and the CRC of every member.

    Raises:
        ArtifactError: If the file is not an intact archive.
    """
    with _open_archive(Path(path)) as archive:
        bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {bad!r}")


def check_digest(path: str | Path, sha256: str | None = None) -> None:
    """Check the SHA-256 of a file.

    Args:
        path: The file.
        sha256: The expected digest; by default the one in `<path>.sha256`, if that file exists.

    Raises:
        ArtifactError: If the digest is another, or `<path>.sha256` has none for the file.
    """
    path = Path(path)
    sidecar = path.with_name(f"{path.name}.sha256")
    if sha256 is not None:
        check_sha256(path, sha256, ArtifactError)
    elif sidecar.is_file():
        check_sha256(path, _read_sidecar(sidecar, path.name), ArtifactError, f"as recorded in {sidecar}")


def _read_sidecar(sidecar: Path, name: str) -> str:
    """Return the digest of the file `name` from the output of sha256sum: lines `DIGEST  NAME`, or a digest alone."""
    try:
        with open(sidecar, "rb") as file:
            text = decode_text(file.read(_SIDECAR_LIMIT), "replace")
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
    """Return the content of the member whose name ends with `suffix`.

    Args:
        path: The file.
        suffix: The end of the member's name, after the archive's folder.
        limit: The maximum size in bytes.

    Raises:
        ArtifactError: If there is not exactly one such member, it is outside the archive's only folder, or it is larger
            than `limit`.
    """
    with _open_archive(path) as archive:
        names = archive.namelist()
        found = [member for member in archive.infolist() if member.filename.endswith(suffix)]
        if not found:
            raise ArtifactError(f"{path} {_describe_foreign(path, names)}.")
        if len(found) > 1:
            raise zipfile.BadZipFile(f"{len(found)} members end in {suffix}")
        if {name.split("/", 1)[0] for name in names} != {found[0].filename[: -len(suffix)]}:
            raise zipfile.BadZipFile(f"{found[0].filename!r} is not in its only folder")
        if found[0].file_size > limit:
            raise zipfile.BadZipFile(f"its metadata has {found[0].file_size:,} bytes, the limit is {limit:,}")
        return archive.read(found[0])


def _describe_foreign(path: Path, names: list[str]) -> str:
    """Return what a zip archive without ssdtrt's metadata is, and what to do with it."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript archive without ssdtrt's metadata; make it with ssdtrt export or ssdtrt compile"
    if any(name.endswith("/data.pkl") for name in names):
        return f"is a checkpoint, not a module; first run: {shlex.join(['ssdtrt', 'export', '--weights', str(path)])}"
    return "is a zip archive, but not one of ssdtrt's files"
