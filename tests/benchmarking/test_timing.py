"""The clocks, and the figures that samples give."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ssdtrt.benchmarking.report import BenchRow, HostTimes
from ssdtrt.benchmarking.timing import (
    Samples,
    coefficient_of_variation,
    quantile,
    speedup_interval,
)


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_the_quantile_is_numpys_nearest_rank(share):
    random = np.random.default_rng(9)
    for count in (1, 2, 5, 19, 20, 21, 99, 101, 137):
        samples = random.normal(size=count)
        assert quantile(list(samples), share) == np.quantile(samples, share, method="inverted_cdf")


def test_the_quantile_of_any_count_is_the_smallest_sample_that_covers_the_share():
    for count in (*range(1, 301), 500, 997, 1000):
        samples = list(range(1, count + 1))[::-1]
        for share, exact in ((0.9, Fraction(9, 10)), (0.99, Fraction(99, 100))):
            assert quantile(samples, share) == next(n for n in sorted(samples) if n >= exact * count)


def test_figures_follow_from_the_samples():
    samples = Samples([[5.0, 1.0, 2.0, 4.0, 3.0], [10.0, 6.0, 9.0, 7.0, 8.0]])
    empty = BenchRow("a", "fp16", 8, memory_mib=3.0)
    found = samples.summarized_in(empty, Samples([[22.0], [22.0]]))
    assert (found.name, found.batch_size, found.memory_mib, found.samples) == ("a", 8, 3.0, 10)
    assert (found.median_ms, found.p90_ms, found.p99_ms, found.max_ms) == (5.5, 9.0, 10.0, 10.0)
    assert found.coefficient_of_variation == pytest.approx(0.5504819, rel=1e-6)  # sqrt(82.5 / 9) / 5.5
    assert found.images_per_second == pytest.approx(1454.5454, rel=1e-6)
    assert (found.speedup, found.speedup_low, found.speedup_high) == (4.0, None, None)
    assert found.host == HostTimes(5.5, 9.0, 10.0, 10.0, None) and empty.samples == 0
    assert samples.rounds[0][0] == 5.0  # Not sorted in place.


def test_figures_without_a_baseline_and_with_times_of_the_host():
    samples = Samples([[2.0, 2.0]], host=[3.0, 5.0, 4.0], returned=[0.5, 1.5, 0.25])
    found = samples.summarized_in(BenchRow("a", "fp16", 1), None)
    assert (found.median_ms, found.speedup, found.speedup_low) == (2.0, None, None)
    assert found.host == HostTimes(4.0, 5.0, 5.0, 5.0, 0.5)


def test_a_single_sample_has_no_coefficient_of_variation():
    assert coefficient_of_variation([3.0]) is None and coefficient_of_variation([3.0, 3.0]) == 0.0


@pytest.mark.parametrize("rounds", [1, 2])
def test_few_rounds_give_no_interval(rounds):
    assert speedup_interval([[4.0, 4.1]] * rounds, [[2.0, 2.1]] * rounds) == (None, None)


def test_steady_rounds_give_a_point_and_the_same_every_time():
    assert speedup_interval([[6.0, 6.0]] * 5, [[2.0, 2.0]] * 5) == (3.0, 3.0)
    noisy = np.random.default_rng(1).normal(10, 1, size=(6, 4)).tolist()
    assert speedup_interval(noisy, [[2.0] * 4] * 6) == speedup_interval(noisy, [[2.0] * 4] * 6)


def test_what_disturbs_a_whole_round_disturbs_both_and_cancels():
    slow = [1.0, 1.0, 3.0, 1.0, 2.0]
    low, high = speedup_interval([[8.0 * s] * 3 for s in slow], [[2.0 * s] * 3 for s in slow])
    assert low == high == 4.0


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """200 runs of 10 rounds of 10 calls, a true ratio of 2: about 95 % of the intervals hold it."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        baseline, other = random.normal(20, 1, size=(10, 10)), random.normal(10, 0.5, size=(10, 10))
        low, high = speedup_interval(baseline.tolist(), other.tolist())
        held += low <= 2.0 <= high
    assert 0.88 <= held / 200 <= 0.995


def test_on_a_cpu_a_call_is_timed_once():
    calls, images = [], torch.zeros(1)
    samples = Samples()
    samples.take(calls.append, [images, images + 1], 3)
    assert [float(call) for call in calls] == [0.0, 1.0, 0.0]
    assert [len(one) for one in samples.rounds] == [3] and samples.host == samples.returned == []
