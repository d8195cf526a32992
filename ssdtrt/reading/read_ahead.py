"""Work done ahead by threads, in order and with a bound on what is in memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

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


_PATIENCE = 0.1  # seconds between looks at whether anybody still wants the items
_LEAVING = 0.5  # seconds that a thread has to end


def in_thread(items: Generator[Item, None, None], depth: int) -> Generator[Item, None, None]:
    """Yield the items of a generator that runs in a thread of its own.

    What it raises is raised behind its items. The thread also closes it, when it is left early too; where it does not come
    to its next item within half a second, its thread is left to do that alone.

    Args:
        items: The generator.
        depth: How many items wait at most.
    """
    waiting: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(depth)
    left = threading.Event()

    def put(more: bool, what: Item | BaseException | None) -> bool:
        while not left.is_set():
            try:
                waiting.put((more, what), timeout=_PATIENCE)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(True, item):
                    break
            items.close()
            put(False, None)
        except BaseException as error:  # Also what ends a process: it is raised where the items are wanted.
            put(False, error)

    thread = threading.Thread(target=run, name="ssdtrt-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, what = waiting.get()
            if more:
                yield cast(Item, what)
            elif what is None:
                return
            else:
                raise cast(BaseException, what)
    finally:
        left.set()
        thread.join(_LEAVING)
