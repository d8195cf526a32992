"""Describe this machine and the installed versions that a saved engine depends on."""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ssdtrt import __version__
from ssdtrt.system.report import Report, counted

if TYPE_CHECKING:
    import torch

_TENSORRT_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_ROOT = Path(__file__).resolve().parents[2]  # of the checkout, or where packages are installed
_GPU_FILES = ("/dev/nvidia[0-9]*", "/dev/dxg")  # the second in the Windows Subsystem for Linux
_SHOWN_VERSIONS = (("torch_tensorrt", "Torch-TensorRT"), ("tensorrt", "TensorRT"), ("driver", "driver"))


class Versions(Report, frozen=True, kw_only=True):
    """The installed versions that a saved engine depends on; None for what is not installed."""

    torch: str
    ssdtrt: str | None = None
    python: str | None = None
    torchvision: str | None = None
    torch_tensorrt: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    driver: str | None = None


class Machine(Report, frozen=True, kw_only=True):
    """A machine and one of its devices.

    Attributes:
        os: The operating system, such as `Linux`.
        architecture: The processor's architecture, such as `x86_64`.
        cpu: The processor's name.
        cores: How many cores the process may use.
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
    """The machine and the versions that a result was measured with."""

    versions: Versions

    @property
    def version_parts(self) -> list[str]:
        """The versions that affect the result, such as `torch 2.14.0`."""
        shown = _SHOWN_VERSIONS if self.gpu else ()
        found = [(name, getattr(self.versions, key)) for key, name in shown]
        return [f"torch {self.versions.torch}", *(f"{name} {version}" for name, version in found if version)]

    @property
    def line(self) -> str:
        """The device and the versions in one line."""
        cores = counted(self.cores, "core") if self.cores else None
        return ", ".join(filter(None, [*([self.gpu] if self.gpu else [str(self.cpu), cores]), *self.version_parts]))


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, without importing it, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_install(extra: str) -> str:
    """Return the command that installs what an extra needs: by the package's name or, in a checkout, by its folder."""
    return f"pip install {'-e ' if _is_checkout() else ''}{_with_extra(extra)}"


def pip_install_tensorrt() -> str:
    """Return the command that installs Torch-TensorRT, and another for where NVIDIA's index cannot be reached."""
    other = _with_extra("tensorrt-pypi")
    return f"{pip_install('tensorrt')} (or, where only PyPI can be reached, {other} with Python 3.10)"


def _with_extra(extra: str) -> str:
    name, here = "ssdtrt", Path.cwd()
    if _is_checkout():
        name = os.path.relpath(_ROOT, here) if here.is_relative_to(_ROOT) else str(_ROOT)
    return shlex.quote(f"{name}[{extra}]")


def _is_checkout() -> bool:
    """Whether the package does not lie where packages are installed, but beside its setup.cfg."""
    try:
        return "name = ssdtrt\n" in (_ROOT / "setup.cfg").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def other_backend() -> list[str]:
    """Return the option of `ssdtrt compile` without which it could build no engine here."""
    return [] if may_have_tensorrt() else ["--backend", "torchscript"]


def may_have_tensorrt(module: str = "torch_tensorrt") -> bool:
    """Return whether TensorRT engines can be built here, as far as is known without importing anything.

    Where torch is not imported yet, a GPU is one that the system has a file or a program for.

    Args:
        module: What builds them.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        gpu = bool(torch.cuda.is_available())
    else:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        gpu = not hidden and (any(map(glob.glob, _GPU_FILES)) or shutil.which("nvidia-smi") is not None)
    return gpu and importlib.util.find_spec(module) is not None


def tensorrt_version() -> str | None:
    """Return TensorRT's version, whichever distribution it comes from, or None."""
    return next(filter(None, map(installed, _TENSORRT_DISTRIBUTIONS)), None)


def installed_versions() -> Versions:
    """Return the installed versions that a saved engine depends on."""
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
    """Return a description of this machine and `device`."""
    import torch

    device = torch.device(device)
    gpu = sm = None
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        gpu, sm = torch.cuda.get_device_name(device), f"{major}.{minor}"
    return Machine(
        os=platform.system(), architecture=platform.machine(), cpu=_cpu_name(), cores=available_cores(), gpu=gpu, sm=sm
    )


def measured_on(device: torch.device | str) -> MeasuredOn:
    """Return a description of this machine and `device`, with the installed versions."""
    return MeasuredOn(versions=installed_versions(), **msgspec.structs.asdict(this_machine(device)))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    """Return the processor's name, or its architecture if the system does not report one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
