"""What `doctor` looks at: the driver, the packages and the folders, gathered so that nothing it meets can end it.

Every function returns JSON types; what failed is told in the key `error`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ssdtrt import config
from ssdtrt.diagnosis.probe import MARK, one_line
from ssdtrt.system.progress import Progress

TENSORRT_NAMES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
PACKAGES = ("torch", "torchvision", "torch-tensorrt", *TENSORRT_NAMES)
IMPORTS = ("torch", "torchvision", "torch_tensorrt")
SMI_FIELDS = ("driver_version", "memory.total", "memory.free", "compute_cap")


def gather(progress: Progress) -> dict:
    """Everything that `judge` looks at."""
    progress("looking at the machine")
    facts = {
        "system": guarded(system_facts),
        "driver": guarded(driver_facts),
        "packages": {name: guarded(package_facts, name) for name in PACKAGES},
        "folders": {name: guarded(folder_facts, find) for name, find in FOLDERS.items()},
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    children = {name: guarded(start_probe, name) for name in IMPORTS}
    try:
        for name, child in children.items():
            failed = isinstance(child, dict)
            progress(f"importing {name}")
            facts[name] = child if failed else guarded(read_probe, child, f"importing {name}", config.IMPORT_SECONDS)
    finally:
        for child in children.values():
            if not isinstance(child, dict):
                end(child)
    return facts


def guarded(function: Callable, *arguments) -> dict:
    """The function's result, or {"error": ...} when it fails: no check may keep the others from being made."""
    try:
        return function(*arguments)
    except Exception as error:
        return {"error": one_line(error)}


def system_facts() -> dict:
    """The operating system, the architecture and Python."""
    return {"os": platform.system(), "architecture": platform.machine(), "python": platform.python_version()}


def driver_facts() -> dict:
    """The driver's version and its GPUs, as nvidia-smi tells them. `missing` says that there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return {"error": "nvidia-smi is not on the PATH", "missing": True}
    fields = list(SMI_FIELDS)
    answer = ask_smi(fields)
    if answer["error"] and "compute_cap" in answer["error"]:  # Drivers before 510 do not know it.
        answer = ask_smi(fields[:-1])
    return answer


def ask_smi(fields: Sequence[str]) -> dict:
    """One query of nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu=name,{','.join(fields)}", "--format=csv,noheader,nounits"]
    child = start(command)
    ended, said, complaint = finish(child, config.SMI_SECONDS)
    if not ended:
        return {"error": f"nvidia-smi did not answer within {config.SMI_SECONDS:g} s"}
    if child.returncode:
        first = ((said + complaint).strip().splitlines() or ["and said nothing"])[0]
        return {"error": f"nvidia-smi ended with {how(child.returncode)}: {first}"}
    gpus = []
    for line in filter(None, map(str.strip, said.splitlines())):
        name, *values = (part.strip() for part in line.rsplit(",", len(fields)))  # A name may hold a comma.
        row = dict(zip(fields, values))
        if len(values) != len(fields) or not row["driver_version"][:1].isdecimal():
            return {"error": f"nvidia-smi printed what is no list of GPUs: {line[:80]}"}
        gpus.append((row["driver_version"], {"name": name, "sm": row.get("compute_cap"), **memory(row)}))
    if not gpus:
        return {"error": "nvidia-smi lists no GPU"}
    return {"version": gpus[0][0], "gpus": [gpu for _, gpu in gpus], "error": None}


def memory(row: dict) -> dict:
    """Total and free MiB; None where the driver does not tell, as for a GPU that shares the host's memory."""
    pairs = (("memory_mib", row["memory.total"]), ("free_mib", row["memory.free"]))
    return {key: int(value) if value.isdecimal() else None for key, value in pairs}


def package_facts(name: str) -> dict:
    """A distribution's version and requirements, from its metadata; version None where it is not installed."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return {"version": None, "requires": [], "error": None}
    version = found.version
    if not isinstance(version, str) or not version[:1].isdecimal():
        return {"error": "its metadata has no version"}
    return {"version": version, "requires": list(found.requires or ()), "error": None}


def folder_facts(find: Callable[[], Path]) -> dict:
    """Whether a file can be written in the folder, or in what there is of it, and how much room is left."""
    path = find()
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"ssdtrt")
    except OSError as error:
        return {"path": str(path), "free_mib": None, "error": f"{place} cannot be written: {error.strerror or error}"}
    return {"path": str(path), "free_mib": shutil.disk_usage(place).free >> 20, "error": None}


def weights_folder() -> Path:
    """Where torch.hub keeps checkpoints, found without torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(os.path.expanduser(home), "hub", "checkpoints")


FOLDERS = {
    "weights folder": weights_folder,
    "temporary folder": lambda: Path(tempfile.gettempdir()),
    "current folder": Path.cwd,
}


def start(command: Sequence[str]) -> subprocess.Popen:
    """A child in a process group of its own, so that it can be ended with all that it started."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=nothing, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
    )


def start_probe(name: str) -> subprocess.Popen:
    """Starts one of `ssdtrt.diagnosis.probe`'s functions in a Python that finds the modules that this one finds."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from ssdtrt.diagnosis.probe import answer; answer({name!r})"
    return start([sys.executable, "-c", code])


def read_probe(child: subprocess.Popen, doing: str, seconds: float, progress: Progress | None = None) -> dict:
    """What the child answered, or {"error": how it ended}."""
    ended, said, complaint = finish(child, seconds, progress and (lambda past: progress(f"{doing}, {past:.0f} s")))
    if not ended:
        return {"error": f"{doing} did not end within {seconds:g} s"}
    answers = [line[len(MARK) :] for line in said.splitlines() if line.startswith(MARK)]
    if answers:
        return json.loads(answers[-1])
    last = complaint.strip().splitlines()[-1:]
    return {"error": ": ".join([f"{doing} ended with {how(child.returncode)}", *last])}


def finish(
    child: subprocess.Popen, seconds: float, tick: Callable[[float], None] | None = None
) -> tuple[bool, str, str]:
    """Waits for the child: (whether it ended in time, its stdout, its stderr). It is gone afterwards in any case."""
    started = time.monotonic()
    try:
        while (past := time.monotonic() - started) < seconds:
            if tick:
                tick(past)
            try:
                return (True, *child.communicate(timeout=min(1.0, seconds - past)))
            except subprocess.TimeoutExpired:
                pass
        return False, "", ""
    finally:
        end(child)


def end(child: subprocess.Popen) -> None:
    """Kills what is left of the child and of what it started."""
    with contextlib.suppress(OSError):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL) if hasattr(os, "killpg") else child.kill()
    child.wait()
    for stream in (child.stdout, child.stderr):
        stream.close()


def how(code: int) -> str:
    """An exit status in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
