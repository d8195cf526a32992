"""The Parquet file of a block: its columns, and what is not taken for one."""

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from ssdtrt.clusters.blocks import Row, block_of, name_of, read_footer, unread, write_block  # noqa: E402
from ssdtrt.clusters.records import BlockDone  # noqa: E402
from ssdtrt.clusters.storage import Folder  # noqa: E402

RUN = "ab" * 32
LABELS = ("background", "cat", "dog")
ROWS = [
    Row("a.jpg", (20, 10), np.array([[1, 2, 3, 4.5], [0, 0, 20, 10]], np.float32), np.array([2, 1]),
        np.array([0.75, 0.5], np.float32)),
    unread("b.jpg", "b.jpg cannot be read."),
    Row("\udcff.jpg", (5, 5), np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32)),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path))


def test_rows_are_columns_and_what_could_not_be_read_is_null(folder, tmp_path):
    done = write_block(folder, 7, RUN, ROWS, LABELS)
    assert done == BlockDone(7, RUN, 3, 2, 1, "b.jpg cannot be read.")
    assert pq.read_table(tmp_path / "part-00000007.parquet").to_pylist() == [
        {"path": "a.jpg", "size": {"width": 20, "height": 10}, "boxes": [[1, 2, 3, 4.5], [0, 0, 20, 10]],
         "labels": ["dog", "cat"], "label_ids": [2, 1], "scores": [0.75, 0.5], "error": None},
        {"path": "b.jpg", "size": None, "boxes": None, "labels": None, "label_ids": None, "scores": None,
         "error": "b.jpg cannot be read."},
        {"path": "\\udcff.jpg", "size": {"width": 5, "height": 5}, "boxes": [], "labels": [], "label_ids": [],
         "scores": [], "error": None},
    ]  # fmt: skip
    assert read_footer(folder, 7) == done


def test_a_path_that_is_no_text_and_cannot_be_read(folder):
    done = write_block(folder, 0, RUN, [unread("\udcff.jpg", "\udcff.jpg: no such file.")], LABELS)
    assert done == read_footer(folder, 0) == BlockDone(0, RUN, 1, 0, 1, "\\udcff.jpg: no such file.")


def test_a_block_without_any_detection_has_the_same_columns(folder, tmp_path):
    write_block(folder, 0, RUN, ROWS, LABELS)
    write_block(folder, 1, RUN, ROWS[1:], LABELS)
    first, second = (pq.read_schema(tmp_path / name_of(block)) for block in (0, 1))
    assert first.equals(second)
    assert pq.read_table(tmp_path)["path"].to_pylist() == ["a.jpg", "b.jpg", "\\udcff.jpg", "b.jpg", "\\udcff.jpg"]


def test_a_file_that_is_damaged_or_of_others_is_no_block(folder, tmp_path):
    write_block(folder, 3, RUN, ROWS, LABELS)
    path = tmp_path / name_of(3)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert read_footer(folder, 3) is None
    path.write_bytes(b"")
    assert read_footer(folder, 3) is None
    pq.write_table(pa.table({"path": ["a"]}), path)
    assert read_footer(folder, 3) is None
    table = pq.read_table(pa.BufferReader(content))
    pq.write_table(table.slice(1), path)  # It has the footer's text, and a row less.
    assert read_footer(folder, 3) is None


def test_names_have_the_number():
    assert name_of(42) == "part-00000042.parquet" and block_of("part-00000042.parquet") == 42
    assert [block_of(name) for name in ("part-1.parquet", "_manifest.json", ".part-00000042.parquet")] == [None] * 3
