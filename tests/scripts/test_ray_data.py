"""benchmarks/ray_data.py, on few pictures: the runs on clusters are those of tests/clusters."""

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, script
from ssdtrt.clusters.blocks import Row, unread, write_block
from ssdtrt.clusters.storage import Folder
from ssdtrt.detect import Detector, detect_files
from ssdtrt.sinks.json_sinks import JsonLinesSink

ray_data = script("ray_data")
pytest.importorskip("pyarrow")


@pytest.fixture
def compared(known, tmp_path, monkeypatch):
    """Pictures of which two are cut off, what `detect` writes of them, and the same as rows of two blocks."""
    monkeypatch.setattr(ray_data, "CORRUPT", 4)
    ray_data.write_pictures(tmp_path / "in", 8)
    paths, failures = sorted((tmp_path / "in").iterdir()), []
    detector = Detector(known, "cpu")
    detect_files(detector, paths, [JsonLinesSink(tmp_path / "found.jsonl", detector.runner.labels)], failures)
    (tmp_path / "detect.json").write_text(json.dumps({"failures": list(map(str, failures))}))
    (tmp_path / "out").mkdir()
    errors = {2: str(failures[0]), 6: str(failures[1])}
    found = dict(detector.stream(paths, []))
    rows = [
        unread(str(path), errors[n])
        if n in errors
        else Row(str(path), (found[n].width, found[n].height), found[n].xyxy, found[n].class_id, found[n].confidence)
        for n, path in enumerate(paths)
    ]

    def compare(changed):
        for block in range(2):
            part = changed[4 * block : 4 * block + 4]
            write_block(Folder(str(tmp_path / "out")), block, "ab" * 32, part, detector.runner.labels)
        return ray_data.compare(tmp_path / "out", tmp_path / "found.jsonl", tmp_path / "detect.json")

    return rows, compare


def test_the_same_rows_are_identical(compared):
    rows, compare = compared
    found = compare(rows)
    assert (found["rows"], found["different_paths"], found["errors"], found["detections"]) == (8, 8, 2, 18)
    assert (found["identical"], found["in_order"], found["other_size_count_or_error"]) == (6, True, [])
    assert found["largest_difference_of_a_score"] == found["largest_difference_of_an_edge"] == 0


def test_every_kind_of_difference_is_seen(compared):
    rows, compare = compared
    first, second, third, fourth = rows[0], rows[1], rows[3], rows[4]
    rows[0] = Row(first.path, first.size, first.boxes + np.float32(0.5), first.class_id, first.scores)
    rows[1] = Row(second.path, second.size, second.boxes, second.class_id, second.scores - np.float32(0.01))
    rows[3] = Row(third.path, third.size, third.boxes[1:], third.class_id[1:], third.scores[1:])
    rows[4] = Row(fourth.path, (1, 1), fourth.boxes, fourth.class_id, fourth.scores)
    rows[6] = unread(rows[6].path, "another reason")
    rows[7] = rows[5]
    found = compare(rows)
    assert (found["rows"], found["different_paths"], found["errors"], found["identical"]) == (8, 7, 2, 3)
    assert found["largest_difference_of_a_score"] == pytest.approx(0.01, abs=1e-6)
    assert found["largest_difference_of_an_edge"] == pytest.approx(0.5)
    names = [Path(path).name for path in found["other_size_count_or_error"]]
    assert names == ["000003.jpg", "000004.jpg", "000006.jpg"] and not found["in_order"]


def test_the_rate_is_that_between_the_first_and_the_last_tenth():
    marks = [(100.0 + 50 * (n == 0) + n, 10) for n in range(20)]  # The first came late.
    assert ray_data.steady(sorted(marks)) == {"pictures": 200, "images_per_second": pytest.approx(10)}


def test_detect_alone(known, tmp_path):
    ray_data.write_pictures(tmp_path / "in", 60)
    found = ray_data.one(str(known), str(tmp_path / "in"), "cpu", "0", "256", str(tmp_path))
    assert (found["pictures"], found["errors"]) == (59, 1) and found["images_per_second"] > 0


def test_what_fails_or_takes_too_long_costs_only_its_own_row(tmp_path, monkeypatch, capsys):
    """The cases are replaced by commands: what they measure is tested above, and on clusters."""
    (tmp_path / "in" / "files").mkdir(parents=True)
    (tmp_path / "in" / "files" / "a.jpg").write_bytes(b"12345")
    (tmp_path / "in" / "links").mkdir()
    (tmp_path / "case.py").write_text(
        "import json, os, sys, time\n"
        "decode, actors = sys.argv[4:6]\n"
        "if (decode, actors) == ('gpu', '1'): sys.exit(3)\n"
        "if (decode, actors) == ('gpu', '2'): time.sleep(600)\n"
        "rate = {'0': 100, '1': 90, '2': 171}[actors]\n"
        "print(json.dumps({'images_per_second': rate, 'machine': {'affinity': len(os.sched_getaffinity(0))}}))\n"
    )
    monkeypatch.setattr(ray_data, "__file__", str(tmp_path / "case.py"))
    words = ["speed", "a.ts", "--folder", str(tmp_path / "in"), "--actors", "1", "2", "--timeout", "5", "--cores", "1"]
    ray_data.main([*words, "--json", str(tmp_path / "speed.json")])
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report == json.loads(capsys.readouterr().out)
    runs = {(run["decode"], run["actors"]): run for run in report["runs"]}
    assert runs["gpu", 1]["error"] == "exit code 3" and runs["gpu", 2]["error"] == "not done after 5 s"
    assert runs["gpu", 0]["images_per_second"] == 100 and report["machine"] == {"affinity": 1}
    assert (runs["cpu", 1]["over_detect"], runs["cpu", 2]["over_detect"]) == (0.9, 1.71)
    assert runs["cpu", 2]["over_one_actor"] == pytest.approx(1.9) and "over_one_actor" not in runs["cpu", 1]
    assert report["mean_file_bytes"] == 5 and len(runs) == 6


def test_the_figures_of_the_documentation_are_recorded():
    report = json.loads((ROOT / "benchmarks" / "reports" / "cpu-ray-data.json").read_text(encoding="utf-8"))
    rows = report["rows"]
    assert (report["pictures"], report["corrupt"], report["block_size"]) == (10_000, 100, 100)
    assert (rows["rows"], rows["different_paths"], rows["errors"], rows["identical"]) == (10_000, 10_000, 100, 9_900)
    assert rows["other_size_count_or_error"] == [] and report["report"]["blocks_before"] == 40
    assert [one.get("blocks_there") for one in report["events"]] == [20, 40, 60, None]
