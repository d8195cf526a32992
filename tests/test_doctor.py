"""The whole of `doctor` on this machine; and that nothing that is broken there can end it."""

import doctest
import importlib
import json
import os
import subprocess
import sys

import pytest
import torch
from machines import GOOD, machine, shadow  # noqa: F401

import ssdtrt as package
from conftest import ROOT
from ssdtrt import doctor
from ssdtrt.diagnosis.facts import BuildTest, Failure, TorchTensorrt
from ssdtrt.diagnosis.report import TEST_BUILD
from ssdtrt.doctor import diagnose

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def call(*arguments, **environment):
    """The command in a process of its own."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "ssdtrt", *arguments], capture_output=True, text=True, env=known, timeout=120
    )


@no_gpu
def test_this_machine(tmp_path):
    done = call("-q", "doctor", "--build", "--json", str(tmp_path / "doctor.json"), PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert list(report) == ["schema", "kind", "can_build", "findings"]
    assert (report["schema"], report["kind"], report["can_build"]) == (2, "doctor", False)
    assert all(list(row) == ["check", "status", "found", "fix"] for row in report["findings"])
    found = {row["check"]: (row["status"], row["found"], row["fix"]) for row in report["findings"]}
    assert found["driver"][0] == "warning" and found["driver"][1].endswith("nvidia-smi is not on the PATH")
    assert found["GPU"][0] == "problem" and "Found no NVIDIA driver" in found["GPU"][1]
    assert found["torch"][1].startswith(f"{torch.__version__}, built for CUDA {torch.version.cuda}")
    assert found["torchvision"] == ("ok", importlib.import_module("torchvision").__version__, "")
    assert found["Torch-TensorRT"][:2] == ("problem", "not installed")
    assert found["test build"] == ("problem", "not tried; see GPU, Torch-TensorRT", "Fix these problems first.")
    assert found["CPU engine"] == ("ok", "works here: ssdtrt export && ssdtrt compile --backend torchscript", "")
    assert done.stdout.splitlines()[-1] == "No TensorRT engine can be built here: 3 problems."


@pytest.mark.parametrize(
    "code, found",
    [
        ("raise ImportError('broken')", "cannot be imported (ImportError: broken)"),
        ("import os; os.abort()", "cannot be imported (importing torch ended with signal 6)"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", "not installed"),
    ],
)
def test_the_command_with_a_broken_torch(shadow, code, found):  # noqa: F811
    shadow("torch", code)
    done = call("-q", "doctor", "--json", "-", PYTHONPATH=os.environ["PYTHONPATH"])
    assert (done.returncode, done.stderr) == (1, "")
    rows = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert (rows["torch"]["status"], rows["torch"]["found"]) == ("problem", found)
    assert "CPU engine" not in rows and "torchvision" not in rows


def test_this_process_imports_no_torch(shadow):  # noqa: F811
    shadow("torch", "")
    code = (
        "import sys; from ssdtrt.cli import main\ntry: main(['-q', 'doctor', '--json', '-'])\n"
        "finally: print({'torch', 'pynvml'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == "set()\n" and json.loads(done.stdout)["findings"]


def test_a_tiny_engine_is_built_where_it_is_asked_for_and_nothing_forbids_it(monkeypatch):
    monkeypatch.setattr(doctor, "gather_facts", lambda progress: GOOD)
    monkeypatch.setattr(doctor, "run_test_build", lambda progress: pytest.fail("it was built"))
    report = package.diagnose()
    assert report.can_build and not report.built
    monkeypatch.setattr(doctor, "run_test_build", lambda progress: BuildTest(3.2, 4e-4))
    report = diagnose(build=True)
    assert report.can_build and report.built
    assert (report.findings[-1].check, report.findings[-1].status) == (TEST_BUILD, "ok")
    monkeypatch.setattr(doctor, "run_test_build", lambda progress: Failure("no"))
    report = diagnose(build=True)
    assert not report.can_build and not report.built


def test_it_is_not_built_where_a_problem_forbids_it(monkeypatch):
    broken = machine(torch_tensorrt=TorchTensorrt("2.14.0", torchscript=False, dynamo=True))
    monkeypatch.setattr(doctor, "gather_facts", lambda progress: broken)
    monkeypatch.setattr(doctor, "run_test_build", lambda progress: pytest.fail("it was built"))
    assert diagnose(build=True).findings[-1].found == "not tried; see front ends"


def test_the_example_runs(shadow):  # noqa: F811
    shadow("torch", "")
    result = doctest.testmod(doctor)
    assert result.attempted >= 3 and result.failed == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_tiny_engine_is_built():
    done = call("-q", "doctor", "--build", "--json", "-")
    assert done.returncode == 0, done.stdout
    rows = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert rows[TEST_BUILD]["status"] == "ok" and rows["GPU 0"]["status"] == "ok"
