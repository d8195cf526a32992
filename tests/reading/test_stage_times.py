"""How busy each stage is: added up over threads, divided among workers, begun anew."""

import threading
import time

import pytest

from ssdtrt.reading.stage_times import STAGES, StageTimes


def test_times_and_shares_of_all_stages_in_their_order():
    times = StageTimes()
    for _ in range(3):
        times.add("network", 0.5)
    times.add("write", 0.25)
    found = times.of(2.0)
    assert [one.stage for one in found] == ["read", "decode", "upload", "network", "results", "write"] == list(STAGES)
    assert [(one.seconds, one.share) for one in found] == [(0, 0), (0, 0), (0, 0), (1.5, 0.75), (0, 0), (0.25, 0.125)]
    assert [one.share for one in times.of(0.0)] == [0.0] * 6
    assert times.began is not None
    times.clear()
    assert [one.seconds for one in times.of(1.0)] == [0.0] * 6 and times.began is None


def test_the_first_stage_tells_when_it_began(monkeypatch):
    times = StageTimes()
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    times.add("read", 0.25)
    times.add("network", 5.0)
    assert times.began == 99.75


def test_a_block_counts_divided_by_those_who_work_and_where_it_fails_too():
    times = StageTimes()
    with times.busy("read", 4):
        time.sleep(0.04)
    with pytest.raises(ValueError), times.busy("read", 4):
        time.sleep(0.04)
        raise ValueError
    assert 0.02 <= times.of(1.0)[0].seconds < 0.2


def test_threads_add_up():
    times = StageTimes()
    workers = [threading.Thread(target=lambda: [times.add("read", 1) for _ in range(1000)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert times.of(1.0)[0].seconds == 4000
