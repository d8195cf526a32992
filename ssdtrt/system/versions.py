"""What is installed here and what machine this is: the versions that decide what a saved engine does."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING

import msgspec

from ssdtrt import __version__
from ssdtrt.system.report import Report

if TYPE_CHECKING:
    import torch

TENSORRT_NAMES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
VERSIONS_SHOWN = (("torch_tensorrt", "Torch-TensorRT"), ("tensorrt", "TensorRT"), ("driver", "driver"))


class Versions(Report, frozen=True, kw_only=True):
    """The versions of everything that a saved engine depends on; None for what is not installed."""

    torch: str
    ssdtrt: str | None = None
    python: str | None = None
    torchvision: str | None = None
    torch_tensorrt: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    driver: str | None = None


class Machine(Report, frozen=True, kw_only=True):
    """A machine as one device sees it.

    Attributes:
        os: `Linux`, say.
        architecture: `x86_64`, say.
        cpu: The processor's name.
        cores: How many cores this process may use.
        gpu: The GPU's name; None for a CPU.
        sm: The GPU's compute capability, such as `9.0`; None for a CPU.
    """

    os: str | None = None
    architecture: str | None = None
    cpu: str | None = None
    cores: int | None = None
    gpu: str | None = None
    sm: str | None = None


class MeasuredOn(Machine, frozen=True, kw_only=True):
    """The machine and the versions that figures were measured with."""

    versions: Versions

    @property
    def version_parts(self) -> list[str]:
        """The versions that decide the figures, such as `torch 2.14.0`."""
        shown = VERSIONS_SHOWN if self.gpu else ()
        known = [(name, getattr(self.versions, key)) for key, name in shown]
        return [f"torch {self.versions.torch}", *(f"{name} {version}" for name, version in known if version)]

    @property
    def line(self) -> str:
        """The machine and its versions in one line."""
        return ", ".join([self.gpu or f"{self.cpu}, {self.cores} cores", *self.version_parts])


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None, without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def tensorrt_version() -> str | None:
    """Return TensorRT's version, under whichever of its names it is installed, or None."""
    return next(filter(None, map(installed, TENSORRT_NAMES)), None)


def installed_versions() -> Versions:
    """Return the versions of everything that a saved engine depends on."""
    import torch

    from ssdtrt.system.gpu_state import driver_version

    return Versions(
        ssdtrt=__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),
        torchvision=installed("torchvision"),
        torch_tensorrt=installed("torch-tensorrt"),
        tensorrt=tensorrt_version(),
        cuda=torch.version.cuda,
        driver=driver_version(),
    )


def this_machine(device: torch.device | str = "cpu") -> Machine:
    """Return this machine as `device` sees it."""
    import torch

    device = torch.device(device)
    gpu = sm = None
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        gpu, sm = torch.cuda.get_device_name(device), f"{major}.{minor}"
    return Machine(
        os=platform.system(), architecture=platform.machine(), cpu=cpu_name(), cores=available_cores(), gpu=gpu, sm=sm
    )


def measured_on(device: torch.device | str) -> MeasuredOn:
    """Return this machine as `device` sees it, with the versions here."""
    return MeasuredOn(versions=installed_versions(), **msgspec.structs.asdict(this_machine(device)))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
