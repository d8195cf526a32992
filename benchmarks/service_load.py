"""Clients of the service, good and bad, and the account of all that they sent: answered or 503, whose answer, how late."""

from __future__ import annotations

import asyncio
import collections
import io
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

MORE_SECONDS = 5.0  # than the time-out, after which a client gives up
SCORE, PIXELS = 0.01, 2.0  # by which an answer may differ that comes from a batch of another size
FLIPPED = 0.5  # of the detections have to be there at least, where rounding has flipped decisions of NMS
EXPECTED = {"garbage": {422}, "truncated": {422}, "scrambled": {200, 422}, "empty": {400}, "bomb": {413}, "large": {413},
            "encoded": {415}, "cut": {0}, "slow": {408}}  # fmt: skip
"""The statuses of bad uploads, beside 503; 0 is none, for a client that goes away."""


@dataclass(frozen=True)
class Known:
    """A picture's file, and the JSON of its detections from `ssdtrt detect`."""

    content: bytes
    answer: bytes


def read_answers(lines: str) -> list[Known]:
    """The pictures of JSON lines, with their answers as the service gives them, without the path."""
    found = []
    for line in lines.splitlines():
        image = json.loads(line)["image"]
        found.append(Known(Path(image).read_bytes(), line.replace(json.dumps(image), '""', 1).encode()))
    return found


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
    busy: float = 0.0  # the share of its time that a process of clients computed at most

    def add(self, other: Account) -> None:
        """Add another account."""
        self.statuses.update(other.statuses)
        self.answers.update(other.answers)
        for kind, statuses in other.bad.items():
            self.bad[kind].update(statuses)
        self.late += other.late
        self.lost += other.lost
        self.latencies += other.latencies
        self.busy = max(self.busy, other.busy)

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
        started, computed = time.perf_counter(), time.process_time()
        account = asyncio.run(self.send())
        account.busy = (time.process_time() - computed) / (time.perf_counter() - started)
        return account

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
        """Send one request after the other; a slow upload goes on beside them, and then no second one begins."""
        chosen, slow = random.Random(seed), asyncio.create_task(asyncio.sleep(0))
        while time.monotonic() < until and not (stop and stop.is_set()):
            kinds = self.kinds if slow.done() else [kind for kind in self.kinds if kind != "slow"]
            kind = chosen.choice(kinds) if chosen.random() < self.bad and kinds else ""
            sending = asyncio.create_task(self._sent(session, account, kind, chosen.choice(self.pictures)))
            if kind == "slow":
                slow = sending
            elif await sending == 503:
                await asyncio.sleep(chosen.uniform(0.5, 1.5))
            await asyncio.sleep(self.pause)
        await slow

    async def _sent(self, session: aiohttp.ClientSession, account: Account, kind: str, known: Known) -> int:
        """Send a request, and put it into the account; its status."""
        started = time.monotonic()
        try:
            status, answer = await self._request(session, kind, known)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, EOFError) as error:
            account.lost.append(f"{kind or 'picture'}: {error!r}")
            return 0
        seconds = time.monotonic() - started
        account.late += seconds > self.timeout
        if kind:
            account.bad[kind][status] += 1
        else:
            account.statuses[status] += 1
        if status == 200 and not kind:
            account.latencies.append(seconds)
            account.answers[compared(answer, known.answer)] += 1
        return status

    async def _request(self, session: aiohttp.ClientSession, kind: str, known: Known) -> tuple[int, bytes]:
        """Send one request; its status and answer."""
        if kind in ("cut", "slow", "large"):
            return await self._raw(kind), b""
        headers = {"Content-Type": "image/jpeg", **({"Content-Encoding": "gzip"} if kind == "encoded" else {})}
        middle = len(known.content) // 2
        body = {"garbage": os.urandom(5000), "truncated": known.content[:middle], "empty": b"", "bomb": BOMB,
                "scrambled": known.content[:middle] + os.urandom(16) + known.content[middle + 16 :],
               }.get(kind, known.content)  # fmt: skip
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
    """`equal`; `near`, where scores and boxes differ by rounding; `flipped`, where so did decisions of NMS; or `wrong`."""
    if answer.rstrip(b"\n") == known:
        return "equal"
    one, other = json.loads(answer), json.loads(known)
    if [one[name] for name in ("width", "height")] != [other[name] for name in ("width", "height")]:
        return "wrong"
    there = [*_there(one, other), *_there(other, one)]
    return "near" if all(there) else "flipped" if sum(there) >= FLIPPED * len(there) else "wrong"


def _there(one: dict[str, Any], other: dict[str, Any]) -> list[bool]:
    """Whether the detections of one that are well above the threshold are in the other too."""
    sure = min((found["score"] for found in one["detections"]), default=0) + SCORE
    return [
        any(
            found["label_id"] == near["label_id"]
            and abs(found["score"] - near["score"]) < SCORE
            and max(abs(a - b) for a, b in zip(found["box"], near["box"])) < PIXELS
            for near in other["detections"]
        )
        for found in one["detections"]
        if found["score"] > sure
    ]
