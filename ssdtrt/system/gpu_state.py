"""What the NVIDIA driver reports about GPUs, through NVML (pynvml) or else `nvidia-smi`. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ssdtrt.system import nvidia_smi
from ssdtrt.system.nvidia_smi import NoAnswer
from ssdtrt.system.report import Report

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# The same bits, by the name in newer drivers and in older ones.
_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
_THROTTLES = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "temperature",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
_BUSY_SECONDS = 0.5  # NVML answers at once, but the power that it reports is an average over up to a second.


class GpuState(Report, frozen=True):
    """A GPU at one moment. What the driver does not report is None.

    Attributes:
        sm_mhz: The clock of its multiprocessors, MHz.
        sm_max_mhz: The highest that this clock can be, MHz.
        memory_mhz: The clock of its memory, MHz.
        temperature_c: Its temperature, degrees Celsius.
        power_w: The power that it draws, watts.
        throttled: What keeps its clocks down, in words; empty if nothing does.
    """

    sm_mhz: float | None = None
    sm_max_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled: tuple[str, ...] | None = None


class Gpu(Report, frozen=True):
    """A GPU of this machine. What the driver does not report is None.

    Attributes:
        name: Its name.
        sm: Its compute capability, such as `9.0`.
        memory_mib: Its memory, MiB.
        free_mib: The part of it that is free, MiB.
    """

    name: str
    sm: str | None = None
    memory_mib: int | None = None
    free_mib: int | None = None


class Driver(Report, frozen=True, tag=True):
    """The NVIDIA driver.

    Attributes:
        version: Its version.
        gpus: Its GPUs, at least one.
        source: What was asked, `NVML` or `nvidia-smi`.
    """

    version: str
    gpus: tuple[Gpu, ...]
    source: str


def driver_version() -> str | None:
    """Return the NVIDIA driver's version; None if nothing reports it."""
    try:
        return read_driver().version
    except NoAnswer:
        return None


def read_driver() -> Driver:
    """Return the driver's version and its GPUs.

    Raises:
        NoAnswer: If neither NVML nor nvidia-smi lists a GPU; the message has the reason of each.
    """
    return _ask(_nvml_driver, _smi_driver)


def read_state(device: torch.device, busy: Callable[[], object] | None = None) -> GpuState | None:
    """Return the clocks, temperature and power of a CUDA device, and what throttles it.

    Args:
        device: The device, as torch numbers them.
        busy: Called again and again until the driver answers: an idle GPU lowers its clocks within a moment.

    Returns:
        Its state; None if nothing reports it.
    """
    name = _driver_name(device)
    try:
        return _ask(lambda nvml: _nvml_state(nvml, name, busy), lambda: _smi_state(name, busy))
    except NoAnswer:
        return None


def other_processes(device: torch.device) -> list[str]:
    """Return `name (pid)` of the other processes that compute on this GPU, as far as that is reported."""
    name = _driver_name(device)
    try:
        found = _ask(lambda nvml: _nvml_processes(nvml, name), lambda: nvidia_smi.processes(name))
    except NoAnswer:
        return []
    return _without_own(found, os.getpid())


def _ask(by_nvml: Callable[[Any], T], by_smi: Callable[[], T]) -> T:
    """Return the answer of NVML, or if it gives none, that of nvidia-smi. Raises NoAnswer."""
    reason = ""
    try:
        with _initialized() as nvml:
            return by_nvml(nvml)
    except ImportError:
        pass  # It is optional.
    except NoAnswer as error:
        reason = f"{error}; "
    try:
        return by_smi()
    except NoAnswer as error:
        raise NoAnswer(f"{reason}{error}") from error


def _driver_name(device: torch.device) -> str:
    """Return the driver's name of a device, a UUID or a number: it numbers all GPUs, torch only the visible ones."""
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid is not None:
        return f"GPU-{str(uuid).removeprefix('GPU-')}"
    index = torch.cuda.current_device() if device.index is None else device.index
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[index] if index < len(visible) else str(index)


@contextlib.contextmanager
def _initialized() -> Iterator[Any]:
    """Yield pynvml, initialized. Raises ImportError, or NoAnswer for an error of NVML inside the block."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise NoAnswer(f"NVML: {error}") from error


def _nvml_driver(nvml: Any) -> Driver:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if not handles:
        raise NoAnswer("NVML lists no GPU")
    return Driver(str(nvml.nvmlSystemGetDriverVersion()), tuple(_nvml_gpu(nvml, handle) for handle in handles), "NVML")


def _nvml_gpu(nvml: Any, handle: Any) -> Gpu:
    memory = _reported(nvml, "nvmlDeviceGetMemoryInfo", handle)
    capability = _reported(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    sm = "{}.{}".format(*capability) if capability else None
    total, free = (memory.total >> 20, memory.free >> 20) if memory else (None, None)
    return Gpu(str(nvml.nvmlDeviceGetName(handle)), sm, total, free)


def _nvml_state(nvml: Any, name: str, busy: Callable[[], object] | None) -> GpuState:
    handle = _nvml_handle(nvml, name)
    ends = time.monotonic() + _BUSY_SECONDS
    while busy:
        busy()
        if time.monotonic() >= ends:
            break
    power_mw = _reported(nvml, "nvmlDeviceGetPowerUsage", handle)
    known = (_reported(nvml, function, handle) for function in _REASONS)
    return GpuState(
        sm_mhz=_reported(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
        sm_max_mhz=_reported(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
        memory_mhz=_reported(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
        temperature_c=_reported(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        power_w=None if power_mw is None else power_mw / 1000,
        throttled=_throttles(next((bits for bits in known if bits is not None), None)),
    )


def _nvml_processes(nvml: Any, name: str) -> list[tuple[int, str]]:
    found = nvml.nvmlDeviceGetComputeRunningProcesses(_nvml_handle(nvml, name))
    return [(one.pid, str(_reported(nvml, "nvmlSystemGetProcessName", one.pid) or "[Not Found]")) for one in found]


def _nvml_handle(nvml: Any, name: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(name)


def _reported(nvml: Any, function: str, *arguments: Any) -> Any:
    """Call a function of NVML; return None if the GPU, the driver or this pynvml does not support it."""
    try:
        return getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None


def _smi_driver() -> Driver:
    rows = nvidia_smi.gpus()
    return Driver(rows[0][0], tuple(Gpu(name, sm, total, free) for _, name, sm, total, free in rows), "nvidia-smi")


def _smi_state(name: str, busy: Callable[[], object] | None) -> GpuState:
    (sm, sm_max, memory, temperature, power), bits = nvidia_smi.state(name, busy)
    return GpuState(sm, sm_max, memory, temperature, power, _throttles(bits))


def _throttles(bits: int | None) -> tuple[str, ...] | None:
    """Return what keeps the clocks down; None if that is not reported."""
    return None if bits is None else tuple(words for bit, words in _THROTTLES.items() if bits & bit)


def _without_own(found: Sequence[tuple[int, str]], own: int) -> list[str]:
    """Return `name (pid)` of all processes but this one.

    In a container the driver reports the pids of the host: if `own` is not among them, the first one is left out.
    """
    others = [f"{name} ({pid})" for pid, name in found if pid != own]
    return others if len(others) < len(found) else others[1:]
