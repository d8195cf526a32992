"""benchmarks/pack_scenes.py: from what the training wrote to the file in the package, and when there is none."""

import json

import pytest
import torch

from conftest import SAMPLES, script
from ssdtrt.errors import SsdtrtError
from ssdtrt.formats.packed_weights import read_packed_record
from ssdtrt.model.weights import build_model

pack_scenes, scenes = script("pack_scenes"), script("scenes")


@pytest.fixture
def trained(tmp_path):
    """A folder as train_scenes.py leaves it, of the narrow random network."""
    model = build_model("random", labels=scenes.LABELS)
    torch.save({"model": model.state_dict()}, tmp_path / "scenes.pt")
    (tmp_path / "labels.txt").write_text("\n".join(scenes.LABELS) + "\n")
    (tmp_path / "training.json").write_text('{"settings": {"seed": 0}, "steps": 7, "history": []}')
    scenes.write_val(tmp_path / "val", 2, seed=4, scale=0.3)
    return tmp_path


def test_the_file_has_the_weights_and_their_figures(trained, monkeypatch, capsys):
    monkeypatch.setattr(pack_scenes, "MIN_AP", 0.0)
    out, report = trained / "out.npz", trained / "report.json"
    pack_scenes.main([str(trained), "-o", str(out), "--report", str(report), "--device", "cpu"])
    record, evaluation = read_packed_record(out), json.loads(report.read_text())
    assert record.labels == ("background", *scenes.LABELS)
    assert record.training == {"settings": {"seed": 0}, "steps": 7}
    assert (evaluation["kind"], record.images, len(record.annotations_sha256)) == ("evaluation", 2, 64)
    assert record.figures["AP"] == round(evaluation["figures"]["AP"], 4)
    assert build_model(out).labels[1] == "disc"
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size:,} bytes, AP {record.figures['AP']:.4f} on 2\n"


def test_what_is_too_large_or_finds_nothing_is_refused(trained, monkeypatch):
    out = trained / "out.npz"
    with pytest.raises(SsdtrtError, match=r"^AP 0\.\d{4} on 2 pictures; expected 0.7 or more.$"):
        pack_scenes.main([str(trained), "-o", str(out), "--device", "cpu"])
    monkeypatch.setattr(pack_scenes, "MAX_BYTES", 1000)
    with pytest.raises(SsdtrtError, match=r"^[\d,]+ bytes; expected 1,000 or less: train with a higher --sparsity.$"):
        pack_scenes.main([str(trained), "-o", str(out), "--device", "cpu"])
    assert not out.exists()


def test_the_sample_scenes_are_those_of_the_script(tmp_path, monkeypatch):
    """Two of them; others of the same script may differ by a rounding of the processor."""
    monkeypatch.setattr(pack_scenes, "SAMPLES", 2)
    pack_scenes.main(["--samples", str(tmp_path)])
    made, kept = (json.loads((folder / "annotations.json").read_text()) for folder in (tmp_path, SAMPLES / "scenes"))
    assert made["images"] == kept["images"][:2] and made["categories"] == kept["categories"]
    for one, other in zip(made["annotations"], kept["annotations"]):
        assert one["category_id"] == other["category_id"] and one["bbox"] == pytest.approx(other["bbox"], abs=1)
