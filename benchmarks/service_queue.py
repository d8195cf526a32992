"""The queue of the service, event by event: clients, HAProxy, replicas, threads and batches, for queue_simulation.py.

HAProxy keeps no queue. It passes each request, of a picture each, at once to the replica that has the fewest, and to each in
turn where several have. A replica works on `ongoing` of them; up to `max_queue` more wait there, and one beyond gets 503.
It is a Python process: one thread reads requests, some decode, and one runs batches; and they compute at the same time only
where they have let go of its interpreter, which they do for a share of the time. A picture waits for others until its batch is
full or `queue_delay_ms` after the batch's first one is over, also while the device is busy, as Ray Serve does it. Batches, filled
up to the next size of `batch_ms`, run one after the other on the device, which the replicas share; on a CPU each replica runs
one at a time, which computes. Where more compute than there are cores, all get the same share of these. What a request takes
varies by a factor of `spread`, and a batch by that of its first picture.

Not simulated: bad uploads, time-outs, and replicas that die.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from ssdtrt import config

RETRY_MS = (500.0, 1500.0)  # after which a client of service.py comes again that got a 503
TURNS = 10  # in which a picture is decoded, and a batch runs: each has the interpreter first, and then lets go of it
OTHERS_MS = 3.0
BLOCK = 4096  # random numbers that are drawn at once


@dataclass(frozen=True)
class Model:
    """A service, in milliseconds.

    Attributes:
        batch_ms: A batch's time by the sizes that the engine was built for.
        on_cpu: Whether a batch computes on a core, in place of the device that all replicas share.
        batch_locked: The share of its time there in which no other thread of the replica gets on.
        decode_ms: A core's time to decode and resize a picture.
        decode_locked: The same share.
        threads: That decode, in each replica.
        request_ms: A core's time for all else that a replica does for a request, in which no other thread of it gets on.
        outside_ms: A core's time outside of the replica, for HAProxy and for clients that are on the same machine.
        overhead_ms: What a request takes beside any number of others, without computing.
        queue_delay_ms: How long a picture may wait for others to fill a batch.
        max_queue: Requests that wait at each replica; one beyond gets 503.
        replicas: How many there are.
        ongoing: The requests that a replica works on at most.
        cores: Of the machine.
        others: Cores that other processes keep busy on average, in pieces of `OTHERS_MS` at random.
        spread: Factors at the shares 0, 1/n .. 1 of the requests.
    """

    batch_ms: dict[int, float]
    on_cpu: bool = False
    batch_locked: float = 0.0
    decode_ms: float = 0.0
    decode_locked: float = 0.0
    threads: int = 1
    request_ms: float = 0.0
    outside_ms: float = 0.0
    overhead_ms: float = 0.0
    queue_delay_ms: float = config.SERVE_QUEUE_DELAY / 1e3
    max_queue: int = config.SERVE_QUEUE["cuda"]
    replicas: int = 1
    ongoing: int = config.SERVE_ONGOING["cuda"]
    cores: int = 10**6
    others: float = 0.0
    spread: tuple[float, ...] = (1.0,)

    @property
    def batch_size(self) -> int:
        """The most pictures of a batch."""
        return max(self.batch_ms)


class Places:
    """What so many can have at a time; the others wait, in order.

    Attributes:
        free: How many more can have it.
        waiting: Those that wait.
    """

    def __init__(self, number: int):
        self.free = number
        self.waiting: deque[Task] = deque()


class Work(float):
    """Milliseconds that a core has to compute."""


Task = Iterator[float | Work | Places]
"""What goes on by itself: it yields the milliseconds that it takes, or computes, or what it has to have before it goes on."""


class Cores:
    """Cores that share equally all the work that there is, and at most one for each.

    Args:
        number: How many there are.
    """

    def __init__(self, number: int):
        self._number = number
        self._then = 0.0
        self._done = 0.0  # milliseconds of work that each who was always there has got
        self._working: list[tuple[float, int, Task]] = []  # with what is done when their own is

    def begin(self, now: float, work: float, number: int, task: Task) -> None:
        """Take a task's work. Numbers order those that end at the same time."""
        self._pass(now)
        heapq.heappush(self._working, (self._done + work, number, task))

    def next_end(self, now: float) -> float | None:
        """Return when the next work is done, if nothing begins until then."""
        self._pass(now)
        return now + (self._working[0][0] - self._done) / self._speed() if self._working else None

    def end(self, now: float) -> Task:
        """Return the task whose work is done."""
        self._pass(now)
        self._done, _, task = heapq.heappop(self._working)
        return task

    def _speed(self) -> float:
        return min(1.0, self._number / len(self._working))

    def _pass(self, now: float) -> None:
        if self._working:
            self._done += (now - self._then) * self._speed()
        self._then = now


@dataclass(eq=False)
class Replica:
    """What a replica has, and the requests in it."""

    slots: Places
    threads: Places
    device: Places
    loop: Places = field(default_factory=lambda: Places(1))  # the thread that requests come to
    interpreter: Places = field(default_factory=lambda: Places(1))
    requests: int = 0  # those that wait, too
    batch: list[float] = field(default_factory=list)  # the one that fills: when its pictures were sent
    factor: float = 1.0  # by which it varies


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
        self._now = 0.0
        self._cores, self._plan = Cores(model.cores), 0
        shared = Places(1)
        self._replicas = deque(
            Replica(Places(model.ongoing), Places(model.threads), Places(1) if model.on_cpu else shared)
            for _ in range(model.replicas)
        )
        self.done: list[tuple[float, float]] = []  # (when, latency)
        self.refused: list[float] = []
        self.sizes: list[int] = []  # of the batches

    def run(self, seconds: float, warm_up: float = 0.1) -> dict[str, Any]:
        """Run for some simulated seconds, and return what came after the first share of them."""
        for _ in range(self._clients):
            self._at(0.0, self.send)
        if self._rate:
            self._at(0.0, self._arrive)
        if self.model.others:
            self._at(0.0, self._come_between)
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

    def _go_on(self, task: Task) -> None:
        """Let a task go on until it takes time or has to wait."""
        for need in task:
            if isinstance(need, Work):
                self._cores.begin(self._now, need, next(self._numbers), task)
                self._plan_end()
                return
            if isinstance(need, float):
                self._at(need, self._go_on, task)
                return
            if not need.free:
                need.waiting.append(task)
                return
            need.free -= 1

    def _plan_end(self) -> None:
        """The next end of a work takes the place of the one that was planned before."""
        self._plan += 1
        if (end := self._cores.next_end(self._now)) is not None:
            self._at(end - self._now, self._end_work, self._plan)

    def _end_work(self, plan: int) -> None:
        if plan == self._plan:
            task = self._cores.end(self._now)
            self._plan_end()
            self._go_on(task)

    def _leave(self, places: Places) -> None:
        if places.waiting:
            self._at(0.0, self._go_on, places.waiting.popleft())
        else:
            places.free += 1

    def _factor(self) -> float:
        if not self._factors:
            spread = self.model.spread
            self._factors = np.interp(self._random.random(BLOCK), np.linspace(0, 1, len(spread)), spread).tolist()
        return self._factors.pop()

    def _compute(self, milliseconds: float, locked: float, replica: Replica) -> Task:
        """Compute in a replica, for a share of the time with its interpreter."""
        turns = TURNS if 0 < locked < 1 else 1
        for _ in range(turns if milliseconds else 0):
            if locked:
                yield replica.interpreter
                yield Work(milliseconds / turns * locked)
                self._leave(replica.interpreter)
            if locked < 1:
                yield Work(milliseconds / turns * (1 - locked))

    def _arrive(self) -> None:
        self.send()
        self._at(self._random.exponential(1e3 / self._rate), self._arrive)

    def _come_between(self) -> None:
        self._go_on(iter([Work(OTHERS_MS)]))
        self._at(self._random.exponential(OTHERS_MS / self.model.others), self._come_between)

    def send(self) -> None:
        """Send a request."""
        self._go_on(self._request(self._now))

    def _request(self, sent: float) -> Task:
        model, factor = self.model, self._factor()
        yield Work(factor * model.outside_ms)
        replica = min(self._replicas, key=lambda one: one.requests)
        self._replicas.remove(replica)
        self._replicas.append(replica)
        if len(replica.slots.waiting) >= model.max_queue:
            self.refused.append(self._now)
            if self._clients:
                self._at(self._random.uniform(*RETRY_MS), self.send)
            return
        replica.requests += 1
        yield replica.slots
        yield factor * model.overhead_ms
        yield replica.loop
        yield from self._compute(factor * model.request_ms, 1.0, replica)
        self._leave(replica.loop)
        yield replica.threads
        yield from self._compute(factor * model.decode_ms, model.decode_locked, replica)
        self._leave(replica.threads)
        replica.batch.append(sent)
        if len(replica.batch) == 1:
            replica.factor = factor
            self._at(model.queue_delay_ms, self._close, replica, replica.batch)
        if len(replica.batch) == model.batch_size:
            self._close(replica, replica.batch)

    def _close(self, replica: Replica, batch: list[float]) -> None:
        """A batch is full, or its time is over; nothing where it was closed before."""
        if batch is replica.batch:
            replica.batch = []
            self.sizes.append(len(batch))
            self._go_on(self._run(replica, batch, replica.factor))

    def _run(self, replica: Replica, batch: list[float], factor: float) -> Task:
        """A batch runs, and its requests are answered."""
        model = self.model
        milliseconds = factor * model.batch_ms[min(size for size in model.batch_ms if size >= len(batch))]
        yield replica.device
        if model.on_cpu:
            yield from self._compute(milliseconds, model.batch_locked, replica)
        else:
            yield milliseconds
        self._leave(replica.device)
        for sent in batch:
            replica.requests -= 1
            self._leave(replica.slots)
            self.done.append((self._now, self._now - sent))
            if self._clients:
                self._at(0.0, self.send)
