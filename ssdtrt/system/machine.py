"""What this machine is: its GPU, processor, driver and the versions that decide what an engine does here."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Callable

import torch

from ssdtrt import __version__
from ssdtrt.errors import GpuError, SsdtrtError
from ssdtrt.system.gpu_errors import AFTER_FORK
from ssdtrt.system.host import installed, tensorrt_version


def versions() -> dict[str, str | None]:
    """The versions of everything that a saved engine depends on; None for what is not installed."""
    return {
        "ssdtrt": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": installed("torchvision"),
        "torch_tensorrt": installed("torch-tensorrt"),
        "tensorrt": tensorrt_version(),
        "cuda": torch.version.cuda,
        "driver": driver_version(),
    }


def machine(device: torch.device | str = "cpu") -> dict[str, str | int | None]:
    """The machine as `device` sees it: OS, architecture, processor, cores and, for a CUDA device, the GPU and its SM."""
    device = torch.device(device)
    found = {
        "os": platform.system(),
        "architecture": platform.machine(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": None,
        "sm": None,
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found.update(gpu=torch.cuda.get_device_name(device), sm=f"{major}.{minor}")
    return found


def emulates_bf16() -> bool:
    """Whether PyTorch emulates BF16 on this processor, which takes many times as long as FP32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; without one the current GPU where there is one, else the CPU.

    Raises SsdtrtError for a GPU that is not there, or that this process cannot use since it was forked.
    """
    if device is not None:
        try:
            device = torch.device(device)
        except RuntimeError as error:
            raise SsdtrtError(f"{device!r} is no device; expected cpu, cuda or cuda:N.") from error
    elif torch.cuda.is_available():
        device = torch.device("cuda")
    else:
        return torch.device("cpu")
    if device.type != "cuda":
        return device
    if torch.cuda._is_in_bad_fork():
        raise GpuError(AFTER_FORK)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise SsdtrtError(f"There is no device {device} here: torch {torch.__version__} sees {count} CUDA GPUs.")
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def driver_version() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi, or None."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def plain_fp32(autotune: bool = True):
    """Inside the block FP32 means FP32: TF32 off for convolutions and matrix products.

    With `autotune` cudnn also picks its fastest kernels (`cudnn.benchmark`).
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    with with_tf32(False):
        try:
            cudnn.benchmark = autotune
            yield
        finally:
            cudnn.benchmark = before


@contextlib.contextmanager
def with_tf32(on: bool):
    """Inside the block TF32 is on, or off, for convolutions and matrix products; afterwards all is as it was.

    torch 2.9 brought other switches, and the old ones raise once those were used: both are set, the old ones first,
    because that puts the new ones back.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    parts = [matmul, cudnn.conv, cudnn.rnn] if hasattr(matmul, "fp32_precision") else []
    precisions = [part.fp32_precision for part in parts]
    convolutions = read(lambda: cudnn.allow_tf32)
    products = read(torch.get_float32_matmul_precision)
    try:
        cudnn.allow_tf32 = on
        torch.set_float32_matmul_precision("high" if on else "highest")
        for part in parts:
            part.fp32_precision = "tf32" if on else "ieee"
        yield
    finally:
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for part, precision in zip(parts, precisions):
            part.fp32_precision = precision


def read(switch: Callable):
    """What a switch of torch says; None where it raises."""
    try:
        return switch()
    except RuntimeError:
        return None


@contextlib.contextmanager
def current(device: torch.device):
    """Inside the block this GPU is the one that events, captures and libraries take; a CPU changes nothing."""
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        yield
