"""Build processes that are forked from the one that starts them: it has imported what an interpreter needs seconds for."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
import types
import warnings

import pytest

from ssdtrt.engine import build, worker
from ssdtrt.system.child import python_command


def fork(function):
    """Start a process that is a copy of this one, runs a function and ends with the code that it returns; its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of forks where there are threads.
        pid = os.fork()
    if not pid:
        code = 1
        try:
            code = function() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def forked(function):
    """Run a function in a copy of this process; its exit code, 0 unless it raised."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(function), 0)[1])


class ForkedProcess:
    """A forked process that runs `ssdtrt.engine.worker`, with what `build_in_child` uses of subprocess.Popen."""

    def __init__(self, command, stdin, stdout, stderr, env):
        assert command[:4] == python_command("ssdtrt.engine.worker") and stdin == subprocess.DEVNULL

        def run():
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)
            os.environ.clear()
            os.environ.update(env)
            code = worker.main(command[-1])
            sys.stdout.flush()
            return code

        self.returncode, self.pid = None, fork(run)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (timeout or 60)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("ssdtrt.engine.worker", timeout)
            time.sleep(0.02)
        return self.returncode

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def fork_builds():
    """Fork the build processes of this process from now on."""
    build.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": ForkedProcess})


@pytest.fixture
def separate_builds(monkeypatch):
    """Build processes are interpreters of their own, as for a user."""
    monkeypatch.setattr(build, "subprocess", subprocess)
