"""Runs of the command line in processes forked from this one, which has imported all that they need."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings

import narrow as network
from forked_builds import fork

from ssdtrt import __main__, config
from ssdtrt.engine import build


def begin(
    folder, arguments, terminal=None, stdin=os.devnull, stdout="stdout", file_size=None, narrow=False, **environment
):
    """Start a command in a folder, as the shell would; its process's number.

    All streams are the terminal's where its number is given. Else stdin is read from a path, stderr goes to
    `folder`/stderr and stdout to the path given, or, for "closed", to a pipe that nobody reads. No file may become larger
    than `file_size` bytes, where that is given. The network is as wide as it is, or `narrow`. There is no HOME.
    """

    def run():
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        files = [terminal] * 3 if terminal else [os.open(stdin, os.O_RDONLY), _output(stdout), _output("stderr")]
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 1024)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
        if file_size:
            import resource  # Not on Windows.

            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        for name in ("HOME", "COLUMNS"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        tempfile.tempdir = None  # It is that of TMPDIR.
        warnings.simplefilter("ignore")
        logging.root.handlers.clear()  # Their streams were those of an earlier command.
        config.PARITY_IMAGES = 8
        build.subprocess = subprocess
        sys.argv = ["ssdtrt", *map(str, arguments)]
        with contextlib.nullcontext() if narrow else network.full_width():
            return _run()

    return fork(run)


def _output(path):
    """The number of an open file to write to."""
    if path == "closed":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    return os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)


def _run():
    """The command's exit code. What is still to be written is written, as by the interpreter at its end.

    It would also free all that is imported, which takes half a second.
    """
    try:
        __main__.start()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        return end.code


def end(process):
    """Wait for it; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
