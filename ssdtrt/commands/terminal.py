"""Progress, notes and hints on stderr, and the columns that a terminal has."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time

_INTERVAL = 15.0  # seconds between two lines of a step where stderr is not a terminal


class Terminal:
    """Progress on stderr: one line that is written over on a terminal, a line now and then elsewhere, none when quiet."""

    def __init__(self) -> None:
        self.begin(quiet=False)

    def begin(self, quiet: bool) -> None:
        """Start again with the streams that there are now."""
        _open_closed()
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._step, self._shown_at, self._open = "", 0.0, False

    def progress(self, text: str) -> None:
        """Show how far a step is. A step is known by its first words, up to a comma or a bracket."""
        if self._quiet:
            return
        if self._live:
            sys.stderr.write("\r\x1b[K" + text[: columns() - 1])
            sys.stderr.flush()
            self._open = True
            return
        step = text.split(",")[0].split("[")[0]
        if step != self._step or time.monotonic() - self._shown_at > _INTERVAL:
            self._step, self._shown_at = step, time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Show a line that must be seen, also when quiet."""
        self.done()
        print(f"note: {text}", file=sys.stderr, flush=True)

    def hint(self, *words: object) -> None:
        """Show the command that usually comes next; not when quiet or when stdout is no terminal."""
        self.done()
        if not self._quiet and sys.stdout.isatty():
            print(f"next: ssdtrt {shlex.join(map(str, words))}", file=sys.stderr, flush=True)

    def done(self) -> None:
        """Clear the progress line."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False

    @staticmethod
    def width() -> int:
        """Return the columns for a table: the terminal's, and no limit where stdout is none."""
        return columns() if sys.stdout.isatty() else 10_000


def take_any_name() -> None:
    """Let the streams take every file's name: one that is not valid text is read as it is, and shown escaped."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _open_closed() -> None:
    """Open a stream that the caller closed, as a daemon may: nothing is read there, and what is written is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def columns() -> int:
    """Return the terminal's columns; a pseudo-terminal may report 0."""
    return shutil.get_terminal_size().columns or 80
