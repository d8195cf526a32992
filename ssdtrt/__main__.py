"""The process of the command `ssdtrt`, which is also `python -m ssdtrt`."""

import contextlib
import os
import sys
import threading

from ssdtrt.config import INTERRUPTED


def start() -> None:
    """Run the command line. After Ctrl-C or SIGTERM the process ends at once: unloading torch takes half a second.

    So it does where a thread is left that still reads: Python and torch abort where they are unloaded under it.
    """
    try:
        from ssdtrt.cli import main  # Here, because Ctrl-C may come meanwhile.
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED[False])
    try:
        main(prog_name="ssdtrt")
    except SystemExit as end:
        if end.code in INTERRUPTED or any(
            thread.daemon and thread.name.startswith("ssdtrt") for thread in threading.enumerate()
        ):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(int(end.code or 0))
        raise


if __name__ == "__main__":
    start()
