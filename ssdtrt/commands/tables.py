"""Text for terminals: tables, or lists if the terminal is narrow, and numbers with few digits."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ssdtrt import config
from ssdtrt.artifact.parity_report import DetectionAgreement, Repeatability

LAYER_COLUMNS = 48
"""The columns of a layer's name."""
_MIN_WIDTH = 20  # columns; narrower terminals are treated as if they had these


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Return a table, the first column aligned left and the others right, or a list if it is wider than `width`."""
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
    """Return one row as its first value and, below it, `name: value` lines."""
    return "\n".join([row[0], *(f"  {name}: {cell}" for name, cell in zip(header[1:], row[1:]))])


def fill(text: str, width: int, indent: str = "", hanging: str | None = None) -> str:
    """Return a text broken at its spaces into lines of at most `width` columns.

    Args:
        text: The text. Words longer than `width` are not broken.
        width: The columns of the terminal.
        indent: The beginning of every line.
        hanging: Another beginning for the lines after the first.
    """
    return textwrap.fill(
        text,
        max(width, _MIN_WIDTH),
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def shorten(name: str, width: int) -> str:
    """Return a name, shortened to at most `width` characters."""
    return name if len(name) <= width else name[: width - 3].rstrip() + "..."


def milliseconds(value: float) -> str:
    """Return a time in milliseconds with at least three significant digits."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def match_rate(found: DetectionAgreement) -> str:
    """Return the match rate of detections in percent, or a phrase if there is nothing to compare."""
    return "none to compare" if found.match_rate is None else f"{100 * found.match_rate:.1f} %"


def scientific(value: float | None, digits: int) -> str:
    """Return a distance in scientific notation, or a dash if an output is not finite."""
    return "-" if value is None else f"{value:.{digits}e}"


def repeatability_lines(found: Repeatability | None, width: int) -> list[str]:
    """Return a line about the places of a batch and one about a second run; none if they were not measured."""
    if found is None:
        return []
    graph = "" if found.cuda_graph is None else f", as a CUDA graph {found.cuda_graph:.1e}"
    sizes = ", ".join(map(str, found.batch_sizes))
    lines = (
        f"in a batch of {sizes} against alone: {found.in_batch:.1e} (bound {found.batch_bound:.1e})",
        f"run again: {found.again:.1e}{graph} (bound {config.REPEAT_BOUND:.0e})",
    )
    return [fill(line, width) for line in lines]
