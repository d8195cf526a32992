"""Read and write what ssdtrt records in an ONNX file, and check that it is intact. Imports neither onnx nor torch.

An ONNX file is a protobuf message, a `ModelProto`: fields one after the other, each with its number and its length. Its
`metadata_props` are pairs of a key and a value. The last two are ours: `ssdtrt.json`, the metadata, and `ssdtrt.sha256`,
the SHA-256 of all bytes before it. A message may be extended at its end, so both are appended to what onnx wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.regular_file import damaged, read_start
from ssdtrt.system.digests import sha256_file

_DIGEST_NAME = "ssdtrt.sha256"
# Numbers of fields in onnx.proto: of ModelProto, and of StringStringEntryProto.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_KEY, _VALUE = 1, 2
_VARINT, _BYTES = 0, 2
_SIZES = {1: 8, 5: 4}  # of the other types of field, which have a constant size
_NEWEST_IR = 63  # far above that of today, which is below 20
_MAX_FIELDS = 10_000
_MAX_KEY = 1000  # bytes
_CHUNK = 1 << 20


class _Field(NamedTuple):
    """A field: its number, where it begins, and where its content starts and ends."""

    number: int
    begin: int
    start: int
    end: int


class _Entry(NamedTuple):
    """A value of `metadata_props`, and where its field begins and ends."""

    value: bytes
    begin: int
    end: int


def is_onnx(path: Path) -> bool:
    """Return whether a file begins as an ONNX file does: with its `ir_version`.

    Raises:
        ArtifactError: If it is not a regular file, cannot be read, or is empty.
    """
    start = read_start(path)
    return len(start) > 1 and start[0] == _tag(_IR_VERSION, _VARINT) and start[1] <= _NEWEST_IR


def read_record(path: Path) -> bytes:
    """Return the metadata of an ONNX file, as JSON text.

    Raises:
        ArtifactError: If it is damaged, or has no such record.
    """
    with _entries(path) as (_, entries):
        if config.METADATA_NAME not in entries:
            raise ArtifactError(
                f"{path} is an ONNX file without ssdtrt's metadata; make it with ssdtrt export --format onnx."
            )
        return entries[config.METADATA_NAME].value


def check_intact(path: Path) -> None:
    """Check the SHA-256 that an ONNX file records of itself.

    Raises:
        ArtifactError: If it is another, or the file has none.
    """
    read_record(path)
    with _entries(path) as (file, entries):
        if _DIGEST_NAME not in entries:
            raise ValueError(f"it has no {_DIGEST_NAME}")
        recorded = entries[_DIGEST_NAME]
        if recorded.end != os.fstat(file.fileno()).st_size:
            raise ValueError(f"bytes follow its {_DIGEST_NAME}")
        digest, left = hashlib.sha256(), recorded.begin
        file.seek(0)
        while chunk := file.read(min(left, _CHUNK)):
            digest.update(chunk)
            left -= len(chunk)
        if digest.hexdigest().encode() != recorded.value:
            raise ValueError(f"its {_DIGEST_NAME} is that of other bytes")


def append_record(path: Path, record: bytes) -> None:
    """Append the metadata, JSON text, and the SHA-256 to an ONNX file that has neither."""
    with open(path, "ab") as file:
        file.write(_entry(config.METADATA_NAME, record))
    digest = sha256_file(path)
    with open(path, "ab") as file:
        file.write(_entry(_DIGEST_NAME, digest.encode()))


@contextlib.contextmanager
def _entries(path: Path) -> Iterator[tuple[BinaryIO, dict[str, _Entry]]]:
    """Yield the open file and its `metadata_props`; turn every error inside the block into an ArtifactError."""
    try:
        with open(path, "rb") as file:
            fields = list(_fields(file, 0, os.fstat(file.fileno()).st_size))
            if sum(field.number == _GRAPH for field in fields) != 1:
                raise ValueError("it has no graph")
            found = [_read_entry(file, field) for field in fields if field.number == _METADATA_PROPS]
            entries = dict(found)
            if len(entries) != len(found):
                raise ValueError("two of its metadata_props have one key")
            yield file, entries
    except ArtifactError:
        raise
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def _read_entry(file: BinaryIO, field: _Field) -> tuple[str, _Entry]:
    key = value = b""
    for part in _fields(file, field.start, field.end):
        limit = _MAX_KEY if part.number == _KEY else config.MAX_METADATA
        if part.end - part.start > limit:
            raise ValueError(f"its metadata has {part.end - part.start:,} bytes, the limit is {limit:,}")
        file.seek(part.start)
        content = file.read(part.end - part.start)
        key, value = (content, value) if part.number == _KEY else (key, content)
    return key.decode("utf-8", "replace"), _Entry(value, field.begin, field.end)


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields between two places of the file; raise ValueError where they are not of whole fields."""
    position = start
    for _ in range(_MAX_FIELDS):
        if position == end:
            return
        file.seek(position)
        tag = _read_varint(file)
        number, kind = tag >> 3, tag & 7
        if kind not in (_VARINT, _BYTES, *_SIZES):
            raise ValueError("it is no ONNX model")
        length = _read_varint(file) if kind in (_VARINT, _BYTES) else _SIZES[kind]
        content = file.tell()
        field = _Field(number, position, content, content + (0 if kind == _VARINT else length))
        if field.end > end:
            raise ValueError("it ends inside a field")
        yield field
        position = field.end
    raise ValueError(f"it has more than {_MAX_FIELDS:,} fields")


def _read_varint(file: BinaryIO) -> int:
    """Read a number of seven bits a byte, the lowest first; the eighth bit says that another byte follows."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends inside a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is no ONNX model")


def _entry(key: str, value: bytes) -> bytes:
    """Return the bytes of one of the `metadata_props`."""
    return _bytes_field(_METADATA_PROPS, _bytes_field(_KEY, key.encode()) + _bytes_field(_VALUE, value))


def _bytes_field(number: int, content: bytes) -> bytes:
    return bytes([_tag(number, _BYTES)]) + _varint(len(content)) + content


def _tag(number: int, kind: int) -> int:
    return number << 3 | kind


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
