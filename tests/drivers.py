"""NVIDIA drivers that are not there: a pynvml as strict as the real one, and an nvidia-smi that is a shell script."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest


class NVMLError(Exception):
    """As pynvml's: the message is the number's, and a subclass stands for each number."""

    message = "Unknown Error"

    def __str__(self):
        return self.message


def error(name, message):
    return type(f"NVMLError_{name}", (NVMLError,), {"message": message})


LibraryNotFound = error("LibraryNotFound", "NVML Shared Library Not Found")
Uninitialized = error("Uninitialized", "Uninitialized")
NotSupported = error("NotSupported", "Not Supported")
NotFound = error("NotFound", "Not Found")
InvalidArgument = error("InvalidArgument", "Invalid Argument")
FunctionNotFound = error("FunctionNotFound", "Function Not Found")
GpuIsLost = error("GpuIsLost", "GPU is lost")

H200 = {
    "uuid": "GPU-5a3c",
    "nvmlDeviceGetName": "NVIDIA H200",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=143771 << 20, free=143000 << 20, used=771 << 20),
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetClockInfo": {1: 1980, 2: 3201},
    "nvmlDeviceGetMaxClockInfo": {1: 1980, 2: 3201},
    "nvmlDeviceGetTemperature": {0: 34},
    "nvmlDeviceGetPowerUsage": 119450,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x1,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1,
    "nvmlDeviceGetComputeRunningProcesses": [],
}
"""What NVML reports of one GPU: a value, or one for each number of a clock or a sensor; an exception is raised."""


class FakeNvml(ModuleType):
    """`pynvml` on a machine with these GPUs. Every function raises what the real one does where it is used wrongly."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVMLError = NVMLError

    def __init__(self, gpus=(H200,), driver="580.159.04", init=None, names=None):
        super().__init__("pynvml")
        self.gpus, self.driver, self.init, self.names, self.open = list(gpus), driver, init, names or {}, 0

    def nvmlInit(self):
        if self.init is not None:
            raise self.init
        self.open += 1

    def nvmlShutdown(self):
        self._check()
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):
        self._check()
        return self.driver

    def nvmlSystemGetProcessName(self, pid):
        self._check()
        if pid not in self.names:
            raise NotFound
        return self.names[pid]

    def nvmlDeviceGetCount(self):
        self._check()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        self._check()
        if type(index) is not int or not 0 <= index < len(self.gpus):
            raise InvalidArgument
        return SimpleNamespace(gpu=self.gpus[index])

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self._check()
        for gpu in self.gpus:
            if gpu["uuid"] == uuid:
                return SimpleNamespace(gpu=gpu)
        raise NotFound

    def __getattr__(self, name):
        if name not in H200:
            raise AttributeError(name)

        def ask(handle, *arguments):
            self._check()
            value = handle.gpu.get(name, NotSupported)
            if isinstance(value, type) and issubclass(value, NVMLError):
                raise value
            return value[arguments[0]] if isinstance(value, dict) else value

        return ask

    def _check(self):
        if not self.open:
            raise Uninitialized


@pytest.fixture
def nvml(monkeypatch):
    """Makes a FakeNvml the installed pynvml: `nvml(gpus=..., init=...)`. Until then it is not installed."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    def install(**options):
        made = FakeNvml(**options)
        monkeypatch.setitem(sys.modules, "pynvml", made)
        return made

    return install


@pytest.fixture
def nvidia_smi(nvml, tmp_path, monkeypatch):
    """Makes a shell script the nvidia-smi of this machine: `nvidia_smi(script)`. Until then there is none, nor NVML."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    if any(os.path.exists(f"{place}/nvidia-smi") for place in ("/usr/bin", "/bin")):
        monkeypatch.setenv("PATH", str(folder))

    def install(script):
        path = folder / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return install
