"""Calibrators: how large the values of a tensor may be, from the histogram of its absolute values. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssdtrt import config
from ssdtrt.errors import SsdtrtError

BINS = 2048
_PERCENTILE = 99.99
_FIRST = 128  # the smallest threshold that is tried, in bins: below, the levels are finer than the bins
_CHUNK = 64  # thresholds that `_mse` tries at once


@dataclass(frozen=True)
class Histogram:
    """How often the absolute values of a tensor lie in each of equally wide bins. Zeros, which INT8 has, do not count.

    Attributes:
        counts: The counts [B].
        largest: The largest absolute value: the upper edge of the last bin.
    """

    counts: np.ndarray
    largest: float

    @property
    def centers(self) -> np.ndarray:
        """The middles of the bins [B]."""
        return (np.arange(len(self.counts)) + 0.5) * self.largest / len(self.counts)


def _max(histogram: Histogram) -> float:
    """The largest value: nothing is clipped."""
    return histogram.largest


def _percentile(histogram: Histogram) -> float:
    """The upper edge of the first bin with which 99.99 % of the values are covered."""
    covered = np.cumsum(histogram.counts)
    first = int(np.searchsorted(covered, covered[-1] * _PERCENTILE / 100))
    return (first + 1) * histogram.largest / len(histogram.counts)


def _mse(histogram: Histogram) -> float:
    """The threshold with the smallest mean squared error of the quantized values."""
    counts, values = histogram.counts.astype(np.float64), histogram.centers
    thresholds = np.arange(_FIRST, len(counts) + 1) * histogram.largest / len(counts)
    errors = [
        _squared_errors(counts, values, part) for part in np.split(thresholds, range(_CHUNK, len(thresholds), _CHUNK))
    ]
    return float(thresholds[int(np.argmin(np.concatenate(errors)))])


def _squared_errors(counts: np.ndarray, values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the sum of the squared errors of the values [B] for each threshold [T]."""
    scales = thresholds[:, None] / config.INT8_LEVELS
    quantized = np.minimum(np.round(values / scales), config.INT8_LEVELS) * scales
    return ((quantized - values) ** 2) @ counts


def _entropy(histogram: Histogram) -> float:
    """The threshold with the smallest Kullback-Leibler divergence of the quantized distribution from the true one.

    After "8-bit Inference with TensorRT" (Migacz, GTC 2017): the true distribution has what lies beyond the threshold in
    its last bin; the quantized one has 128 levels, each spread evenly over those of its bins that are not empty.
    """
    counts = histogram.counts.astype(np.float64)
    beyond = counts.sum() - np.cumsum(counts)
    divergences = [_divergence(counts[:bins], beyond[bins - 1]) for bins in range(_FIRST, len(counts) + 1)]
    return (_FIRST + int(np.argmin(divergences))) * histogram.largest / len(counts)


def _divergence(counts: np.ndarray, beyond: float) -> float:
    """Return the divergence for a threshold at the end of `counts`; infinite where a level would lose all its values."""
    level = np.arange(len(counts)) * (config.INT8_LEVELS + 1) // len(counts)
    filled = counts > 0
    totals, places = np.bincount(level, counts), np.bincount(level, filled)
    quantized = np.where(filled, totals[level] / np.maximum(places, 1)[level], 0)
    true = counts.copy()
    true[-1] += beyond
    true, quantized = true / true.sum(), quantized / max(quantized.sum(), 1)
    some = true > 0
    if (quantized[some] == 0).any():
        return float("inf")
    return float((true[some] * np.log(true[some] / quantized[some])).sum())


CALIBRATORS: dict[str, Callable[[Histogram], float]] = {
    "entropy": _entropy,
    "percentile": _percentile,
    "mse": _mse,
    "max": _max,
}


def range_of(histogram: Histogram, calibrator: str) -> float:
    """Return the range of a tensor: the absolute value that becomes 127; larger ones are clipped to it.

    Args:
        histogram: The histogram of its absolute values; `entropy` and `mse` need at least 128 bins.
        calibrator: `entropy`, `percentile` (99.99 % of the values), `mse` or `max`.

    Returns:
        The range, above 0. For a tensor of zeros it is 1.

    Raises:
        SsdtrtError: If there is no such calibrator.
    """
    if calibrator not in CALIBRATORS:
        raise SsdtrtError(f"Unknown calibrator {calibrator!r}; expected {' or '.join(CALIBRATORS)}.")
    if not histogram.counts.any():
        return 1.0
    return CALIBRATORS[calibrator](histogram)
