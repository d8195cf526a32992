"""Numbers as text, the same in a terminal and on a page."""

from __future__ import annotations

from ssdtrt.artifact.parity_report import DetectionAgreement


def milliseconds(value: float) -> str:
    """Return a time in milliseconds with at least three significant digits."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def match_rate(found: DetectionAgreement) -> str:
    """Return the match rate of detections in percent, or a phrase where neither side has any."""
    return "none to compare" if found.match_rate is None else f"{100 * found.match_rate:.1f} %"


def scientific(value: float | None, digits: int) -> str:
    """Return a distance in scientific notation, or a dash if an output is not finite."""
    return "-" if value is None else f"{value:.{digits}e}"


def throughput(images_per_second: float) -> str:
    """Return a number of images a second with at least three significant digits from 1."""
    decimals = 0 if images_per_second >= 100 else 1 if images_per_second >= 10 else 2
    return f"{images_per_second:,.{decimals}f}"


def fraction(value: float | None) -> str:
    """Return a figure of 0..1 with three decimals, as COCO does."""
    return "-" if value is None else f"{value:.3f}"


def difference(value: float | None) -> str:
    """Return the signed difference of two such figures."""
    return "-" if value is None else f"{value:+.4f}"
