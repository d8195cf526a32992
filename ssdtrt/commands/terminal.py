"""Progress, notes and hints on stderr, and the width of the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
import unicodedata

_INTERVAL = 15.0  # seconds between two lines of one step if stderr is not a terminal


class Terminal:
    """Writes progress, notes and hints to stderr.

    Progress is one line that is overwritten on a terminal, and a line for each step and every 15 s elsewhere.
    """

    def __init__(self) -> None:
        self.begin(quiet=False)

    def begin(self, quiet: bool) -> None:
        """Start with the current streams; `quiet` turns progress and hints off."""
        _open_closed()
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._step, self._shown_at, self._open = "", 0.0, False

    def progress(self, text: str) -> None:
        """Show how far a step is. A step is known by its first words, up to a comma or a bracket."""
        if self._quiet:
            return
        text = printable(text)
        if self._live:
            sys.stderr.write("\r\x1b[K" + text[: columns() - 1])
            sys.stderr.flush()
            self._open = True
            return
        step = text.split(",")[0].split("[")[0].rstrip()
        if step != self._step or time.monotonic() - self._shown_at > _INTERVAL:
            self._step, self._shown_at = step, time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Show a line, also when quiet."""
        self.done()
        print(f"note: {printable(text)}", file=sys.stderr, flush=True)

    @property
    def hints(self) -> bool:
        """Whether hints are shown."""
        return not self._quiet and sys.stdout.isatty()

    def hint(self, *words: object) -> None:
        """Show the command that usually comes next, unless there is none, or quiet or stdout is not a terminal."""
        self.done()
        if words and self.hints:
            print(printable(f"next: ssdtrt {shlex.join(map(str, words))}"), file=sys.stderr, flush=True)

    def done(self) -> None:
        """Clear the progress line."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False

    @staticmethod
    def width() -> int:
        """Return the columns of the terminal, or a large number if stdout is not a terminal."""
        return columns() if sys.stdout.isatty() else 10_000


def printable(text: str, but: str = "") -> str:
    """Return a text with escapes for what a terminal would act on, as file names may have: a line stays one line.

    Args:
        text: The text.
        but: Characters that stay, such as the ends of its lines.
    """
    return "".join(
        char if char.isprintable() or char in but or unicodedata.category(char) == "Zs" else ascii(char)[1:-1]
        for char in text
    )


def take_any_name() -> None:
    """Make stdout accept file names that are not valid text: they are shown escaped."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_closed() -> None:
    """Replace standard streams that the caller closed, as a daemon may, by the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def columns() -> int:
    """Return the columns of the terminal; a pseudo-terminal may report 0, which counts as 80."""
    return shutil.get_terminal_size().columns or 80
