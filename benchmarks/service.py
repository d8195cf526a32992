"""Measure the service under load, and account for every request: answered or 503, none mixed up, none too late.

    python benchmarks/service.py ENGINE --json FILE [--clients 20 --clients 200] [--seconds 60] [--bad 0.05]

The script starts `ssdtrt serve ENGINE` itself, and ends it with SIGTERM. The pictures are seeded parts of the sample
photographs, 640x480, whose answers `ssdtrt detect` gave before. Each client sends one after the other; one in so many
requests is an upload that must be refused. The memory is that of the server's processes, once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from files import write_files
from PIL import Image

SSDTRT = (sys.executable, "-m", "ssdtrt")
START_SECONDS = 600.0
MORE_SECONDS = 5.0  # than the time-out, after which a client gives up
SCORE, PIXELS = 0.01, 2.0  # by which an answer may differ that comes from a batch of another size
EXPECTED = {"garbage": {422}, "truncated": {422}, "empty": {400}, "bomb": {413}, "large": {413}, "encoded": {415},
            "cut": {0}, "slow": {408}}  # fmt: skip
"""The statuses of bad uploads, beside 503; 0 is none, for a client that goes away."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("--clients", type=int, action="append", help="several times for several concurrencies")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each concurrency")
    parser.add_argument("--bad", type=float, default=0.05, help="the share of bad uploads")
    parser.add_argument("--pictures", type=int, default=200, help="different ones")
    parser.add_argument("--processes", type=int, help="that the clients are in; by default one for 50 clients")
    parser.add_argument("--serve", default="", help="more options of ssdtrt serve, such as '--replicas 2'")
    parser.add_argument("--bench", action="store_true", help="measure the engine alone before")
    parser.add_argument("--json", required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the report."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "pictures")
        folder.mkdir()
        write_files(folder, options.pictures, options.pictures, 0)
        report: dict[str, Any] = {"engine": os.path.basename(options.engine), "bad": options.bad}
        if options.bench:
            report["bench"] = bench(options.engine, Path(temporary, "bench.json"))
        pictures = known_answers(options.engine, folder / "links", Path(temporary))
        with Server(options.engine, Path(temporary), *options.serve.split()) as server:
            service = server.report["service"]
            service = {name: service[name] for name in ("precision", "device", "batch_size", "replicas", "options")}
            report |= {"service": service, "machine": machine(), "rows": []}
            for clients in options.clients or [20]:
                before = len(server.memory)
                account = load_in_processes(server, pictures, clients, options)
                row = summary(account, clients, options.seconds)
                row["memory_mib"] = server.memory[before:]
                print(json.dumps({**row, "memory_mib": [min(row["memory_mib"]), max(row["memory_mib"])]}), flush=True)
                report["rows"].append(row)
        report["exit_code"] = server.exit_code
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """This machine, and the versions that count here."""
    from importlib.metadata import version

    from ssdtrt.system.versions import measured_on

    device = "cuda" if Path("/dev/nvidia0").exists() else "cpu"
    return {**measured_on(device).as_dict(), "ray": version("ray")}


def bench(engine: str, path: Path) -> list[dict[str, Any]]:
    """The engine alone, as `ssdtrt bench` measures it: its batch size, milliseconds and images a second."""
    subprocess.run([*SSDTRT, "bench", engine, "--json", str(path)], check=True, stdout=subprocess.DEVNULL)
    rows = json.loads(path.read_text())["rows"]
    return [{name: row[name] for name in ("case", "batch_size", "median_ms", "images_per_second")} for row in rows]


@dataclass(frozen=True)
class Known:
    """A picture's file, and the JSON of its detections from `ssdtrt detect`."""

    content: bytes
    answer: bytes


def known_answers(engine: str, folder: Path, temporary: Path) -> list[Known]:
    """What `ssdtrt detect` says of each picture of a folder."""
    lines = temporary / "answers.jsonl"
    words = [*SSDTRT, "-q", "detect", engine, str(folder), "--jsonl", str(lines)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return read_answers(lines.read_text())


def read_answers(lines: str) -> list[Known]:
    """The pictures of JSON lines, with their answers as the service gives them, without the path."""
    found = []
    for line in lines.splitlines():
        image = json.loads(line)["image"]
        found.append(Known(Path(image).read_bytes(), line.replace(json.dumps(image), '""', 1).encode()))
    return found


class Server:
    """`ssdtrt serve` in a process of its own, from its start until SIGTERM.

    Attributes:
        report: What it wrote with --json.
        memory: The MiB of all its processes, once a second.
        exit_code: That of the process, behind the block.
    """

    def __init__(self, engine: str | Path, folder: Path, *options: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._path, self.url, self.memory, self.exit_code = folder / "serve.json", f"http://127.0.0.1:{port}", [], None
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

    def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        self.process.send_signal(signal.SIGTERM)
        self.exit_code = self.process.wait()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()
        if self.exit_code is None:
            self.stop()


def descendants(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{root}/task"):
            for child in Path(f"/proc/{root}/task/{thread}/children").read_text().split():
                yield from descendants(int(child))


def proportional(process: int) -> float:
    """The MiB of a process, of what it shares its share; 0 for one that is gone."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        return int(text.split("Pss:")[1].split()[0]) / 1024
    return 0.0


@dataclass
class Account:
    """What became of all requests: of good ones by status and answer, of bad ones by kind and status."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    bad: dict[str, collections.Counter[int]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    late: int = 0
    lost: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def add(self, other: Account) -> None:
        """Add another account."""
        self.statuses.update(other.statuses)
        self.answers.update(other.answers)
        for kind, statuses in other.bad.items():
            self.bad[kind].update(statuses)
        self.late += other.late
        self.lost += other.lost
        self.latencies += other.latencies

    def unexpected(self) -> dict[str, Any]:
        """What should not be: nothing, where all is well."""
        bad = {kind: dict(found) for kind, found in self.bad.items() if not set(found) <= EXPECTED[kind] | {503}}
        good = {status: count for status, count in self.statuses.items() if status not in (200, 503)}
        found = {
            "statuses": good,
            "bad": bad,
            "wrong": self.answers["wrong"],
            "late": self.late,
            "lost": self.lost[:20],
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Load:
    """Clients that send pictures one after the other."""

    url: str
    pictures: list[Known]
    clients: int
    seconds: float
    bad: float
    timeout: float
    kinds: tuple[str, ...] = tuple(EXPECTED)
    seed: int = 0
    pause: float = 0.0  # seconds between the requests of a client

    def run(self) -> Account:
        """Send until the time is over; the account of all requests."""
        return asyncio.run(self.send())

    async def send(self, stop: asyncio.Event | None = None) -> Account:
        """The same in a loop that runs, until `stop` at the latest."""
        account = Account()
        limit = aiohttp.ClientTimeout(total=self.timeout + MORE_SECONDS)
        async with aiohttp.ClientSession(timeout=limit, connector=aiohttp.TCPConnector(limit=0)) as session:
            until = time.monotonic() + self.seconds
            clients = (self._client(session, account, until, self.seed + n, stop) for n in range(self.clients))
            await asyncio.gather(*clients)
        return account

    async def _client(
        self, session: aiohttp.ClientSession, account: Account, until: float, seed: int, stop: asyncio.Event | None
    ) -> None:
        chosen = random.Random(seed)
        while time.monotonic() < until and not (stop and stop.is_set()):
            kind = chosen.choice(self.kinds) if chosen.random() < self.bad else ""
            known = chosen.choice(self.pictures)
            started = time.monotonic()
            try:
                status, answer = await self._request(session, kind, known)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, EOFError) as error:
                account.lost.append(f"{kind or 'picture'}: {error!r}")
                continue
            seconds = time.monotonic() - started
            account.late += seconds > self.timeout
            if kind:
                account.bad[kind][status] += 1
            else:
                account.statuses[status] += 1
            if status == 200 and not kind:
                account.latencies.append(seconds)
                account.answers[compared(answer, known.answer)] += 1
            await asyncio.sleep(chosen.uniform(0.5, 1.5) if status == 503 else self.pause)

    async def _request(self, session: aiohttp.ClientSession, kind: str, known: Known) -> tuple[int, bytes]:
        """Send one request; its status and answer."""
        if kind in ("cut", "slow", "large"):
            return await self._raw(kind), b""
        headers = {"Content-Type": "image/jpeg", **({"Content-Encoding": "gzip"} if kind == "encoded" else {})}
        body = {"garbage": os.urandom(5000), "truncated": known.content[: len(known.content) // 2], "empty": b"",
                "bomb": BOMB}.get(kind, known.content)  # fmt: skip
        async with session.post(f"{self.url}/detect", data=body, headers=headers) as response:
            return response.status, await response.read()

    async def _raw(self, kind: str) -> int:
        """The status for a body that does not come, or not in time; 0 where the client goes away itself."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        length = 10**9 if kind == "large" else 1000
        writer.write(f"POST /detect HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\nabc".encode())
        await writer.drain()
        try:
            if kind == "cut":
                return 0
            line = await asyncio.wait_for(reader.readline(), self.timeout + MORE_SECONDS)
            return int(line.split()[1]) if line else -1
        finally:
            writer.close()


def make_bomb() -> bytes:
    """A small file of 400 million pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


BOMB = make_bomb()


def compared(answer: bytes, known: bytes) -> str:
    """`equal`; `near`, where scores and boxes differ by rounding; or `wrong`."""
    if answer.rstrip(b"\n") == known:
        return "equal"
    one, other = json.loads(answer), json.loads(known)
    if [one[name] for name in ("width", "height")] != [other[name] for name in ("width", "height")]:
        return "wrong"
    return "near" if _all_in(one, other) and _all_in(other, one) else "wrong"


def _all_in(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether each detection of one that is well above the threshold is in the other too."""
    sure = min((found["score"] for found in one["detections"]), default=0) + SCORE
    return all(
        any(
            found["label_id"] == near["label_id"]
            and abs(found["score"] - near["score"]) < SCORE
            and max(abs(a - b) for a, b in zip(found["box"], near["box"])) < PIXELS
            for near in other["detections"]
        )
        for found in one["detections"]
        if found["score"] > sure
    )


def load_in_processes(server: Server, pictures: list[Known], clients: int, options: argparse.Namespace) -> Account:
    """The account of clients that are spread over processes."""
    processes = min(options.processes or -(-clients // 50), clients)
    timeout = server.report["service"]["options"]["timeout"]
    shares = [clients // processes + (n < clients % processes) for n in range(processes)]
    loads = [
        Load(server.url, pictures, share, options.seconds, options.bad, timeout, seed=1000 * n)
        for n, share in enumerate(shares)
    ]
    whole = Account()
    with ProcessPoolExecutor(processes) as pool:
        for account in pool.map(Load.run, loads):
            whole.add(account)
    return whole


def summary(account: Account, clients: int, seconds: float) -> dict[str, Any]:
    """An account as JSON types."""
    times = sorted(account.latencies)
    at = {name: round(1e3 * times[min(int(share * len(times)), len(times) - 1)], 2) if times else None
          for name, share in {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}.items()}  # fmt: skip
    return {
        "clients": clients, "seconds": seconds, "pictures_per_second": round(len(times) / seconds, 2), **at,
        "statuses": dict(account.statuses), "answers": dict(account.answers),
        "bad": {kind: dict(found) for kind, found in account.bad.items()}, "late": account.late,
        "lost": len(account.lost), "unexpected": account.unexpected(),
    }  # fmt: skip


def metrics(url: str) -> str:
    """The service's metrics."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        return answer.read().decode()


if __name__ == "__main__":
    main()
