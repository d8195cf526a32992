"""The actor by itself: blocks of prepared pictures to Parquet files, with what a Detector finds in the same pictures."""

import tempfile
import threading
import time

import pytest
from jpeg_files import jpeg, write_all

from ssdtrt.clusters.actor import ActorJob, BlockDetector
from ssdtrt.clusters.prepare import block_table, prepare_blocks
from ssdtrt.clusters.records import BatchSettings
from ssdtrt.detect import Detector
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.reading.reader import PictureReader
from ssdtrt.reading.reader_process import ReaderSettings
from ssdtrt.system.digests import sha256_file

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def job(known, tmp_path):
    def make(**changed):
        options = {"settings": BatchSettings(threshold=0.5, decode="cpu"), "jpegs": False, **changed}
        (tmp_path / "out").mkdir(exist_ok=True)
        return ActorJob(file=str(known), sha256=sha256_file(known), device="cpu", base=str(tmp_path),
                        folder=str(tmp_path / "out"), run="ab" * 32, token="token", **options)  # fmt: skip

    return make


def blocks_of(paths, size, jpegs):
    """The table of all blocks, as Ray hands several to an actor."""
    settings = ReaderSettings("eval", True, False, jpegs=jpegs)
    tables = [block_table(n, paths[n * size : (n + 1) * size]) for n in range(-(-len(paths) // size))]
    return pa.concat_tables([one for table in tables for one in prepare_blocks(table, settings, "/")])


def rows_in(folder):
    return pq.read_table(folder).to_pylist()


def expected_rows(known, paths, decode):
    """What a Detector finds: {path: (size, boxes, class ids, scores)}, without those that cannot be read."""
    found = Detector(known, "cpu", threshold=0.5, decode=decode, workers=1).stream(paths, [])
    return {
        paths[n]: (
            {"width": one.width, "height": one.height},
            one.xyxy.tolist(),
            one.class_id.tolist(),
            one.confidence.tolist(),
        )
        for n, one in found
    }


@pytest.mark.parametrize("jpegs", [False, True])
def test_rows_are_what_a_detector_finds(gpu_decoding, job, known, tmp_path, monkeypatch, jpegs):
    fallen_back, with_pillow = [], PictureReader.with_pillow
    monkeypatch.setattr(PictureReader, "with_pillow", lambda *both: fallen_back.append(both) or with_pillow(*both))
    (tmp_path / "in").mkdir()
    paths, broken = write_all(tmp_path / "in")
    paths = list(map(str, paths))
    done = [row for table in BlockDetector(job(jpegs=jpegs))(blocks_of(paths, 16, jpegs)) for row in table.to_pylist()]
    assert [(one["block"], one["pictures"]) for one in done] == [(0, 16), (1, 16), (2, 16), (3, len(paths) - 48)]
    rows, expected = rows_in(tmp_path / "out"), expected_rows(known, paths, "gpu" if jpegs else "cpu")
    assert fallen_back == []  # The GPU decoded all that is passed on as a JPEG.
    assert [row["path"] for row in rows] == paths and len(expected) == len(paths) - broken
    for row in rows:
        found = row["size"], row["boxes"], row["label_ids"], row["scores"]
        assert found == expected.get(row["path"], (None,) * 4)
        assert (row["error"] is None) == (row["path"] in expected)
        assert row["error"] is None or row["path"] in row["error"]
    assert sum(one["errors"] for one in done) == broken
    assert sum(one["detections"] for one in done) == sum(len(scores) for *_, scores in expected.values()) > 50


def test_what_neither_the_gpu_nor_pillow_decodes_has_its_error(gpu_decoding, job, tmp_path):
    contents = [jpeg((64 + n, 48), seed=n) for n in range(5)]
    for n, content in enumerate(contents):
        (tmp_path / f"{n}.jpg").write_bytes(content)
    settings = ReaderSettings("eval", True, False, jpegs=True)
    (table,) = prepare_blocks(block_table(0, [f"{n}.jpg" for n in range(5)]), settings, str(tmp_path))
    gpu_decoding.refused = [contents[1], contents[3]]
    (tmp_path / "3.jpg").unlink()
    list(BlockDetector(job(jpegs=True))(table))
    rows = rows_in(tmp_path / "out")
    assert [row["path"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [row["error"] for row in rows] == [None, None, None, "3.jpg: no such file.", None]
    assert [row["size"] and row["size"]["width"] for row in rows] == [64, 65, 66, None, 68]


def test_two_threads_that_call_it_do_not_mix_pictures(job, known, tmp_path, pictures):
    colors = [(230, 20, 20) if n % 3 else (20, 20, 230) for n in range(40)]
    paths = [str(pictures(f"{n:02}.png", color, (50 + n, 40))) for n, color in enumerate(colors)]
    detector, running = BlockDetector(job()), []
    stream = detector.detector.stream_prepared

    def alone(prepared, failures, takes_time):
        running.append(threading.get_ident())
        assert len(running) == 1
        time.sleep(0.02)
        yield from stream(prepared, failures, takes_time=takes_time)
        running.pop()

    detector.detector.stream_prepared = alone
    tables = [blocks_of(paths, 5, False).slice(n, 1) for n in range(8)]
    threads = [threading.Thread(target=lambda part=part: [list(detector(one)) for one in part])
               for part in (tables[::2], tables[1::2])]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = rows_in(tmp_path / "out")
    assert [row["path"] for row in rows] == paths
    assert [row["labels"][0] for row in rows] == ["cat" if n % 3 else "car" for n in range(40)]
    assert [row["size"]["width"] for row in rows] == list(range(50, 90))


def test_what_cannot_be_loaded_is_said_with_the_first_block(job, tmp_path):
    detector = BlockDetector(job(settings=BatchSettings(nms_iou=0.7, classes=(99,), decode="cpu")))
    with pytest.raises(SsdtrtError, match="There is no class 99"):
        list(detector(blocks_of([str(tmp_path / "a.png")], 1, False)))


def test_a_folder_that_cannot_be_written_ends_the_run(job, tmp_path, pictures):
    one = job()
    (tmp_path / "out").rmdir()
    with pytest.raises(ArtifactError, match=r"out cannot be written: No such file or directory\. Give another"):
        list(BlockDetector(one)(blocks_of([str(pictures("a.png"))], 1, False)))


def test_blocks_that_end_the_process_again_and_again_end_the_run(job, tmp_path, pictures, monkeypatch):
    paths = [str(pictures(name)) for name in ("a.png", "b.png", "c.png")]
    detector, table = BlockDetector(job()), blocks_of(paths, 2, False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begun = tmp_path / "ssdtrt-token-0"
    begun.write_bytes(b"....")  # As four processes left it that died.
    assert len(list(detector(table))) == 2 and not begun.exists()
    calling = detector(table)
    next(calling)
    assert begun.read_bytes() == b"."
    calling.close()
    begun.write_bytes(b".....")
    with pytest.raises(SsdtrtError) as error:
        list(detector(table))
    assert str(error.value).startswith(
        f"The process that detects died 5 times with the pictures {paths[0]} to {paths[2]} at "
    )
