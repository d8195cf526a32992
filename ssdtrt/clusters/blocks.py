"""The Parquet file of a block of pictures: its columns, and what its footer says. No torch here."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ssdtrt.clusters.records import BlockDone
from ssdtrt.clusters.storage import Folder

if TYPE_CHECKING:
    import pyarrow

_NAME = re.compile(r"part-(\d{8})\.parquet")
_FOOTER = b"ssdtrt"


@dataclass(frozen=True)
class Row:
    """A picture of a block.

    Attributes:
        path: Its path as it was given, or its address without a user name and password.
        size: Its (width, height); None where it could not be read, and then there is an error.
        boxes: Boxes [K, 4] as (left, top, right, bottom) in its pixels, float32.
        class_id: Classes [K].
        scores: Scores [K], 0..1, float32.
        error: Why it could not be read; "" where it could.
    """

    path: str
    size: tuple[int, int] | None
    boxes: np.ndarray
    class_id: np.ndarray
    scores: np.ndarray
    error: str = ""


def unread(path: str, error: str) -> Row:
    """Return the row of a picture that could not be read."""
    return Row(path, None, np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32), error)


def name_of(block: int) -> str:
    """Return the file name of a block."""
    return f"part-{block:08d}.parquet"


def block_of(name: str) -> int | None:
    """Return the number of the block that a file name is of; None for another file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def write_block(folder: Folder, block: int, run: str, rows: Sequence[Row], labels: Sequence[str]) -> BlockDone:
    """Write the Parquet file of a block.

    Args:
        folder: Where to.
        block: Its number.
        run: The SHA-256 of the manifest.
        rows: The pictures, in their order.
        labels: The names of all classes, the background first.

    Returns:
        What the footer says too.

    Raises:
        ArtifactError: Where it cannot be written.
    """
    import pyarrow.parquet

    errors = [row.error for row in rows if row.error]
    found = sum(len(row.scores) for row in rows)
    done = BlockDone(block, run, len(rows), found, len(errors), _text(errors[0]) if errors else "")
    table = _table(rows, labels).replace_schema_metadata({_FOOTER: msgspec.json.encode(done.document())})
    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content, compression="zstd")
    folder.write(name_of(block), content.getvalue())
    return done


def read_footer(folder: Folder, block: int) -> BlockDone | None:
    """Return what the footer of a block's file says; None for one that is damaged or was not written by `write_block`.

    Raises:
        ArtifactError: Where the file cannot be opened.
    """
    import pyarrow.parquet

    with folder.open(name_of(block)) as file:
        try:
            footer = pyarrow.parquet.read_metadata(file)
            done = msgspec.json.decode((footer.metadata or {}).get(_FOOTER, b""), type=BlockDone)
        except (OSError, ValueError, msgspec.MsgspecError):  # pyarrow's errors are of the first two.
            return None
    return done if done.pictures == footer.num_rows else None


def _table(rows: Sequence[Row], labels: Sequence[str]) -> pyarrow.Table:
    """The rows as columns. Those of a picture that could not be read are null, but for its path and its error."""
    import pyarrow as pa

    missing = [row.size is None for row in rows]
    offsets = np.cumsum([0, *(len(row.scores) for row in rows)], dtype=np.int32)

    def lists(values: Any) -> Any:
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(missing, pa.bool_()))

    numbers = np.concatenate([row.class_id for row in rows]).astype(np.int32)
    names = pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(list(labels), pa.string()))
    boxes = pa.array(np.concatenate([row.boxes for row in rows]).astype(np.float32).reshape(-1), pa.float32())
    size = pa.struct([("width", pa.int32()), ("height", pa.int32())])
    sizes = [None if row.size is None else dict(zip(("width", "height"), row.size)) for row in rows]
    return pa.table({
        "path": pa.array([_text(row.path) for row in rows], pa.string()),
        "size": pa.array(sizes, size),
        "boxes": lists(pa.FixedSizeListArray.from_arrays(boxes, 4)),
        "labels": lists(names.cast(pa.string())),
        "label_ids": lists(pa.array(numbers)),
        "scores": lists(pa.array(np.concatenate([row.scores for row in rows]).astype(np.float32))),
        "error": pa.array([_text(row.error) or None for row in rows], pa.string()),
    })  # fmt: skip


def _text(text: str) -> str:
    """A text that Parquet takes: bytes of a path that are not valid UTF-8 are shown as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()
