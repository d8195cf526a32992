"""Bars and lines as inline SVG that fits any width: horizontal positions are percentages, and texts keep their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple
from xml.etree import ElementTree

from ssdtrt.reporting.elements import element

_SERIES = 7  # colors of the style sheet, after which they repeat
_DASHES = ("none", "7 4", "2 3", "10 4 2 4")
_MARKERS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",  # circle
    "M-4,-4h8v8h-8z",  # square
    "M0,-5l5,9h-10z",  # triangle
    "M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z",  # diamond
)
_LEFT, _RIGHT = 14.0, 97.0  # percent, between which the lines are
_TOP, _BOTTOM, _HEIGHT = 24.0, 236.0, 262.0  # pixels
_STEPS = (1, 2, 5)  # of a decade, that are numbered
_FINE_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # where all values are within a decade
_LABEL_ROOM = 9.0  # percent, for a number below the axis


class Bar(NamedTuple):
    """A bar, and what stands above it."""

    name: str
    value: float
    text: str
    strong: bool = False


def bars(title: str, rows: Sequence[Bar]) -> ElementTree.Element:
    """Return bars from 0 to the largest value, each below its name and its value as text."""
    largest = max(row.value for row in rows)
    items = []
    for row in rows:
        length = f"{100 * row.value / largest:.2f}%"
        track = element("rect", width="100%", height="100%", class_="track")
        filled = element("rect", width=length, height="100%", class_="bar strong" if row.strong else "bar")
        picture = element("svg", track, filled, width="100%", height="14", aria_hidden="true")
        name, text = element("span", row.name, class_="name"), element("span", row.text, class_="value")
        items.append(element("li", element("div", name, " ", text, class_="label"), picture))
    return element("figure", element("figcaption", title), element("ul", *items, class_="bars"))


Points = Sequence[tuple[int, float]]


def lines(title: str, series: Mapping[str, Points], text: Callable[[float], str]) -> ElementTree.Element:
    """Return lines over the batch size on logarithmic axes, without the names (see `legend`).

    Args:
        title: What is drawn, and its unit.
        series: The points (batch size, value) of each line, in ascending order.
        text: A value with its unit.
    """
    sizes = sorted({size for points in series.values() for size, _ in points})
    values = [value for points in series.values() for _, value in points]
    low, high = min(values) / 1.05, max(values) * 1.05
    x = _scale(sizes[0], sizes[-1], _LEFT, _RIGHT)
    y = _scale(low, high, _BOTTOM, _TOP)
    summary = f"{title}. " + "; ".join(
        f"{name}: " + ", ".join(f"batch {size} {text(value)}" for size, value in points)
        for name, points in series.items()
    )
    # The same numbers are in the table below; a reader that cannot see the lines gets them here too.
    picture = element("svg", role="img", aria_label=summary, width="100%", height=f"{_HEIGHT:g}")
    for tick in _ticks(low, high):
        at = f"{y(tick):.1f}"
        picture.append(element("line", x1="0", x2="100%", y1=at, y2=at, class_="grid"))
        picture.append(element("text", f"{tick:,.10g}", x="0", y=f"{y(tick) - 4:.1f}"))
    for size in _with_room(sizes, x):
        picture.append(element("text", str(size), x=f"{x(size):.2f}%", y=f"{_BOTTOM + 19:g}", text_anchor="middle"))
    for index, (name, points) in enumerate(series.items()):
        picture.append(_line(index, name, points, x, y, text))
    axis = element("p", "batch size, images; both axes are logarithmic", class_="axis")
    return element("figure", element("figcaption", title), picture, axis)


def _line(
    index: int,
    name: str,
    points: Points,
    x: Callable[[float], float],
    y: Callable[[float], float],
    text: Callable[[float], str],
) -> ElementTree.Element:
    """A line and its markers, each with its value as a tooltip."""
    group = element("g", class_=f"s{index % _SERIES}")
    for (size, value), (next_size, next_value) in pairwise(points):
        group.append(
            element(
                "line",
                x1=f"{x(size):.2f}%",
                y1=f"{y(value):.1f}",
                x2=f"{x(next_size):.2f}%",
                y2=f"{y(next_value):.1f}",
                class_="line",
                stroke_dasharray=_DASHES[index % len(_DASHES)],
            )
        )
    for size, value in points:
        title = element("title", f"{name}, batch {size}: {text(value)}")
        mark = element("path", title, d=_MARKERS[index % len(_MARKERS)], class_="mark")
        group.append(element("svg", mark, x=f"{x(size):.2f}%", y=f"{y(value):.1f}", overflow="visible"))
    return group


def legend(names: Sequence[str]) -> ElementTree.Element:
    """Return the names of lines, each with its color, dashes and marker."""
    items = []
    for index, name in enumerate(names):
        dashes, marker = _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)]
        line = element("line", x1="-16", x2="16", y1="0", y2="0", class_="line", stroke_dasharray=dashes)
        mark = element("path", d=marker, class_="mark")
        sample = element(
            "svg", line, mark, viewbox="-18 -8 36 16", width="36", height="16", class_=f"s{index % _SERIES}",
            aria_hidden="true",
        )  # fmt: skip
        items.append(element("li", sample, " ", name))
    return element("ul", *items, class_="legend")


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The logarithmic place of a value between `start` and `end`; the middle where there is one value only."""
    span = math.log(high / low)
    return lambda value: start + (end - start) * (math.log(value / low) / span if span else 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """The round values from `low` to `high`."""
    steps = _STEPS if high > 10 * low else _FINE_STEPS
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def _with_room(sizes: Sequence[int], x: Callable[[float], float]) -> list[int]:
    """The batch sizes whose numbers fit beside each other: the largest, and those far enough left of it."""
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if x(kept[-1]) - x(size) >= _LABEL_ROOM:
            kept.append(size)
    return kept
