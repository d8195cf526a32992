"""Tests of the installed versions and the description of the machine."""

import json
import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ssdtrt
from conftest import ROOT
from ssdtrt.system import versions
from ssdtrt.system.versions import MeasuredOn, Versions, installed, installed_versions, measured_on, this_machine


def test_versions():
    found = installed_versions()
    assert list(found.as_dict()) == [
        "torch", "ssdtrt", "python", "torchvision", "torch_tensorrt", "tensorrt", "cuda", "driver"
    ]  # fmt: skip
    assert (found.ssdtrt, found.python) == (ssdtrt.__version__, platform.python_version())
    assert (found.torch, found.cuda) == (str(torch.__version__), torch.version.cuda)
    assert all(value is None or type(value) is str for value in found.as_dict().values())  # torch.__version__ is not
    assert found.torchvision[0].isdecimal()


def test_machine():
    found = this_machine()
    assert list(found.as_dict()) == ["os", "architecture", "cpu", "cores", "gpu", "sm"]
    assert (found.os, found.architecture) == (platform.system(), platform.machine())
    assert isinstance(found.cpu, str) and found.cpu
    assert 1 <= found.cores <= os.cpu_count()
    assert (found.gpu, found.sm) == (None, None)
    assert this_machine("cpu") == this_machine(torch.device("cpu")) == found


def test_cores_are_those_that_may_be_used():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("processes are not bound to cores here")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert this_machine().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_both_in_one_record_become_json():
    found = measured_on("cpu").as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"] == installed_versions().as_dict() and found["os"] == platform.system()


def test_the_line_names_what_decides_the_figures():
    versions = Versions(torch="2.2.2", torch_tensorrt="2.2.0", tensorrt=None, driver="580.1")
    assert MeasuredOn(gpu="NVIDIA H200", versions=versions).line == (
        "NVIDIA H200, torch 2.2.2, Torch-TensorRT 2.2.0, driver 580.1"
    )
    assert MeasuredOn(cpu="Some CPU", cores=2, versions=versions).line == "Some CPU, 2 cores, torch 2.2.2"


def test_installed():
    assert installed("no-such-distribution-of-ours") is None
    assert installed("click").split(".")[0] == "8"


def test_what_an_extra_needs_is_installed_from_the_checkout_that_runs(monkeypatch, tmp_path):
    """By its folder, from wherever the command runs; and by name where the package is installed."""
    monkeypatch.setattr(versions, "_ROOT", ROOT)
    for folder, name in ((ROOT, "."), (ROOT / "examples" / "cpp", "../.."), (tmp_path, str(ROOT))):
        monkeypatch.chdir(folder)
        assert versions.pip_install("eval") == f"pip install -e '{name}[eval]'"
    assert versions.pip_install_tensorrt() == (
        f"pip install -e '{ROOT}[tensorrt]' (or, where only PyPI can be reached, '{ROOT}[tensorrt-pypi]' with Python 3.10)"
    )
    monkeypatch.setattr(versions, "_ROOT", tmp_path)
    assert versions.pip_install("eval") == "pip install 'ssdtrt[eval]'"
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = another\n")  # A project that holds a copy of the package.
    assert versions.pip_install("eval") == "pip install 'ssdtrt[eval]'"


def test_no_message_names_an_extra_by_itself():
    texts = {path: path.read_text(encoding="utf-8") for path in Path(ssdtrt.__file__).parent.rglob("*.py")}
    assert not [path for path, text in texts.items() if "ssdtrt[" in text]


@pytest.mark.parametrize(
    "seen, files, hidden, library, expected",
    [
        (None, ["nvidia0"], None, True, True),
        (None, ["nvidia0"], "", True, False),
        (None, ["nvidia0"], "1", False, False),
        (None, [], None, True, False),
        (True, [], None, True, True),
        (False, ["nvidia0"], None, True, False),
    ],
)
def test_whether_tensorrt_can_be_used_is_known_without_torch(
    seen, files, hidden, library, expected, monkeypatch, tmp_path
):
    """By torch where it is imported (`seen`), and by the driver's files else."""
    torch_there = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: seen))
    monkeypatch.setitem(sys.modules, "torch", None if seen is None else torch_there)
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(versions, "_GPU_FILES", (str(tmp_path / "nvidia[0-9]*"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    # `json` is found; the other is not.
    assert versions.may_have_tensorrt("json" if library else "no_such_module") is expected
