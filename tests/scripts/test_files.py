"""benchmarks/files.py, on few files and a network whose answers are known."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from conftest import script

files = script("files")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ProcessPoolExecutor", ThreadPoolExecutor)
    size = files.write_files(tmp_path / "jpegs", files=3, pictures=8, broken=5)
    assert 60_000 < size < 100_000
    return tmp_path / "jpegs"


def test_the_files_are_there_and_one_in_five_is_cut_off(folder):
    links = sorted((folder / "links").iterdir())
    assert [link.resolve().stem for link in links] == ["000000", "000001", "broken", "000000", "000001", "000002",
                                                       "000000", "broken"]  # fmt: skip
    with Image.open(links[0]) as picture:
        assert picture.size == (640, 480) and picture.format == "JPEG"
    assert files.write_files(folder, 3, 8, 5) == pytest.approx(files.write_files(folder, 99, 99, 0))  # Written once.


def test_a_measurement(known, folder, monkeypatch):
    monkeypatch.setattr(files, "SAMPLE_SECONDS", 0.01)
    found = files.one(str(known), str(folder / "links"), "cpu")
    assert (found["pictures"], found["failures"], found["detections"]) == (8, 2, 18)
    assert found["images_per_second"] == pytest.approx(8 / found["seconds"])
    assert len((folder / "lines.jsonl").read_text().splitlines()) == 6
    assert found["memory"][0]["process"] > 50
    json.dumps(found)


@pytest.mark.parametrize("part", ["no-network", "read"])
def test_a_part_alone(known, folder, part):
    found = files.one(str(known), str(folder / "links"), "cpu", part)
    assert (found["part"], found["pictures"], found.get("detections", 0)) == (part, 8, 0)
    assert found["images_per_second"] > 0 and found["main_thread_cpu_us_a_picture"] > 0
