"""benchmarks/service_costs.py: what it measures of an engine and pictures."""

import json

import pytest
from PIL import Image

from conftest import script
from known import Few, known_file

pytest.importorskip("ray")


def test_each_step_is_measured_by_itself(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(14):
        Image.new("RGB", (64 + number, 48)).save(folder / f"{number:02d}.jpg")
    engine = known_file(tmp_path / "few.ts", network=Few)
    found = json.loads(json.dumps(script("service_costs").measure(str(engine), folder)))
    assert set(found["batch_ms"]) == set(found["batch_locked"]) == {"1", "2"}  # A service on a CPU has no larger ones.
    assert found["decode_ms"] > 0 and all(ms > 0 for ms in found["batch_ms"].values())
    assert all(0 <= share <= 1 for share in (found["decode_locked"], *found["batch_locked"].values()))
