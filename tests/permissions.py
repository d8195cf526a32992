"""Permissions that bind: an ordinary user, and a folder that may not be written."""

import codecs
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534


@contextlib.contextmanager
def as_ordinary_user():
    """Inside the block permissions bind, also for root."""
    if os.geteuid() != 0:
        yield
        return
    codecs.lookup("cp437")  # Of zipfile: the other user may not be able to read this Python's library.
    try:
        os.setresuid(NOBODY, NOBODY, 0)
    except (AttributeError, OSError):
        pytest.skip("root may write anywhere, and cannot become another user here")
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def closed_folder():
    """A folder that may be read and entered, but not written."""
    folder = Path(tempfile.mkdtemp(prefix="ssdtrt-test-"))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)
