"""The settings of a detector, checked before any work."""

from __future__ import annotations

import math
from numbers import Integral, Real

from ssdtrt.errors import SsdtrtError
from ssdtrt.images.levels import ValueRange


def check_settings(
    threshold: float,
    max_detections: int = 1,
    workers: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
) -> None:
    """Check the settings of a Detector.

    Raises:
        SsdtrtError: For one out of its range.
    """
    if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise SsdtrtError(f"The threshold is {threshold!r}; expected a number of 0..1.")
    counts = {"max_detections": max_detections, "workers": workers, "max_pixels": max_pixels}
    for name, count in counts.items():
        if count is not None and not (isinstance(count, Integral) and count >= 1):
            raise SsdtrtError(f"{name} is {count!r}; expected a whole number from 1 up.")
    try:
        low, high = map(float, (0, 1) if value_range is None else value_range)
    except (TypeError, ValueError):
        low, high = math.inf, -math.inf
    if not -math.inf < low < high < math.inf:
        raise SsdtrtError(f"The range of values is {value_range!r}; expected two numbers, the lower one first.")
