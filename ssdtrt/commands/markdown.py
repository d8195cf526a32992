"""Results as GitHub's Markdown, and where a job of GitHub Actions shows it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
SUMMARY = "GITHUB_STEP_SUMMARY"  # set by GitHub Actions: the file whose text is shown with the job
SPECIAL = re.compile(r"([\\|`*_<>\[\]~$&])")


def escape(text: str) -> str:
    """Text that shows as it is, on one line, also in a table."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column left and the others right."""
    marks = ["---", *["--:"] * (len(header) - 1)]
    lines = [[escape(cell) for cell in header], marks, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(title: str, about: Sequence[str], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A heading, what the figures are of, the tables (a header and rows), and a list of notes; ends with a line end."""
    parts = [f"### {escape(title)}", *map(escape, about), *(table(header, rows) for header, rows in tables)]
    if notes:
        parts.append("\n".join(f"- {escape(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def append_summary(text: str) -> str | None:
    """Adds the text to the summary of a GitHub job, where there is one; the reason where that failed."""
    path = os.environ.get(SUMMARY)
    if not path:
        return None
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        return f"the job's summary {path} cannot be written: {error.strerror or error}"
    return None
