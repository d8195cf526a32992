"""scripts/baseline.py: which baseline a report is compared with, and the error where there is none."""

import importlib.util
import json
import subprocess
import sys

import pytest

from conftest import ROOT
from saved_reports import CPU, GPU, VERSIONS, engine, report, save
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.compare import differences

SCRIPT = ROOT / "scripts" / "baseline.py"
spec = importlib.util.spec_from_file_location("baseline", SCRIPT)
baseline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(baseline)


@pytest.mark.parametrize(
    "machine, name",
    [
        (GPU, "some-gpu_torch-2.14.0+cu130_torch-tensorrt-2.14.0_tensorrt-11.1.0.json"),
        (CPU, "some-cpu_16-cores_torch-2.14.0+cu130.json"),
        ({**CPU, "cpu": "Xeon(R) CPU @ 2.20GHz"}, "xeon-r-cpu-2.20ghz_16-cores_torch-2.14.0+cu130.json"),
        ({**CPU, "cpu": "../../a/b"}, "..-..-a-b_16-cores_torch-2.14.0+cu130.json"),
        ({**GPU, "versions": {**VERSIONS, "tensorrt": None}}, "some-gpu_torch-2.14.0+cu130_torch-tensorrt-2.14.0.json"),
    ],
)
def test_the_name_holds_what_must_agree(machine, name):
    assert baseline.name_of(report_file.parse(report(engine(), machine=machine), "a.json")) == name


@pytest.mark.parametrize("machine", [GPU, CPU], ids=["GPU", "CPU"])
def test_a_recorded_baseline_is_chosen(machine, tmp_path):
    path = save(tmp_path / "bench.json", report(engine(), machine=machine))
    folder = tmp_path / "baselines"
    chosen = baseline.choose(path, folder, record=True)
    assert chosen.parent == folder and json.loads(chosen.read_text()) == json.loads(path.read_text())
    assert baseline.choose(path, folder) == chosen
    older = {**machine, "versions": {**machine["versions"], "torch": "2.2.2"}}
    other = save(tmp_path / "other.json", report(engine(), machine=older))
    with pytest.raises(baseline.SsdtrtError) as caught:
        baseline.choose(other, folder)
    assert str(caught.value).startswith("There is no baseline for this machine and these versions; expected ")
    assert str(caught.value).endswith("torch-2.2.2" + chosen.name.partition("torch-2.14.0+cu130")[2] + ". "
                                      "Record one here and commit it: make bench-baseline")  # fmt: skip


def test_the_script_prints_the_path_or_one_line(tmp_path):
    path = save(tmp_path / "bench.json", report(engine()))

    def call(*arguments):
        command = [sys.executable, str(SCRIPT), *map(str, arguments), "--folder", str(tmp_path / "baselines")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
        return done.returncode, done.stdout, done.stderr

    code, out, error = call(path)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert error.startswith("Error: There is no baseline for this machine and these versions; expected ")
    name = "some-gpu_torch-2.14.0+cu130_torch-tensorrt-2.14.0_tensorrt-11.1.0.json"
    assert call(path, "--record") == call(path) == (0, f"{tmp_path / 'baselines' / name}\n", "")
    assert call(tmp_path / "none.json")[:2] == (1, "")


def test_the_kept_baselines_are_named_after_what_they_hold():
    kept = sorted((ROOT / "benchmarks" / "baselines").glob("*.json"))
    assert kept and [baseline.name_of(report_file.read(path)) for path in kept] == [path.name for path in kept]


def test_reports_of_one_name_can_be_compared():
    """What compare refuses for machine or versions has another name, but for what torch's own version implies."""
    for machine in (GPU, CPU):
        data = report(engine(), machine=machine)
        first = report_file.parse(data, "a.json")
        for key in ("gpu", "cpu", "cores"):
            other = report_file.parse({**data, "machine": {**machine, key: 3 if key == "cores" else "other"}}, "b.json")
            assert (baseline.name_of(first) == baseline.name_of(other)) is not bool(differences(first, other))
        for key in ("torch", "torch_tensorrt", "tensorrt", "driver"):
            versions = {**machine["versions"], key: "1.0"}
            other = report_file.parse({**data, "machine": {**machine, "versions": versions}}, "b.json")
            assert (baseline.name_of(first) == baseline.name_of(other)) is not bool(differences(first, other))
