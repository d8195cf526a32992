"""What `benchmarks/results.py` measures is what `detect` does."""

import json

from conftest import script

results = script("results")


def test_the_parts_of_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "BATCH_SIZES", (8,))
    monkeypatch.setattr(
        "sys.argv", ["results.py", "--json", str(tmp_path / "r.json"), "--pictures", "16", "--repeat", "2"]
    )
    results.main()
    report = json.loads((tmp_path / "r.json").read_text())
    assert [(row["batch_size"], row["detections"]) for row in report["rows"]] == [(8, 8), (8, 20), (8, 100)]
    for row in report["rows"]:
        assert row["unpack"] > 0 and row["all"] > 0  # The others are differences of times, and with 16 pictures noise.
        parts = row["unpack"] + row["loop"] + row["json_lines"]
        assert abs(row["all"] - parts) < 0.02
        assert 95 < row["bytes_of_a_line"] / row["detections"] < 130


def test_made_up_pictures_have_about_as_many_detections():
    (batch,) = results.stream_batches([results.made_up(64, 20, 3)])
    assert len(batch) == 64 and 19 < len(batch.confidence) / 64 < 21
    assert batch.confidence.min() >= results.THRESHOLD and batch.xyxy.min() == 0 and batch.xyxy.max() == 640
    assert batch.indices[0] == 192 and batch.images[0] == "/data/pictures/000192.jpg"
