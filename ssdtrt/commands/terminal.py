"""How the command line speaks: a progress line on stderr, hints, and the width there is."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time

QUIET_INTERVAL = 15.0  # seconds between progress lines where stderr is not a terminal


class Terminal:
    """Progress on stderr: one line that is written over on a terminal, a line now and then elsewhere, none when quiet."""

    def __init__(self):
        self.begin(quiet=False)

    def begin(self, quiet: bool) -> None:
        """Starts afresh with the streams there are now."""
        open_closed()
        self.quiet = quiet
        self.live = sys.stderr.isatty()
        self.doing, self.shown_at, self.open = "", 0.0, False

    def progress(self, text: str) -> None:
        """Says how far a step is. A step is known by its first words, up to a comma or a bracket."""
        if self.quiet:
            return
        if self.live:
            sys.stderr.write("\r\x1b[K" + text[: columns() - 1])
            sys.stderr.flush()
            self.open = True
            return
        doing = text.split(",")[0].split("[")[0]
        if doing != self.doing or time.monotonic() - self.shown_at > QUIET_INTERVAL:
            self.doing, self.shown_at = doing, time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that must be seen, also when quiet."""
        self.done()
        print(f"note: {text}", file=sys.stderr, flush=True)

    def hint(self, *words: object) -> None:
        """The command of ours that usually comes next, word by word; not when quiet or when stdout goes elsewhere."""
        self.done()
        if not self.quiet and sys.stdout.isatty():
            print(f"next: ssdtrt {shlex.join(map(str, words))}", file=sys.stderr, flush=True)

    def done(self) -> None:
        """Clears the progress line."""
        if self.open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self.open = False

    @staticmethod
    def width() -> int:
        """Columns for a table: the terminal's, and no limit where stdout goes elsewhere."""
        return columns() if sys.stdout.isatty() else 10_000


def open_closed() -> None:
    """Python has no stream where the caller closed one, as a daemon may; then nothing is read, and what is said is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def lenient() -> None:
    """Lets the streams take every file's name: one that is not valid text here is read as it is, and shown escaped."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def columns() -> int:
    """The terminal's columns; a pseudo-terminal may say that it has none."""
    return shutil.get_terminal_size().columns or 80
