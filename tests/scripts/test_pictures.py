"""benchmarks/pictures.py, on few pictures and a network whose answers are known."""

import json

import pytest
import torch

from conftest import script
from ssdtrt.reading.reader import PictureReader

pictures = script("pictures")


@pytest.mark.slow
def test_the_report(known, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "BATCH_SIZES", (1, 3))
    monkeypatch.setattr(pictures, "CALLS", 1)
    monkeypatch.setattr(pictures, "PROCESSES", (4,))
    monkeypatch.setattr(pictures, "FILES", 10)
    monkeypatch.setattr(pictures, "wall", lambda call: {"called": call() is not None, "median": 1.0})
    monkeypatch.setattr(PictureReader, "with_processes", lambda reader, paths, *_: reader.with_threads(paths))
    conf = torch.zeros(3, 81, 8732)
    conf[:, 0], conf[:, 5, ::1000] = 20, 25
    monkeypatch.setattr(pictures, "heads", lambda device: (torch.zeros(3, 4, 8732), conf, 9.0))
    monkeypatch.setattr("sys.argv", ["pictures.py", str(known), "--json", str(tmp_path / "p.json"), "--repeat", "1"])
    pictures.main()
    report = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == report
    assert report["machine"]["versions"]["torch"] == torch.__version__ and "cpu" in report["machine"]
    rows = report["decode_and_nms"]["rows"]
    assert [(row["batch_size"], row["same_as_exact"]) for row in rows] == [(1, 1), (3, 3)]
    runs = report["files_to_json_lines"]["runs"]
    assert [run["pictures"] for run in runs] == [40, 10]
    assert [run["workers"] for run in runs][1:] == [4]
    assert [run["detections"] for run in runs] == [3 * run["pictures"] for run in runs]
    assert report["gpu_to_host"]["batch_size"] == 2 and report["gpu_to_host"]["trained"] is True
