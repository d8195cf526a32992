"""Gather what `doctor` looks at; no failure on the way ends it. Imports no torch."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from ssdtrt import config
from ssdtrt.diagnosis.facts import (
    PACKAGES,
    BuildTest,
    Facts,
    Failure,
    Folder,
    Package,
    System,
    Torch,
    TorchTensorrt,
    Torchvision,
)
from ssdtrt.diagnosis.probe import MARK, describe
from ssdtrt.errors import ArtifactError
from ssdtrt.system.gpu_state import Driver
from ssdtrt.system.nvidia_smi import exit_status
from ssdtrt.system.progress import Progress, silent

T = TypeVar("T")


def gather_facts(progress: Progress = silent) -> Facts:
    """Return all facts that the checks look at."""
    progress("looking at the machine")
    driver = Probe("driver", Driver, "asking for the driver", 2 * config.SMI_SECONDS)
    torch = Probe("torch", Torch, "importing torch", config.IMPORT_SECONDS)
    torchvision = Probe("torchvision", Torchvision, "importing torchvision", config.IMPORT_SECONDS)
    torch_tensorrt = Probe("torch_tensorrt", TorchTensorrt, "importing torch_tensorrt", config.IMPORT_SECONDS)
    try:
        return Facts(
            system=guarded(_system),
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
            packages={name: guarded(_package, name) for name in PACKAGES},
            folders={name: guarded(_folder, find) for name, find in _FOLDERS.items()},
            driver=driver.answer(progress),
            torch=torch.answer(progress),
            torchvision=torchvision.answer(progress),
            torch_tensorrt=torch_tensorrt.answer(progress),
        )
    finally:
        for probe in (driver, torch, torchvision, torch_tensorrt):
            probe.end()


def run_test_build(progress: Progress = silent) -> BuildTest | Failure:
    """Build and run a tiny engine in another process."""
    return Probe("test_build", BuildTest, "building a tiny engine", config.TEST_BUILD_SECONDS).answer(progress)


def guarded(function: Callable[..., T], *arguments: Any) -> T | Failure:
    """Return the result of a function, or a Failure if it raises, so that the other checks are still made."""
    try:
        return function(*arguments)
    except Exception as error:
        return Failure(describe(error))


class Probe(Generic[T]):
    """A function of `ssdtrt.diagnosis.probe` that runs in another process, because it may crash or hang.

    Args:
        name: The name of the function in `PROBES`.
        kind: The type of its result.
        doing: What it does, for messages.
        seconds: The time after which it is ended.
    """

    def __init__(self, name: str, kind: type[T], doing: str, seconds: float):
        self._kind, self._doing, self._seconds = kind, doing, seconds
        self._child = guarded(_start, name)

    def answer(self, progress: Progress = silent) -> T | Failure:
        """Wait for the result, with a line of progress every second. Returns a Failure if there is none."""
        return self._child if isinstance(self._child, Failure) else guarded(self._read, self._child, progress)

    def end(self) -> None:
        """Kill the process and its children, if they still run."""
        if isinstance(self._child, Failure):
            return
        with contextlib.suppress(OSError):
            if self._child.poll() is None:
                os.killpg(self._child.pid, signal.SIGKILL) if hasattr(os, "killpg") else self._child.kill()
        self._child.wait()
        for stream in (self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()

    def _read(self, child: subprocess.Popen[str], progress: Progress) -> T | Failure:
        started = time.monotonic()
        try:
            while (past := time.monotonic() - started) < self._seconds:
                progress(f"{self._doing}, {past:.0f} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    output, complaint = child.communicate(timeout=min(1.0, self._seconds - past))
                    break
            else:
                return Failure(f"{self._doing} did not end within {self._seconds:g} s")
        finally:
            self.end()
        answers = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
        if answers:
            return msgspec.json.decode(answers[-1], type=self._kind | Failure)
        last = complaint.strip().splitlines()[-1:]
        return Failure(": ".join([f"{self._doing} ended with {exit_status(child.returncode)}", *last]))


def _start(name: str) -> subprocess.Popen[str]:
    """Start a Python with the module search path of this one, in a new process group."""
    call = f"answer({name!r}, {os.getpid()})"
    code = f"import sys; sys.path[:] = {sys.path!r}; from ssdtrt.diagnosis.probe import answer; {call}"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _system() -> System:
    return System(platform.system(), platform.machine(), platform.python_version())


def _package(name: str) -> Package:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return Package()
    version = found.version
    if not isinstance(version, str) or not version:
        raise ArtifactError("its metadata has no version")
    return Package(version, tuple(found.requires or ()))


def _folder(find: Callable[[], Path]) -> Folder:
    """Return the folder, if a file can be written to it or, before it exists, to its nearest parent."""
    path = find()
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"ssdtrt")
    except OSError as error:
        raise ArtifactError(f"{place} cannot be written: {error.strerror or error}") from error
    return Folder(str(path), shutil.disk_usage(place).free >> 20)


def _weights_folder() -> Path:
    """Return the folder of torch.hub's checkpoints, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(os.path.expanduser(home), "hub", "checkpoints")


_FOLDERS: dict[str, Callable[[], Path]] = {
    "weights folder": _weights_folder,
    "temporary folder": lambda: Path(tempfile.gettempdir()),
    "current folder": Path.cwd,
}
