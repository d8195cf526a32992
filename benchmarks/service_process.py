"""`ssdtrt serve` as a process of its own, with its processes' computing time, and their and the GPUs' memory once a second."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SSDTRT = (sys.executable, "-m", "ssdtrt")
START_SECONDS = 600.0
PORTS = range(5_000, 10_000)  # The system gives none of these to others meanwhile, and Ray none to its workers.
KINDS = {"ray::ServeReplica:ssdtrt-detect": "replicas", "haproxy": "haproxy"}  # of processes, by how their titles begin


class Server:
    """`ssdtrt serve` in a process of its own, from its start until SIGTERM.

    Attributes:
        report: What it wrote with --json.
        memory: The MiB of all its processes, once a second.
        gpu_memory: The MiB that are in use on all GPUs, as often; nothing where there is none.
        exit_code: That of the process, behind the block.
    """

    def __init__(self, engine: str | Path, folder: Path, *options: str):
        port = free_port()
        self._path, self.url, self.exit_code = folder / "serve.json", f"http://127.0.0.1:{port}", None
        self.memory: list[float] = []
        self.gpu_memory: list[int] = []
        self._path.unlink(missing_ok=True)
        self._command = [*SSDTRT, "serve", str(engine), "--port", str(port), "--json", str(self._path), *options]

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + START_SECONDS
        while not self._path.exists() or not self._path.read_text().endswith("}\n"):
            if self.process.poll() is not None:
                raise SystemExit(f"ssdtrt serve ended with {self.process.returncode}")
            if time.monotonic() > until:
                self.process.kill()
                raise SystemExit(f"ssdtrt serve was not ready after {START_SECONDS:g} s")
            time.sleep(0.1)
        self.report = json.loads(self._path.read_text())
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def _sample(self) -> None:
        while not self._over.wait(1.0):
            self.memory.append(round(sum(map(proportional, descendants(self.process.pid))), 1))
            self.gpu_memory += gpu_mib()

    def computed(self) -> dict[str, float]:
        """Return the seconds that cores have computed: of the service by kind of its processes, and of the whole machine."""
        found = dict.fromkeys((*KINDS.values(), "rest"), 0.0)
        for process in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
                kind = next((kind for head, kind in KINDS.items() if Path(title).name.startswith(head)), "rest")
                found[kind] += times(f"/proc/{process}/stat")
        user, nice, system, _idle, _waiting, *more = Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        return {**found, "machine": ticks([user, nice, system, *more])}

    def replica_threads(self) -> list[list[float]]:
        """Return the seconds that each replica's threads have computed, in the order of their start."""
        found = []
        for process in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::ServeReplica:ssdtrt-detect"):
                    threads = sorted(map(int, os.listdir(f"/proc/{process}/task")))
                    found.append([times(f"/proc/{process}/task/{thread}/stat") for thread in threads])
        return found

    def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        self.process.send_signal(signal.SIGTERM)
        self.exit_code = self.process.wait()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()
        if self.exit_code is None:
            self.stop()


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise SystemExit(f"no port of {PORTS[0]} to {PORTS[-1]} is free")


def descendants(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{root}/task"):
            for child in Path(f"/proc/{root}/task/{thread}/children").read_text().split():
                yield from descendants(int(child))


def times(path: str) -> float:
    """The seconds that a process or thread has computed, by its file `stat`."""
    return ticks(Path(path).read_text().rpartition(")")[2].split()[11:13])


def ticks(counts: list[str]) -> float:
    """The seconds of some counts of the kernel."""
    return sum(map(int, counts)) / os.sysconf("SC_CLK_TCK")


def proportional(process: int) -> float:
    """The MiB of a process, of what it shares its share; 0 for one that is gone."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        return int(text.split("Pss:")[1].split()[0]) / 1024
    with contextlib.suppress(OSError):  # Some kernels lack that file; then without what is shared.
        resident, shared = Path(f"/proc/{process}/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def gpu_mib() -> list[int]:
    """The MiB that are in use on all GPUs, as one number; none where nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=5)
        return [sum(map(int, done.stdout.split()))]
    return []
