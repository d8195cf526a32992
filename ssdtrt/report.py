"""One HTML page of saved reports: what was built, where, how fast, how near to FP32, how accurate. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import ReportError
from ssdtrt.reporting.records import PageReport
from ssdtrt.system.files import as_list, write_text
from ssdtrt.system.outputs import check_output

_SUFFIXES = (".html", ".htm")


def write_page(files: str | Path | Sequence[str | Path], output: str | Path = config.PAGE_FILE) -> Path:
    """Write one self-contained HTML page of reports: no script, and nothing that a browser would fetch.

    Args:
        files: JSON files that the commands wrote: of bench, verify, evaluate, run, profile, inspect and compare, and the
            detections.json of detect, whose pictures are embedded where they can still be read.
        output: The page, which ends with `.html`.

    Returns:
        The path of the page.

    Raises:
        ReportError: If a file is none of these, or the page cannot be written.

    Example:
        >>> from ssdtrt import write_page
        >>> write_page(["bench.json", "accuracy.json"], "report.html").name
        'report.html'
    """
    return Path(make_page(files, output).file)


def make_page(files: str | Path | Sequence[str | Path], output: str | Path = config.PAGE_FILE) -> PageReport:
    """Write a page as `write_page` does, and return what it was made of and what it lacks."""
    path, files = Path(output), as_list(files)
    if path.suffix.lower() not in _SUFFIXES:
        raise ReportError(f"{path} names no page; expected a name that ends with {' or '.join(_SUFFIXES)}.")
    if not files:
        raise ReportError("No report was given; expected at least one JSON file, such as that of ssdtrt bench --json.")
    check_output(path)
    from ssdtrt.reporting.page import page
    from ssdtrt.reporting.sources import read_source

    text, missing = page([read_source(file) for file in files])
    write_text(path, text)
    return PageReport(str(path), tuple(map(str, files)), missing)
