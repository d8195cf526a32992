"""Tests of choosing a device, and of TF32."""

import os
import platform
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from ssdtrt.errors import SsdtrtError
from ssdtrt.system.devices import current_device, emulates_bf16, pick_device, tf32_disabled, use_more_queues, with_tf32
from ssdtrt.system.versions import this_machine

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def flags():
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture
def other_flags():
    """Invert every flag for one test."""
    before = flags()
    changed = tuple(not flag for flag in before)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = changed
    yield changed
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64", reason="reads x86's flags")
def test_bf16_is_emulated_where_the_processor_lacks_avx512(request):
    flags = set(re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    if not flags & {"avx512f", "avx512_bf16", "amx_bf16"}:
        assert emulates_bf16()
    elif "avx512_bf16" in flags:
        assert not emulates_bf16()


def test_disabling_tf32_sets_and_restores(other_flags):
    with tf32_disabled():
        assert flags() == (False, False, True)
    assert flags() == other_flags


def test_disabling_tf32_from_the_usual_flags():
    before = flags()
    with tf32_disabled():
        assert flags() == (False, False, True)
        with tf32_disabled():
            assert flags() == (False, False, True)
        assert flags() == (False, False, True)
    assert flags() == before


@pytest.mark.parametrize("autotune", [True, False])
def test_disabling_tf32_with_and_without_autotuning(other_flags, autotune):
    with tf32_disabled(autotune=autotune):
        assert flags() == (False, False, autotune)
    assert flags() == other_flags


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_disabling_tf32_restores_after_a_failure(other_flags, error):
    with pytest.raises(error):
        with tf32_disabled():
            raise error
    assert flags() == other_flags


SWITCHES = [
    "torch.set_float32_matmul_precision('medium')",
    "backends.cuda.matmul.allow_tf32 = True",
    "backends.fp32_precision = 'tf32'",
    "backends.cuda.matmul.fp32_precision = 'tf32'",
    "backends.cudnn.conv.fp32_precision = 'ieee'",
]
# Each in a process of its own, because the old switches raise after the new ones were used.
SWITCHED = """
import os, sys, torch
from torch import backends
from ssdtrt.system.devices import tf32_disabled, with_tf32
parts = []
if hasattr(backends, "fp32_precision"):
    parts = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]
def state():
    return [part.fp32_precision for part in parts]
def old():
    return backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
def check(switch):
    exec(switch)
    before = state(), None if parts and "fp32_precision" in switch else old()
    for block, new, olds in ((tf32_disabled(), "ieee", (False, "highest")), (with_tf32(True), "tf32", (True, "high"))):
        with block:
            assert set(state()) <= {new} and old() == olds
        assert state() == before[0] and (before[1] is None or before[1] == old())
    if "allow_tf32" in switch:
        backends.cuda.matmul.allow_tf32 = False
        with tf32_disabled():
            pass
        assert (backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()) == (False, "highest")
    print("as it was:", switch, flush=True)
for switch in sys.argv[1:]:
    if not os.fork():
        check(switch)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
def test_tf32_is_disabled_and_put_back_whatever_switch_was_used():
    new = hasattr(torch.backends.cuda.matmul, "fp32_precision")
    switches = [switch for switch in SWITCHES if new or "fp32_precision" not in switch]
    done = subprocess.run([sys.executable, "-c", SWITCHED, *switches], capture_output=True, text=True, timeout=120)
    assert (done.stdout.splitlines(), done.stderr) == ([f"as it was: {switch}" for switch in switches], "")


def test_a_thread_waits_for_the_switches_until_another_has_put_them_back():
    before, seen, inside, go = flags(), [], threading.Event(), threading.Event()

    def hold():
        with with_tf32(True):
            inside.set()
            go.wait(20)
            seen.append(flags()[:2])

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    threading.Timer(0.05, go.set).start()
    with with_tf32(False):
        seen.append(flags()[:2])
        with with_tf32(True):  # In one thread as often as one likes.
            seen.append(flags()[:2])
    thread.join()
    assert seen == [(True, True), (False, False), (True, True)] and flags() == before


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
    assert found.gpu == torch.cuda.get_device_name() and found.sm.count(".") == 1


@pytest.mark.gpu
def test_gpu_beyond_the_last():
    count = torch.cuda.device_count()
    with pytest.raises(SsdtrtError, match=f"There is no device cuda:{count} here: .* sees {count} CUDA GPUs?.$"):
        pick_device(f"cuda:{count}")


def test_more_queues_are_asked_for_before_cuda_starts_and_unless_somebody_decided(monkeypatch):
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    monkeypatch.setenv(name, "")  # Restored after the test.
    for started, before, after in ((False, None, "32"), (False, "1", "1"), (True, None, None)):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda started=started: started)
        monkeypatch.delenv(name)
        if before:
            monkeypatch.setenv(name, before)
        use_more_queues()
        assert os.environ.get(name) == after
        monkeypatch.setenv(name, "")
