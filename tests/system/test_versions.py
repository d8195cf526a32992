"""Tests of the installed versions and the description of the machine."""

import json
import os
import platform

import pytest
import torch

import ssdtrt
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
