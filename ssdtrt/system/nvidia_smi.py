"""Run the program `nvidia-smi` and parse its answers, for `ssdtrt.system.gpu_state`. Imports no torch."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence

from ssdtrt import config
from ssdtrt.errors import SsdtrtError

STATE_FIELDS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw")
# The same bits, by the name in newer drivers and in older ones.
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
_GPU_FIELDS = ("driver_version", "memory.total", "memory.free", "compute_cap")
_NO_GPU = "nvidia-smi lists no GPU"
_BAD_ARGUMENT = 2  # the exit code for a field that the driver does not support


class NoAnswer(SsdtrtError):
    """The driver does not answer; the message is the reason."""


class _UnknownField(NoAnswer):
    pass


def gpus() -> list[tuple[str, str, str | None, int | None, int | None]]:
    """Return the driver's version and the name, compute capability, total and free MiB of each GPU. Raises NoAnswer."""
    try:
        rows = _gpu_rows(_GPU_FIELDS)
    except _UnknownField:  # Drivers before 510 do not report the compute capability.
        rows = [[*row, ""] for row in _gpu_rows(_GPU_FIELDS[:-1])]
    if not rows:
        raise NoAnswer(_NO_GPU)
    return [(version, name, sm or None, _mib(total), _mib(free)) for name, version, total, free, sm in rows]


def state(name: str, busy: Callable[[], object] | None) -> tuple[list[float | None], int | None]:
    """Return the values of STATE_FIELDS of a GPU, and the bits of what throttles it. Raises NoAnswer."""
    for reasons in _REASONS:
        with contextlib.suppress(_UnknownField):
            return _parse_state(_query(["-i", name, f"--query-gpu={','.join([*STATE_FIELDS, reasons])}"], busy))
    return _parse_state(_query(["-i", name, f"--query-gpu={','.join(STATE_FIELDS)}"], busy))


def processes(name: str) -> list[tuple[int, str]]:
    """Return the pid and the name of each process that computes on a GPU. Raises NoAnswer."""
    lines = _query(["-i", name, "--query-compute-apps=pid,process_name"])
    pairs = [[part.strip() for part in line.split(",", 1)] for line in lines]
    return [(int(pair[0]), pair[1]) for pair in pairs if len(pair) == 2 and pair[0].isdecimal()]


def exit_status(code: int) -> str:
    """Return an exit code of `subprocess` in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _query(arguments: Sequence[str], busy: Callable[[], object] | None = None) -> list[str]:
    """Return the lines that nvidia-smi prints, calling `busy` until it ends."""
    command, pipe = ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"], subprocess.PIPE
    try:
        child = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, errors="replace")
    except FileNotFoundError as error:
        raise NoAnswer("nvidia-smi is not on the PATH") from error
    except OSError as error:
        raise NoAnswer(f"nvidia-smi cannot be run ({error.strerror or error})") from error
    ends = time.monotonic() + config.SMI_SECONDS
    with child:
        try:
            while busy and child.poll() is None and time.monotonic() < ends:
                busy()
            output, complaint = child.communicate(timeout=max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise NoAnswer(f"nvidia-smi did not answer within {config.SMI_SECONDS:g} s") from error
        finally:
            child.kill()
    if child.returncode:
        kind = _UnknownField if child.returncode == _BAD_ARGUMENT else NoAnswer
        first = ((output + complaint).strip().splitlines() or ["it printed nothing"])[0]
        raise kind(f"nvidia-smi ended with {exit_status(child.returncode)}: {first}")
    return [line.strip() for line in output.splitlines() if line.strip()]


def _gpu_rows(fields: Sequence[str]) -> list[list[str]]:
    """Return the name and these fields of each GPU; the first field is the driver's version."""
    rows = []
    for line in _query([f"--query-gpu=name,{','.join(fields)}"]):
        row = [part.strip() for part in line.rsplit(",", len(fields))]  # A name may hold a comma.
        if len(row) != len(fields) + 1 or not row[1][:1].isdecimal():
            raise NoAnswer(f"nvidia-smi did not print a list of GPUs: {line[:80]}")
        rows.append(row)
    return rows


def _parse_state(lines: Sequence[str]) -> tuple[list[float | None], int | None]:
    if not lines:
        raise NoAnswer(_NO_GPU)
    count = len(STATE_FIELDS)
    values = [part.strip() for part in lines[0].split(",")]
    values += [""] * (count + 1 - len(values))
    return [_number(value) for value in values[:count]], _bits(values[count])


def _mib(text: str) -> int | None:
    """Parse MiB; return None if they are not reported, as for a GPU that shares the host's memory."""
    return int(text) if text.isdecimal() else None


def _number(text: str) -> float | None:
    """Parse a number; return None for `[N/A]` and the like."""
    try:
        return float(text)
    except ValueError:
        return None


def _bits(text: str) -> int | None:
    """Parse hexadecimal bits; return None for `[N/A]` and the like."""
    try:
        return int(text, 16)
    except ValueError:
        return None
