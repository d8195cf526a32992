"""Tests of the state of a GPU from NVML and from nvidia-smi, and of the choice between them."""

import importlib
import inspect
import os
import subprocess
import sys
from types import SimpleNamespace

import drivers
import pytest
import torch
from drivers import H200, FakeNvml, nvidia_smi, nvml  # noqa: F401

from ssdtrt.system import gpu_state
from ssdtrt.system.gpu_state import (
    Driver,
    Gpu,
    GpuState,
    NoAnswer,
    _throttles,
    _without_own,
    driver_version,
    other_processes,
    read_driver,
    read_state,
)
from ssdtrt.system.versions import installed_versions

GPU = torch.device("cuda", 0)
ANSWER = "echo NVIDIA A100, 550.54.15, 81920, 81000, 8.0"


@pytest.fixture
def seen(monkeypatch):
    """Make torch report one GPU with this UUID."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="5a3c"))


def test_nvml_is_asked_first(nvml, nvidia_smi):  # noqa: F811
    nvidia_smi(ANSWER)
    library = nvml(gpus=[H200, {"uuid": "GPU-2", "nvmlDeviceGetName": "A GPU that reports little"}])
    assert read_driver() == Driver(
        "580.159.04", (Gpu("NVIDIA H200", "9.0", 143771, 143000), Gpu("A GPU that reports little")), "NVML"
    )
    assert driver_version() == installed_versions().driver == "580.159.04"
    assert library.open == 0  # It is closed after each use.


def test_nvidia_smi_is_asked_where_pynvml_is_not_installed(nvidia_smi):  # noqa: F811
    assert driver_version() is None
    nvidia_smi(ANSWER)
    assert read_driver() == Driver("550.54.15", (Gpu("NVIDIA A100", "8.0", 81920, 81000),), "nvidia-smi")
    assert driver_version() == "550.54.15"


@pytest.mark.parametrize(
    "options", [{"init": drivers.LibraryNotFound()}, {"gpus": []}, {"gpus": [{"nvmlDeviceGetName": drivers.GpuIsLost}]}]
)
def test_nvidia_smi_is_asked_where_nvml_gives_no_answer(nvml, nvidia_smi, options):  # noqa: F811
    nvml(**options)
    nvidia_smi(ANSWER)
    assert read_driver().source == "nvidia-smi"


@pytest.mark.parametrize(
    "options, reason",
    [
        (None, "nvidia-smi is not on the PATH"),
        ({"init": drivers.LibraryNotFound()}, "NVML: NVML Shared Library Not Found; nvidia-smi is not on the PATH"),
        ({"gpus": []}, "NVML lists no GPU; nvidia-smi is not on the PATH"),
    ],
)
def test_where_neither_answers_each_reason_is_given(nvml, nvidia_smi, options, reason):  # noqa: F811
    library = options is not None and nvml(**options)
    with pytest.raises(NoAnswer) as caught:
        read_driver()
    assert str(caught.value) == reason and driver_version() is None
    assert not library or library.open == 0


def test_the_pynvml_that_is_installed_without_a_driver(nvml, nvidia_smi, monkeypatch):  # noqa: F811
    monkeypatch.delitem(sys.modules, "pynvml")
    pynvml = pytest.importorskip("pynvml")
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with pytest.raises(NoAnswer, match=r"^NVML: NVML Shared Library Not Found; nvidia-smi is not on the PATH$"):
        read_driver()


def test_the_fake_is_made_as_pynvml_is():
    """The functions of the stand-in have the signatures of the real ones, and the same constants."""
    pynvml = pytest.importorskip("pynvml")
    own = [name for name in vars(FakeNvml) if name.startswith("nvml")]
    assert len(own) == 7
    for name in own:
        assert len(inspect.signature(getattr(FakeNvml(), name)).parameters) == len(
            inspect.signature(getattr(pynvml, name)).parameters
        ), name
    for name, value in H200.items():
        if name != "uuid":
            kind = isinstance(value, dict)
            inspect.signature(getattr(pynvml, name)).bind("handle", *(["number"] if kind else []))
    for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU"):
        assert getattr(FakeNvml, name) == getattr(pynvml, name)
    for kind in (drivers.LibraryNotFound, drivers.NotSupported, drivers.NotFound, drivers.GpuIsLost):
        real = getattr(pynvml, kind.__name__)
        assert issubclass(real, pynvml.NVMLError) and str(real()) == str(kind())


def test_the_state_by_nvml(nvml, seen):  # noqa: F811
    nvml(gpus=[{"uuid": "GPU-other"}, H200])
    assert read_state(GPU) == GpuState(1980, 1980, 3201, 34, 119.45, ())


def test_the_state_of_a_gpu_that_reports_little(nvml, seen):  # noqa: F811
    nvml(gpus=[{"uuid": "GPU-5a3c", "nvmlDeviceGetTemperature": {0: 51}, "nvmlDeviceGetPowerUsage": 0}])
    assert read_state(GPU) == GpuState(temperature_c=51, power_w=0)


def test_an_older_driver_is_asked_by_the_older_name(nvml, seen):  # noqa: F811
    older = {
        "nvmlDeviceGetCurrentClocksEventReasons": drivers.FunctionNotFound,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x20,
    }
    nvml(gpus=[{**H200, **older}])
    assert read_state(GPU).throttled == ("temperature",)


def test_the_gpu_is_busy_when_nvml_is_asked(nvml, seen, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gpu_state, "_BUSY_SECONDS", 0.0)
    nvml()
    calls = []
    assert read_state(GPU, lambda: calls.append("busy")).sm_mhz == 1980 and calls == ["busy"]


def test_the_state_by_nvidia_smi(nvidia_smi, seen):  # noqa: F811
    assert read_state(GPU) is None
    nvidia_smi('test "$2" = GPU-5a3c && echo 1980, 1980, 3201, 34, 119.45, 0x0000000000000004')
    assert read_state(GPU) == GpuState(1980, 1980, 3201, 34, 119.45, ("power limit",))
    nvidia_smi("exit 9")
    assert read_state(GPU) is None


def test_a_state_becomes_json():
    assert GpuState(1980, throttled=("power limit",)).as_dict() == {
        "sm_mhz": 1980, "sm_max_mhz": None, "memory_mhz": None, "temperature_c": None, "power_w": None,
        "throttled": ["power limit"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "bits, words",
    [
        (0x0, ()),
        (0x3, ()),  # idle, clocks set by an application
        (0x4, ("power limit",)),
        (0x28, ("hardware slowdown", "temperature")),
        (0xC0, ("temperature (hardware)", "power brake")),
        (None, None),
    ],
)
def test_throttles(bits, words):
    assert _throttles(bits) == words


def test_other_processes(nvml, nvidia_smi, seen):  # noqa: F811
    assert other_processes(GPU) == []
    nvidia_smi(f"echo {os.getpid()}, python3; echo 815, tritonserver, --model a")
    assert other_processes(GPU) == ["tritonserver, --model a (815)"]
    running = [SimpleNamespace(pid=pid) for pid in (os.getpid(), 815, 816)]
    nvml(gpus=[{**H200, "nvmlDeviceGetComputeRunningProcesses": running}], names={815: "tritonserver"})
    assert other_processes(GPU) == ["tritonserver (815)", "[Not Found] (816)"]


def test_in_a_container_one_process_is_taken_for_this_one():
    assert _without_own([(99001, "[Not Found]"), (99002, "[Not Found]")], own=17) == ["[Not Found] (99002)"]
    assert _without_own([(99001, "[Not Found]")], own=17) == _without_own([], own=17) == []


@pytest.mark.parametrize(
    "uuid, visible, index, expected",
    [
        ("5a3c", "1", 0, "GPU-5a3c"),
        ("GPU-5a3c", None, 0, "GPU-5a3c"),
        (None, None, 1, "1"),
        (None, "3,GPU-77", 0, "3"),
        (None, "3, GPU-77", 1, "GPU-77"),
    ],
)
def test_which_gpu_is_meant(monkeypatch, nvml, uuid, visible, index, expected):  # noqa: F811
    properties = SimpleNamespace() if uuid is None else SimpleNamespace(uuid=uuid)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked = []
    nvml(gpus=[])
    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetHandleByIndex", lambda _, number: asked.append(str(number)))
    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetHandleByUUID", lambda _, name: asked.append(name))
    monkeypatch.setattr(FakeNvml, "__getattr__", lambda _, name: lambda *__: None)
    read_state(torch.device("cuda", index))
    assert asked == [expected]


def test_importing_it_brings_neither_torch_nor_pynvml():
    code = "import sys, ssdtrt.system.gpu_state; print({'torch', 'pynvml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
    assert importlib.import_module("ssdtrt.system.gpu_state") is gpu_state
