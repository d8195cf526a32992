"""The process of the command `ssdtrt`, which is also `python -m ssdtrt`."""

import contextlib
import os
import sys

from ssdtrt.cli import main
from ssdtrt.config import INTERRUPTED


def start() -> None:
    """Run the command line. After Ctrl-C or SIGTERM the process ends at once: unloading torch takes half a second."""
    try:
        main(prog_name="ssdtrt")
    except SystemExit as end:
        if end.code in INTERRUPTED:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(end.code)
        raise


if __name__ == "__main__":
    start()
