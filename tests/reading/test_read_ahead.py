"""Work ahead by threads: in order, bounded, with errors at their place, and without a thread left behind."""

import os
import threading
import time

import pytest

from ssdtrt import config
from ssdtrt.reading.read_ahead import in_order, worker_count


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
