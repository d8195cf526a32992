"""The task that reads: pictures of a block to one row, as one machine reads and prepares them."""

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from jpeg_files import write_all
from PIL import Image

from ssdtrt.clusters import prepare
from ssdtrt.clusters.prepare import block_table, prepare_blocks, read_pictures
from ssdtrt.reading.addresses import AddressRules
from ssdtrt.reading.reader_process import ReaderSettings

pytest.importorskip("pyarrow")

SETTINGS = ReaderSettings("eval", True, False)


def prepared(paths, folder, settings=SETTINGS):
    """What the actor is given of one block."""
    (table,) = prepare_blocks(block_table(5, paths), settings, str(folder))
    assert table.num_rows == 1
    ((block, read),) = read_pictures(table)
    assert block == 5
    return read


def test_several_blocks_of_a_table_however_it_is_cut(pictures):
    import pyarrow as pa

    folder = pictures("a.png", (10, 200, 30), (20, 10)).parent
    for name, shade in (("b.png", 1), ("c.png", 2), ("d.png", 3)):
        Image.new("L", (30, 60), shade).save(folder / name)
    blocks = [["a.png", "none.jpg", "b.png"], ["none.png"], ["c.png"], ["d.png", "a.png"]]
    tables = [block_table(number, paths) for number, paths in enumerate(blocks)]
    # One after the other as Ray joins them, joined by copying, and cut again.
    joined = pa.concat_tables([next(prepare_blocks(table, SETTINGS, str(folder))) for table in tables])
    shades = [[(10, 200, 30), None, (1, 1, 1)], [None], [(2, 2, 2)], [(3, 3, 3), (10, 200, 30)]]
    for first, table in [(0, joined), (0, joined.combine_chunks()), (1, joined.combine_chunks().slice(1)),
                         (3, joined.slice(3))]:  # fmt: skip
        found = dict(read_pictures(table))
        assert {number: [one.path for one in read] for number, read in found.items()} == {
            number: paths for number, paths in enumerate(blocks) if number >= first
        }
        pixels = [[tuple(one.content[-3:]) or None for one in read] for read in found.values()]
        assert pixels == shades[first:]
        assert all(len(one.content) == (0 if one.error else 270_000) for read in found.values() for one in read)


def test_pixels_are_those_of_pillow_and_errors_stay_in_their_places(pictures):
    folder = pictures("a.png", (10, 200, 30), (200, 100)).parent
    (folder / "b.jpg").write_bytes(b"\xff\xd8\xffbroken")
    name = os.fsdecode(b"\xff.png")
    Image.new("L", (30, 60), 77).save(folder / name)
    first, second, third, fourth = prepared(["a.png", "b.jpg", name, "none.jpg"], folder)
    assert (first.path, first.size, first.orientation, first.error) == ("a.png", (200, 100), 0, "")
    assert np.array_equal(np.frombuffer(first.content, np.uint8).reshape(300, 300, 3)[150, 150], (10, 200, 30))
    assert (second.path, second.size, bytes(second.content)) == ("b.jpg", (0, 0), b"")
    assert second.error.startswith("b.jpg cannot be read as a picture (")
    assert (third.path, third.size) == (name, (30, 60)) and set(bytes(third.content)) == {77}
    assert fourth.error == "none.jpg: no such file."


def test_jpegs_for_a_gpu_stay_as_they_are_and_the_others_become_pixels(tmp_path):
    paths, _ = write_all(tmp_path)
    read = prepared(list(map(str, paths)), tmp_path, SETTINGS._replace(jpegs=True))
    assert [one.path for one in read] == list(map(str, paths))
    files = [one for one in read if one.orientation]
    assert len(files) > 30 and {one.orientation for one in files} == set(range(1, 9))
    assert all(bytes(one.content) == Path(one.path).read_bytes() for one in files)
    others = [one for one in read if not one.orientation]
    assert {len(one.content) for one in others} == {0, 270_000}
    assert all((one.size == (0, 0)) == bool(one.error) == (not one.content) for one in others)


def test_pictures_come_from_stores_and_the_web_by_the_rules(web, pictures):
    content = pictures("a.png", (1, 2, 3), (40, 20)).read_bytes()
    store = fsspec.filesystem("memory")
    store.pipe_file("/read/a.png", content)
    web.pages["/a.png"] = content
    web_address = web.address("/a.png", user="me:secret@")
    paths = ["memory://read/a.png", "memory://read/none.png", web_address, web.address("/none.png"), "nosuch://a/b.png"]
    try:
        read = prepared(paths, "/", SETTINGS._replace(addresses=AddressRules(allow_private=True)))
        small = prepared(paths[:1], "/", SETTINGS._replace(addresses=AddressRules(max_bytes=10)))
    finally:
        store.rm("/read", recursive=True)
    assert [one.size for one in read] == [(40, 20), (0, 0), (40, 20), (0, 0), (0, 0)]
    assert read[2].path == web.address("/a.png")
    assert read[1].error == "memory://read/none.png: no such file."
    assert "404" in read[3].error
    assert read[4].error.startswith("nosuch://a/b.png cannot be opened with fsspec: ")
    assert small[0].error == "memory://read/a.png has more than 10 bytes. A larger --max-bytes (max_bytes) takes it."


def test_a_picture_that_ends_the_process_costs_its_row_once_it_is_suspected(pictures, tmp_path, monkeypatch):
    """As Ray tries again: first in the process of the task, and from the third time on apart from it."""
    folder = pictures("a.png", (1, 2, 3)).parent
    pictures("poison.png")
    pictures("z.png", (3, 2, 1))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, PIL.Image\n"
        "real = PIL.Image.open\n"
        "PIL.Image.open = lambda place, *rest: os._exit(9) if 'poison' in str(place) else real(place, *rest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(prepare, "attempts_before", lambda: 2)
    first, second, third = prepared(["a.png", "poison.png", "z.png"], folder)
    assert (first.error, second.error, third.error) == (
        "", "poison.png cannot be read as a picture (the process that read it died).", ""
    )  # fmt: skip
    assert bytes(first.content[:3]) == bytes((1, 2, 3)) and bytes(third.content[:3]) == bytes((3, 2, 1))
