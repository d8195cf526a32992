"""The queue of the service, event by event: clients, proxy, replicas, threads and batches, for queue_simulation.py.

Requests, of a picture each, pass Ray's proxy, which is one process and takes one at a time; wait there, at most `max_queue`
of them, until one of two random replicas takes them, the one that has fewer; are decoded by the replica's threads; wait for
others, until the batch is full or `queue_delay_ms` after its first one is over, also while the device is busy, as Ray Serve
does it; and run, one batch after the other, filled up to the next size of `batch_ms`. A proxy that found all replicas full
looks again after a while. All times but the delay vary by `spread`.

Not simulated: bad uploads, time-outs, replicas that die, and processes that share the cores.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from ssdtrt import config

BACKOFF_MS = (25.0, 50.0, 100.0, 200.0, 400.0, 500.0)  # Ray Serve's, between looks for a replica that is not full
RETRY_MS = (500.0, 1500.0)  # after which a client of service.py comes again that got a 503
BLOCK = 4096  # random numbers that are drawn at once


@dataclass(frozen=True)
class Model:
    """A service, in milliseconds.

    Attributes:
        batch_ms: A batch's time by the sizes that the engine was built for.
        decode_ms: The time to decode and resize a picture, in one thread.
        threads: That decode, in each replica.
        proxy_ms: What a request takes in the proxy, which works on one at a time.
        overhead_ms: What it takes elsewhere, beside any number of others.
        queue_delay_ms: How long a picture may wait for others to fill a batch.
        max_queue: Requests that wait in the proxy; one beyond gets 503.
        replicas: How many there are.
        ongoing: The requests in a replica at most.
        spread: Factors at the shares 0, 1/n .. 1 by which times vary.
    """

    batch_ms: dict[int, float]
    decode_ms: float = 0.0
    threads: int = 1
    proxy_ms: float = 0.0
    overhead_ms: float = 0.0
    queue_delay_ms: float = config.SERVE_QUEUE_DELAY / 1e3
    max_queue: int = config.SERVE_QUEUE["cuda"]
    replicas: int = 1
    ongoing: int = config.SERVE_ONGOING["cuda"]
    spread: tuple[float, ...] = (1.0,)

    @property
    def batch_size(self) -> int:
        """The most pictures of a batch."""
        return max(self.batch_ms)


@dataclass
class Replica:
    """What is in a replica: requests by the time at which they were sent."""

    ongoing: int = 0
    free_threads: int = 0
    to_decode: deque[float] = field(default_factory=deque)
    batch: list[float] = field(default_factory=list)  # the one that fills
    batches: deque[list[float]] = field(default_factory=deque)
    busy: bool = False


class Simulation:
    """A service under load.

    Args:
        model: The service.
        clients: That send one picture after the other, or
        rate: Pictures a second that come at random (Poisson).
        seed: Of the random numbers.
    """

    def __init__(self, model: Model, *, clients: int = 0, rate: float = 0.0, seed: int = 0):
        self.model, self._clients, self._rate = model, clients, rate
        self._random = np.random.default_rng(seed)
        self._factors: list[float] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()
        self._now = self._proxy_free = 0.0
        self._waiting: deque[float] = deque()
        self._routers = 0
        self._replicas = [Replica(free_threads=model.threads) for _ in range(model.replicas)]
        self.done: list[tuple[float, float]] = []  # (when, latency)
        self.refused: list[float] = []
        self.sizes: list[int] = []  # of the batches

    def run(self, seconds: float, warm_up: float = 0.1) -> dict[str, Any]:
        """Run for some simulated seconds, and return what came after the first share of them."""
        for _ in range(self._clients):
            self._at(0.0, self._send)
        if self._rate:
            self._at(0.0, self._arrive)
        while self._events and self._events[0][0] < seconds * 1e3:
            self._now, _, happen, arguments = heapq.heappop(self._events)
            happen(*arguments)
        begin = warm_up * seconds * 1e3
        times = np.array([latency for when, latency in self.done if when >= begin])
        refused = sum(when >= begin for when in self.refused)
        p50, p90, p99 = np.percentile(times, (50, 90, 99)) if len(times) else (np.nan,) * 3
        return {
            "clients": self._clients or None,
            "rate": self._rate or None,
            "pictures_per_second": round(len(times) / seconds / (1 - warm_up), 2),
            "mean_ms": round(float(times.mean()), 2) if len(times) else None,
            **{name: round(float(value), 2) for name, value in zip(("p50_ms", "p90_ms", "p99_ms"), (p50, p90, p99))},
            "share_503": round(refused / max(1, refused + len(times)), 4),
            "mean_batch": round(float(np.mean(self.sizes)), 2) if self.sizes else None,
        }

    def _at(self, milliseconds: float, happen: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self._now + milliseconds, next(self._numbers), happen, arguments))

    def _varied(self, milliseconds: float) -> float:
        if not self._factors:
            spread = self.model.spread
            self._factors = np.interp(self._random.random(BLOCK), np.linspace(0, 1, len(spread)), spread).tolist()
        return milliseconds * self._factors.pop()

    def _arrive(self) -> None:
        self._send()
        self._at(self._random.exponential(1e3 / self._rate), self._arrive)

    def _send(self) -> None:
        """A request comes to the proxy."""
        self._proxy_free = max(self._now, self._proxy_free) + self._varied(self.model.proxy_ms)
        self._at(self._proxy_free - self._now, self._queue, self._now)

    def _queue(self, sent: float) -> None:
        """It waits for a replica, or gets 503."""
        if len(self._waiting) >= self.model.max_queue:
            self.refused.append(self._now)
            if self._clients:
                self._at(self._random.uniform(*RETRY_MS), self._send)
            return
        self._waiting.append(sent)
        if self._routers < 2 * len(self._replicas):
            self._routers += 1
            self._route(0)

    def _route(self, looked: int) -> None:
        """A task of the router hands on what waits, until all replicas that it looks at are full."""
        while self._waiting:
            replica = self._choose()
            if replica is None:
                self._at(BACKOFF_MS[min(looked, len(BACKOFF_MS) - 1)], self._route, looked + 1)
                return
            looked = 0
            replica.ongoing += 1
            self._at(self._varied(self.model.overhead_ms), self._decode, replica, self._waiting.popleft())
        self._routers -= 1

    def _choose(self) -> Replica | None:
        """Of two random replicas the one that has fewer requests; None where both are full."""
        several = len(self._replicas)
        chosen = self._random.choice(several, 2, replace=False) if several > 2 else self._random.permutation(several)
        best = min((self._replicas[one] for one in chosen), key=lambda one: one.ongoing)
        return best if best.ongoing < self.model.ongoing else None

    def _decode(self, replica: Replica, sent: float) -> None:
        replica.to_decode.append(sent)
        self._next_picture(replica)

    def _next_picture(self, replica: Replica) -> None:
        if replica.free_threads and replica.to_decode:
            replica.free_threads -= 1
            self._at(self._varied(self.model.decode_ms), self._decoded, replica, replica.to_decode.popleft())

    def _decoded(self, replica: Replica, sent: float) -> None:
        replica.free_threads += 1
        self._next_picture(replica)
        replica.batch.append(sent)
        if len(replica.batch) == self.model.batch_size:
            self._close(replica, replica.batch)
        elif len(replica.batch) == 1:
            self._at(self.model.queue_delay_ms, self._close, replica, replica.batch)

    def _close(self, replica: Replica, batch: list[float]) -> None:
        """A batch is full, or its time is over; nothing where it was closed before."""
        if batch is replica.batch:
            replica.batch = []
            replica.batches.append(batch)
            self.sizes.append(len(batch))
            self._next_batch(replica)

    def _next_batch(self, replica: Replica) -> None:
        if replica.batches and not replica.busy:
            replica.busy = True
            batch = replica.batches.popleft()
            size = min(size for size in self.model.batch_ms if size >= len(batch))
            self._at(self._varied(self.model.batch_ms[size]), self._finish, replica, batch)

    def _finish(self, replica: Replica, batch: list[float]) -> None:
        replica.busy = False
        replica.ongoing -= len(batch)
        for sent in batch:
            self.done.append((self._now, self._now - sent))
            if self._clients:
                self._at(0.0, self._send)
        self._next_batch(replica)
