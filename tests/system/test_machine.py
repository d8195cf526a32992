"""What this machine is, and FP32 that means FP32."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ssdtrt
from ssdtrt.errors import SsdtrtError
from ssdtrt.system.devices import current_device, emulates_bf16, pick_device, tf32_disabled
from ssdtrt.system.gpu_state import driver_version
from ssdtrt.system.versions import installed, installed_versions, this_machine

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def flags():
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture
def other_flags():
    """Every flag the other way than it was, for one test."""
    before = flags()
    changed = tuple(not flag for flag in before)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = changed
    yield changed
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name, and nothing else, on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(script):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return install


def test_versions():
    found = installed_versions()
    assert list(found) == ["ssdtrt", "python", "torch", "torchvision", "torch_tensorrt", "tensorrt", "cuda", "driver"]
    assert found["ssdtrt"] == ssdtrt.__version__
    assert found["python"] == platform.python_version()
    assert found["torch"] == str(torch.__version__)
    assert found["cuda"] == torch.version.cuda
    assert all(value is None or type(value) is str for value in found.values())  # torch.__version__ is not
    assert found["torchvision"][0].isdecimal()


def test_machine():
    found = this_machine()
    assert list(found) == ["os", "architecture", "cpu", "cores", "gpu", "sm"]
    assert (found["os"], found["architecture"]) == (platform.system(), platform.machine())
    assert isinstance(found["cpu"], str) and found["cpu"]
    assert 1 <= found["cores"] <= os.cpu_count()
    assert (found["gpu"], found["sm"]) == (None, None)
    assert this_machine("cpu") == this_machine(torch.device("cpu")) == found


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64", reason="reads x86's flags")
def test_bf16_is_emulated_where_the_processor_lacks_avx512(request):
    flags = set(re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    if not flags & {"avx512f", "avx512_bf16", "amx_bf16"}:
        assert emulates_bf16()
    elif "avx512_bf16" in flags:
        assert not emulates_bf16()


def test_cores_are_those_that_may_be_used():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("processes are not bound to cores here")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert this_machine()["cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_both_become_json():
    found = {**this_machine(), **installed_versions()}
    assert json.loads(json.dumps(found)) == found


def test_installed():
    assert installed("no-such-distribution-of-ours") is None
    assert installed("click").split(".")[0] == "8"


def test_driver(nvidia_smi):
    assert driver_version() is None
    nvidia_smi("echo 550.54.15; echo 550.54.15")
    assert driver_version() == "550.54.15"
    assert installed_versions()["driver"] == "550.54.15"


@pytest.mark.parametrize("script", ["echo 'NVIDIA-SMI has failed'; exit 9", "exit 0"])
def test_driver_that_does_not_answer(nvidia_smi, script):
    nvidia_smi(script)
    assert driver_version() is None


def test_plain_fp32_sets_and_restores(other_flags):
    with tf32_disabled():
        assert flags() == (False, False, True)
    assert flags() == other_flags


def test_plain_fp32_from_the_usual_flags():
    before = flags()
    with tf32_disabled():
        assert flags() == (False, False, True)
        with tf32_disabled():
            assert flags() == (False, False, True)
        assert flags() == (False, False, True)
    assert flags() == before


@pytest.mark.parametrize("autotune", [True, False])
def test_plain_fp32_with_and_without_autotuning(other_flags, autotune):
    with tf32_disabled(autotune=autotune):
        assert flags() == (False, False, autotune)
    assert flags() == other_flags


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_plain_fp32_restores_after_a_failure(other_flags, error):
    with pytest.raises(error):
        with tf32_disabled():
            raise error
    assert flags() == other_flags


# Each time in a process of its own: the old switches may raise for good once the new ones were used.
@pytest.mark.parametrize(
    "switch",
    [
        "torch.set_float32_matmul_precision('medium')",
        "backends.fp32_precision = 'tf32'",
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "backends.cudnn.conv.fp32_precision = 'ieee'",
    ],
)
def test_plain_fp32_whatever_switch_was_used(switch):
    if "fp32_precision" in switch and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has the old switches only")
    code = f"""
import torch
from torch import backends
from ssdtrt.machine import plain_fp32, with_tf32
parts = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn] if hasattr(backends, "fp32_precision") else []
def state():
    return [part.fp32_precision for part in parts]
def old():
    return backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
{switch}
before = state(), None if parts and "fp32_precision" in {switch!r} else old()
for block, new, olds in ((plain_fp32(), "ieee", (False, "highest")), (with_tf32(True), "tf32", (True, "high"))):
    with block:
        assert set(state()) <= {{new}} and old() == olds
    assert state() == before[0] and (before[1] is None or before[1] == old())
print("as it was")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("as it was\n", "")


def test_the_current_device_on_a_cpu():
    with current_device(torch.device("cpu")):
        pass


@no_gpu
def test_device_without_a_gpu():
    assert pick_device() == pick_device(None) == torch.device("cpu")


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_gpu_that_is_not_there(device):
    with pytest.raises(SsdtrtError) as caught:
        pick_device(device)
    assert str(caught.value) == f"There is no device {device} here: torch {torch.__version__} sees 0 CUDA GPUs."


def test_cpu_that_was_asked_for():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")


def test_device_that_does_not_exist():
    with pytest.raises(SsdtrtError, match="banana"):
        pick_device("banana")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_device_with_a_gpu():
    assert pick_device() == pick_device("cuda") == torch.device("cuda", torch.cuda.current_device())
    found = this_machine("cuda")
    assert found["gpu"] == torch.cuda.get_device_name() and found["sm"].count(".") == 1


@pytest.mark.gpu
def test_gpu_beyond_the_last():
    count = torch.cuda.device_count()
    with pytest.raises(SsdtrtError, match=f"There is no device cuda:{count} here: .* sees {count} CUDA GPUs"):
        pick_device(f"cuda:{count}")
