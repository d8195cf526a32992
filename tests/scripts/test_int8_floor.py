"""benchmarks/int8_floor.py, on the recorded profiles and on one whose figures are known."""

import json

import pytest

from conftest import ROOT, script

int8_floor = script("int8_floor")
REPORTS = ROOT / "benchmarks" / "reports"
FORMS = ("int8-profile", "int8-fp16-profile")


def profile(*rows, **changes):
    """A recorded profile of (name, type, multiplications, milliseconds)."""
    layers = [
        {"layer": {"name": name, "operation": "A", "dtype": dtype, "multiplications": count}, "median_ms": time}
        for name, dtype, count, time in rows
    ]
    return {"kind": "profile", "batch_size": 4, "call_ms": 0.5, "layers": layers, **changes}


def test_what_runs_beside_others_counts_its_arithmetic_but_not_its_time(tmp_path, capsys):
    data = profile(
        ("heads.0 + heads.0.weight", "int8", 3_000_000_000, 0.4),
        ("additional_blocks.0.3", "int8", 1_000_000_000, 0.2),
        ("feature_extractor.feature_extractor.5.0.downsample.0", "int8", 500_000_000, 0.1),
        ("feature_extractor.feature_extractor.5.0.conv1", "int8", 500_000_000, 0.04),
        ("rows.2_copy_output", "fp32", None, 0.08),
        ("rows.6_copy_output", "fp32", None, 0.012),
        ("(Unnamed Layer* 9) [Quantize]_output copy", "int8", None, 0.016),
    )
    (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
    int8_floor.main([str(tmp_path / "a.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| Part, an image | GFLOP | INT8, batch 4: us | of the peak |"
    assert "| heads and additional blocks, side by side | 8.00 | 53.00 | 8 % |" in lines  # (0.2 + 0.012) / 4
    assert "| conv3_x | 2.00 | 10.00 | 10 % |" in lines
    assert "| sum | 10.00 | 63.00 | 8 % |" in lines and "| a call | 10.00 | 125.00 | 4 % |" in lines
    assert "| the peak | 10.00 | 5.05 | 100 % |" in lines
    assert "| heads.0 | 6.00 | 100.00 | 3 % |" in lines and "| projection of conv3_x | 1.00 | 25.00 | 2 % |" in lines
    assert "| copies for merged projections | - | 4.00 | - |" in lines
    assert "| copies of the heads' outputs | - | 23.00 | - |" in lines


@pytest.mark.parametrize("size", [1, 32, 128])
@pytest.mark.parametrize("form", FORMS)
def test_recorded_profiles_have_all_of_the_arithmetic_and_all_of_the_time(form, size):
    path = REPORTS / f"h200-{form}-b{size}.json"
    data, found = json.loads(path.read_text()), int8_floor.read(path)
    assert sum(one.gflop for one in found.parts.values()) == pytest.approx(40.3004, abs=1e-4)
    beside = [found.details[name].us for name in int8_floor.DETAILS if name[:5] in ("heads", "proje", "copie")]
    last = [row["median_ms"] for row in data["layers"] if row["layer"]["name"].startswith(("heads.5", "rows.6"))]
    times = sum(one.us for one in found.parts.values()) + sum(beside)
    assert times - sum(last) / size * 1e3 == pytest.approx(data["sum_ms"] / size * 1e3)


@pytest.mark.parametrize("size", [32, 128])
def test_the_page_has_the_tables_of_the_recorded_profiles(size, capsys):
    int8_floor.main([str(REPORTS / f"h200-{form}-b{size}.json") for form in FORMS])
    page = (ROOT / "docs" / "int8-floor.md").read_text(encoding="utf-8")
    parts, details = capsys.readouterr().out.strip().split("\n\n")
    assert parts in page and (size == 32 or details in page)


def test_another_network_and_another_file_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(profile(("layer4.0.conv1", "fp16", 1, 1.0))), encoding="utf-8")
    with pytest.raises(SystemExit, match="no layer of this network"):
        int8_floor.read(path)
    path.write_text(json.dumps(profile(kind="bench")), encoding="utf-8")
    with pytest.raises(SystemExit, match="is no profile"):
        int8_floor.read(path)
