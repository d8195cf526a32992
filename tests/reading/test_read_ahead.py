"""Work ahead by threads: in order, bounded, with errors at their place, and without a thread left behind."""

import os
import signal
import threading
import time

import pytest

from ssdtrt import config
from ssdtrt.reading.read_ahead import in_order, in_thread, worker_count


class Counted:
    """Numbers without end; `taken` is how many were."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        while True:
            self.taken += 1
            yield self.taken - 1


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ssdtrt")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads() == []


@pytest.mark.parametrize("workers, depth", [(1, 1), (1, 7), (4, 4), (4, 9), (8, 100)])
def test_results_come_in_the_order_of_the_items(workers, depth):
    def slow(number):
        time.sleep((7 * number % 5) / 500)
        return number * number

    assert list(in_order(slow, range(30), workers, depth)) == [number * number for number in range(30)]


def test_nothing_gives_nothing():
    assert list(in_order(str, [], 2, 2)) == []


def test_the_calls_run_beside_each_other():
    """Each waits until all four are there."""
    barrier = threading.Barrier(4)
    found = list(in_order(lambda number: barrier.wait(timeout=20) >= 0, range(4), 4, 4))
    assert found == [True] * 4


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_no_more_than_depth_items_are_taken_ahead(depth):
    items = Counted()
    results = in_order(str, items, 2, depth)
    assert items.taken == 0  # Nothing before the first is asked for.
    for number in range(20):
        assert next(results) == str(number)
        assert items.taken == number + depth
    results.close()
    assert items.taken == 19 + depth


def test_items_are_taken_by_the_thread_that_asks():
    takers = []

    def items():
        for number in range(5):
            takers.append(threading.current_thread())
            yield number

    assert list(in_order(lambda number: threading.current_thread(), items(), 2, 3)) != []
    assert set(takers) == {threading.current_thread()}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_call_raises_comes_at_its_place(error):
    def call(number):
        if number == 3:
            raise error("the fourth")
        return number

    results = in_order(call, range(100), 4, 8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(error, match="the fourth"):
        next(results)
    assert list(results) == []  # It has ended.


def test_what_the_items_raise_is_raised():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(in_order(str, items(), 2, 4))


def test_leaving_early_cancels_what_has_not_begun():
    began, go = [], threading.Event()

    def call(number):
        began.append(number)
        if number:
            go.wait(timeout=20)
        return number

    results = in_order(call, range(1000), 1, 50)
    assert next(results) == 0
    threading.Timer(0.2, go.set).start()
    results.close()
    assert began in ([0], [0, 1])


def test_as_many_threads_as_this_process_has_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert worker_count() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(500)))
    assert worker_count() == config.MAX_WORKERS == 16
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert worker_count() == 1


# A generator in a thread of its own


def numbers(count, seen=None, error=None, closed=None):
    """The numbers up to `count`, and then an error; `seen` notes those that were taken, `closed` the thread of the end."""
    try:
        for number in range(count):
            if seen is not None:
                seen.append(number)
            yield number
        if error:
            raise error
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_items_of_a_thread_come_in_order_and_no_more_than_fit_are_made(depth):
    seen, closed = [], []
    items = in_thread(numbers(20, seen, closed=closed), depth)
    assert seen == []  # Nothing before the first is asked for.
    for number in range(20):
        assert next(items) == number
        time.sleep(0.002)
        assert len(seen) <= number + 1 + depth + 1  # Those that wait, and one that has no place yet.
    assert list(items) == [] and seen == list(range(20)) and closed == ["ssdtrt-ahead"]


def test_the_next_item_is_made_while_one_is_used():
    made = threading.Event()

    def items():
        yield 1
        made.set()
        yield 2

    stream = in_thread(items(), 1)
    assert next(stream) == 1 and made.wait(timeout=20) and list(stream) == [2]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_what_a_thread_raises_comes_behind_its_items(error):
    items = in_thread(numbers(5, error=error("at the end")), 2)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(error, match="at the end"):
        next(items)
    assert list(items) == []


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_leaving_a_thread_early_closes_its_items_there(how):
    seen, closed = [], []
    items = in_thread(numbers(1000, seen, closed=closed), 2)
    next(items)
    began = time.monotonic()
    if how == "close":
        items.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            items.throw(KeyboardInterrupt)
    assert time.monotonic() - began < 2 and closed == ["ssdtrt-ahead"] and len(seen) <= 5


def test_one_that_was_never_begun_starts_no_thread():
    closed = []
    items = in_thread(numbers(3, closed=closed), 1)
    assert threads() == []
    items.close()
    assert threads() == [] and closed == []


def test_a_thread_that_waits_for_ever_is_left_within_a_second():
    """And ends by itself as soon as it can."""
    go, closed = threading.Event(), []

    def items():
        try:
            yield 1
            go.wait(timeout=20)
            yield 2
        finally:
            closed.append(True)

    stream = in_thread(items(), 1)
    assert next(stream) == 1
    began = time.monotonic()
    stream.close()
    assert 0.4 < time.monotonic() - began < 2 and closed == []
    (thread,) = threads()
    assert thread.daemon
    go.set()
    thread.join(20)
    assert closed == [True]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_reaches_who_waits_for_a_thread():
    go = threading.Event()

    def items():
        go.wait(timeout=20)
        yield 1

    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(in_thread(items(), 1))
    assert time.monotonic() - began < 3
    go.set()
    for thread in threads():
        thread.join(20)
