"""What a GPU says of itself through nvidia-smi: clocks, temperature, power, what slows it, and who else uses it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence

import torch

from ssdtrt import config

FIELDS = {
    "clocks.sm": "sm_mhz",
    "clocks.max.sm": "sm_max_mhz",
    "clocks.mem": "memory_mhz",
    "temperature.gpu": "temperature_c",
    "power.draw": "power_w",
}
# The same bits under the name of newer drivers and that of older ones.
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
THROTTLES = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "temperature",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}


def read_state(device: torch.device, busy: Callable[[], object] | None = None) -> dict | None:
    """The clocks, temperature and power of a CUDA device, and what throttles it; None where nvidia-smi does not tell.

    While nvidia-smi looks, `busy` is called again and again: an idle GPU lowers its clocks within a moment.
    """
    for reasons in REASONS:
        said = ask([f"--query-gpu={','.join([*FIELDS, reasons])}", *selection(device)], busy)
        if said is not None:
            return parse_state(said)
    said = ask([f"--query-gpu={','.join(FIELDS)}", *selection(device)], busy)
    return None if said is None else parse_state(said)


def other_processes(device: torch.device) -> list[str]:
    """`name (pid)` of the other processes that compute on this GPU, as far as nvidia-smi tells."""
    said = ask(["--query-compute-apps=pid,process_name", *selection(device)])
    return parse_processes(said or "", os.getpid())


def driver_version() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi, or None."""
    lines = (ask(["--query-gpu=driver_version"]) or "").split()
    return lines[0] if lines else None


def selection(device: torch.device) -> list[str]:
    """nvidia-smi's arguments that mean this device: it numbers all GPUs, torch those that are visible."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid is not None:
        return ["-i", f"GPU-{str(uuid).removeprefix('GPU-')}"]
    index = torch.cuda.current_device() if device.index is None else device.index
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return ["-i", visible[index] if index < len(visible) else str(index)]


def ask(arguments: Sequence[str], busy: Callable[[], object] | None = None) -> str | None:
    """What nvidia-smi prints, calling `busy` until it is done; None where it is missing, refuses or hangs."""
    command = ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"]
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None
    with child:
        ends = time.monotonic() + config.SMI_SECONDS
        while busy and child.poll() is None and time.monotonic() < ends:
            busy()
        try:
            said, _ = child.communicate(timeout=max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            return None
    return said if child.returncode == 0 else None


def parse_state(said: str) -> dict | None:
    """nvidia-smi's first line as numbers; what it does not tell is None. `throttled` is a list of words, or None."""
    lines = said.strip().splitlines()
    if not lines:
        return None
    values = [part.strip() for part in lines[0].split(",")]
    found = {name: number(value) for name, value in zip(FIELDS.values(), [*values, *[""] * len(FIELDS)])}
    mask = values[len(FIELDS)] if len(values) > len(FIELDS) else ""
    return {**found, "throttled": throttles(mask)}


def number(text: str) -> float | None:
    """A number, or None for `[N/A]` and its like."""
    try:
        return float(text)
    except ValueError:
        return None


def throttles(mask: str) -> list[str] | None:
    """What keeps the clocks down, from the bits in hexadecimal; None where they are not told."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return None
    return [name for bit, name in THROTTLES.items() if bits & bit]


def parse_processes(said: str, own: int) -> list[str]:
    """`name (pid)` of all processes but this one.

    In a container nvidia-smi shows the pids of the host: where `own` is not among them, the first is taken for it.
    """
    found = []
    for line in said.splitlines():
        pid, _, name = (part.strip() for part in line.partition(","))
        if pid.isdecimal():
            found.append((int(pid), name))
    others = [f"{name} ({pid})" for pid, name in found if pid != own]
    return others if len(others) < len(found) else others[1:]
