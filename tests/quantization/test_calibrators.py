"""The calibrators beside references that are slow and obvious, on histograms of many shapes."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.quantization.calibrators import CALIBRATORS, Histogram, range_of

BINS = 256  # few, so that the references are quick


def drawn(name):
    """Values of a distribution."""
    random = np.random.default_rng(7)
    return {
        "normal": lambda: random.normal(size=20_000),
        "exponential": lambda: random.exponential(size=20_000),
        "heavy": lambda: random.standard_t(2, size=20_000),
        "uniform": lambda: random.uniform(0, 3, size=20_000),
        "spike": lambda: np.full(1000, 0.7),
        "outlier": lambda: np.append(random.normal(size=20_000), 60.0),
    }[name]()


NAMES = ("normal", "exponential", "heavy", "uniform", "spike", "outlier")


def histogram_of(values, bins=BINS):
    values = np.abs(values)
    counts, _ = np.histogram(values, bins, (0, values.max()))
    return Histogram(counts, float(values.max()))


@pytest.fixture(params=NAMES)
def values(request):
    return drawn(request.param)


def test_max_is_the_largest_value(values):
    assert range_of(histogram_of(values), "max") == np.abs(values).max()


def test_the_percentile_is_that_of_the_sorted_values(values):
    ordered = sorted(abs(value) for value in values)
    wanted = ordered[math.ceil(0.9999 * len(ordered)) - 1]
    width = ordered[-1] / 2048
    found = range_of(histogram_of(values, 2048), "percentile")
    assert wanted - 1e-9 <= found <= wanted + width + 1e-9


def squared_error(histogram, limit):
    """The error of the quantized middles of the bins, one by one."""
    total, step = 0.0, limit / 127
    for number, count in enumerate(histogram.counts):
        value = (number + 0.5) * histogram.largest / len(histogram.counts)
        total += count * (min(round(value / step), 127) * step - value) ** 2
    return total


def thresholds(histogram):
    """The thresholds that are tried: the upper edges of the bins from the 128th on."""
    bins = len(histogram.counts)
    return [histogram.largest * edge / bins for edge in range(128, bins + 1)]


def test_mse_has_the_smallest_squared_error(values):
    histogram = histogram_of(values)
    errors = {limit: squared_error(histogram, limit) for limit in thresholds(histogram)}
    assert errors[min(errors, key=lambda limit: abs(limit - range_of(histogram, "mse")))] == min(errors.values())
    assert any(limit == pytest.approx(range_of(histogram, "mse")) for limit in errors)


def divergence(counts, edge):
    """The textbook's: P with what lies beyond in its last bin, Q of 128 levels spread over the bins that are not empty."""
    true = list(map(float, counts[:edge]))
    quantized = [0.0] * edge
    levels = defaultdict(list)
    for number in range(edge):
        if counts[number]:
            levels[number * 128 // edge].append(number)
    for bins in levels.values():
        for number in bins:
            quantized[number] = sum(float(counts[other]) for other in bins) / len(bins)
    true[-1] += float(sum(counts[edge:]))
    if any(p > 0 and q == 0 for p, q in zip(true, quantized)):
        return math.inf
    scale_p, scale_q = sum(true), sum(quantized)
    return sum(p / scale_p * math.log((p / scale_p) / (q / scale_q)) for p, q in zip(true, quantized) if p > 0)


def test_entropy_has_the_smallest_divergence(values):
    histogram = histogram_of(values)
    edges, counts = range(128, BINS + 1), histogram.counts.tolist()
    found = {histogram.largest * edge / BINS: divergence(counts, edge) for edge in edges}
    chosen = min(found, key=lambda limit: abs(limit - range_of(histogram, "entropy")))
    assert chosen == pytest.approx(range_of(histogram, "entropy"))
    assert found[chosen] == pytest.approx(min(found.values()), abs=1e-12)


def test_an_outlier_moves_max_and_mse():
    histogram = histogram_of(drawn("outlier"), 2048)
    found = {name: range_of(histogram, name) for name in CALIBRATORS}
    assert found["max"] == 60 and found["percentile"] < 5 and found["entropy"] < 5
    assert 50 < found["mse"] < 60  # The square of what is clipped weighs more than 20,000 finer values.


@settings(max_examples=25, deadline=None)
@given(
    arrays.arrays(np.int64, st.integers(128, 160), elements=st.integers(0, 10**6)),
    st.floats(1e-6, 1e6),
    st.sampled_from(sorted(CALIBRATORS)),
)
def test_a_range_is_above_zero_and_at_most_the_largest(counts, largest, calibrator):
    if not counts.any():
        largest = 1.0
    found = range_of(Histogram(counts, largest), calibrator)
    assert 0 < found <= largest * (1 + 1e-12)


@pytest.mark.parametrize("calibrator", sorted(CALIBRATORS))
def test_a_tensor_of_zeros_has_the_range_1(calibrator):
    assert range_of(Histogram(np.zeros(2048, np.int64), 0.0), calibrator) == 1.0


def test_the_names_are_those_of_the_options_and_another_is_one_line():
    assert set(CALIBRATORS) == set(config.CALIBRATORS)
    with pytest.raises(SsdtrtError, match="^Unknown calibrator 'mean'; expected [a-z ]+[.]$"):
        range_of(histogram_of(drawn("normal")), "mean")
