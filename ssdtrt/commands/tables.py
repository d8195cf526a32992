"""Text for a terminal: tables where there is room, lists where there is not, and figures in few digits."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ssdtrt.artifact.parity_report import DetectionAgreement

_NARROWEST = 20  # columns, below which nothing is wrapped


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Return rows under a header, the first column left and the others right; a list where that is wider than `width`."""
    columns = list(zip(header, *rows))
    sizes = [max(map(len, column)) for column in columns]
    if sum(sizes) + 2 * (len(sizes) - 1) > width:
        return "\n\n".join(stacked(header, row) for row in rows)
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(sizes[0]), *(cell.rjust(size) for cell, size in zip(row[1:], sizes[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def stacked(header: Sequence[str], row: Sequence[str]) -> str:
    """Return one row as `name: value` lines under its first value."""
    return "\n".join([row[0], *(f"  {name}: {cell}" for name, cell in zip(header[1:], row[1:]))])


def fill(text: str, width: int, indent: str = "", hanging: str | None = None) -> str:
    """Return a line broken at its spaces into lines no wider than `width`.

    Args:
        text: The line; a word that is longer than `width` stays whole.
        width: The columns of the terminal.
        indent: What every line begins with.
        hanging: What the lines after the first begin with instead.
    """
    return textwrap.fill(
        text,
        max(width, _NARROWEST),
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def shorten(name: str, width: int) -> str:
    """Return the name, its end cut off where it is longer than `width`."""
    return name if len(name) <= width else name[: width - 3].rstrip() + "..."


def milliseconds(value: float) -> str:
    """Return a time with three significant digits or more."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def match_rate(found: DetectionAgreement) -> str:
    """Return the match rate of detections in percent, or in words where there is nothing to compare."""
    return "none to compare" if found.match_rate is None else f"{100 * found.match_rate:.1f} %"
