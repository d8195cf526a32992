"""What INT8 costs, as `benchmarks/int8_accuracy.py` measures it, on a narrow network and a few scenes."""

import json

import pytest

from conftest import script
from ssdtrt import build_model, export_module
from ssdtrt.quantization import judge

int8_accuracy, scenes = script("int8_accuracy"), script("scenes")


def test_each_calibrator_and_number_of_layers_has_its_figures(tmp_path, monkeypatch, capsys):
    module = export_module(build_model("random", labels=scenes.LABELS), tmp_path / "m.ts")
    scenes.write_val(tmp_path / "calibration", 2, 2)
    annotations = scenes.write_val(tmp_path / "judged", 1, 3)
    monkeypatch.setattr(judge, "_MIN_SEEN", 0.0)  # Random weights see little.
    monkeypatch.setattr(int8_accuracy, "KEPT", (0, 57))
    monkeypatch.setattr(int8_accuracy.config, "CALIBRATORS", ("max", "percentile"))
    pictures = [
        "--calibration",
        str(tmp_path / "calibration" / "images"),
        "--images",
        str(tmp_path / "judged" / "images"),
    ]
    out = tmp_path / "out.json"
    more = ["--annotations", str(annotations), "--few", "--device", "cpu", "--json", str(out)]
    int8_accuracy.main([str(module), *pictures, *more])
    report = json.loads(out.read_text(encoding="utf-8"))
    assert list(report["as it is"]) == list(report["equalized"]) == ["max", "percentile"]
    assert len(report["costs"]) == 57 and sum(one["share"] for one in report["costs"]) == pytest.approx(1)
    assert report["in_fp16"]["57"]["share"] == pytest.approx(1) and report["in_fp16"]["0"]["share"] == 0
    assert report["in_fp16"]["57"]["ap"] == pytest.approx(report["fp32_ap"], abs=1e-6)
    assert "equalized percentile {'ap'" in capsys.readouterr().out
