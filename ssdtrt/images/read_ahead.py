"""Work done ahead by threads, in order and with a bound on what is in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ssdtrt import config

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count() -> int:
    """As many threads as there are cores for this process, up to config.WORKERS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(config.WORKERS, cores)


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int, depth: int) -> Iterator[Result]:
    """`function` of each item, in their order, computed by `workers` threads.

    Items are taken as results are, at most `depth` ahead of them. What a call raises is raised where its result would
    come. Leaving early cancels what has not begun.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ssdtrt")
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
