"""Work done ahead by threads, in order and with a bound on what is in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ssdtrt import config
from ssdtrt.system.versions import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count() -> int:
    """Return how many threads or processes to use: one for each core of this process, at most config.MAX_WORKERS."""
    return min(config.MAX_WORKERS, available_cores())


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    depth: int,
    stop: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """Yield `function` of each item, in the order of the items, computed by threads.

    Items are taken as their results are, at most `depth` ahead of them. What a call raises is raised in the place of
    its result. Leaving early cancels the calls that have not begun.

    Args:
        function: What to compute.
        items: The items.
        workers: How many threads.
        depth: How many items are in memory at most.
        stop: Called at the end, to end the calls that are running.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ssdtrt")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if stop is not None:
            stop()
        pool.shutdown(wait=True, cancel_futures=True)
