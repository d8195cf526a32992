"""Tests of writing files completely or not at all, and of their SHA-256."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from permissions import as_ordinary_user, closed_folder  # noqa: F401

from ssdtrt.system.digests import sha256_file
from ssdtrt.system.files import (
    BusyError,
    check_writable,
    decode_text,
    fcntl,
    open_exclusive,
    remove_unused,
    replacing,
    write_text,
)
from ssdtrt.system.progress import silent

FLOCK = fcntl and fcntl.flock


@pytest.fixture
def umask():
    """Restore the umask after the test."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_replacing_makes_a_new_file(tmp_path):
    with replacing(tmp_path / "new.bin") as temporary:
        temporary.write_bytes(b"new")
        assert not (tmp_path / "new.bin").exists()
    assert (tmp_path / "new.bin").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["new.bin"]


def test_old_file_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path and temporary.name.startswith(".")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(error, match="half way"):
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the new")
            raise error("half way")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_makes_no_new_file(tmp_path, error):
    with pytest.raises(error):
        with replacing(tmp_path / "new.bin") as temporary:
            temporary.write_bytes(b"half")
            raise error
    assert os.listdir(tmp_path) == []


def test_temporary_file_that_was_removed(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        with replacing(path) as temporary:
            temporary.unlink()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("mask, expected", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mask, expected):
    umask(mask)
    path = tmp_path / "file.bin"
    for content in (b"first", b"second"):
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        assert permissions(path) == expected
    assert os.umask(mask) == mask


def test_the_umask_is_not_changed_for_other_threads(tmp_path, umask, monkeypatch):
    umask(0o027)
    with monkeypatch.context() as without:
        without.delattr(os, "umask")
        with replacing(tmp_path / "file.bin") as temporary:
            temporary.write_bytes(b"new")
    assert permissions(tmp_path / "file.bin") == 0o640


def test_temporary_file_is_nobody_elses(tmp_path, umask):
    umask(0)
    with replacing(tmp_path / "file.bin") as temporary:
        assert permissions(temporary) == 0o600


def test_two_writers_of_one_file(tmp_path):
    path = tmp_path / "file.bin"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_name_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_replacing_in_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        with replacing(tmp_path / "missing" / "file.bin"):
            pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == []


def test_replacing_in_a_closed_folder(closed_folder):  # noqa: F811
    with as_ordinary_user(), pytest.raises(PermissionError):
        with replacing(closed_folder / "file.bin"):
            pytest.fail("the block must not run")
    assert os.listdir(closed_folder) == []


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replacing("file.bin") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "file.bin").read_bytes() == b"new"


@settings(max_examples=40, deadline=None)
@given(old=st.none() | st.binary(max_size=300), new=st.binary(max_size=300))
def test_any_content_is_replaced_whole(old, new):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.bin")
        if old is not None:
            path.write_bytes(old)
        with replacing(path) as temporary:
            temporary.write_bytes(new)
        assert path.read_bytes() == new
        assert os.listdir(folder) == ["file.bin"]


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=60))
def test_text_is_utf8(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.json")
        write_text(path, text)
        assert path.read_bytes().decode("utf-8").replace(os.linesep, "\n") == text


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process there")
def test_an_error_while_text_is_written_names_the_file(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_text(tmp_path / "report.json", "more than eight bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "report.json") and os.listdir(tmp_path) == []


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=500))
def test_sha256_is_hashlibs(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.bin")
        path.write_bytes(content)
        assert sha256_file(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3_000_000])
def test_sha256_of_a_large_file(tmp_path, size):
    content = (b"0123456789" * (size // 10 + 1))[:size]
    (tmp_path / "large.bin").write_bytes(content)
    assert sha256_file(tmp_path / "large.bin") == hashlib.sha256(content).hexdigest()


def test_sha256_known_values(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(str(path)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"")
    assert sha256_file(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_writable_paths(tmp_path):
    (tmp_path / "there.ts").write_bytes(b"old")
    assert check_writable(tmp_path / "there.ts") is None
    assert check_writable(str(tmp_path / "new.ts")) is None
    assert os.listdir(tmp_path) == ["there.ts"]


def test_unwritable_directory_as_file(tmp_path):
    assert check_writable(tmp_path) == "it is a directory"


def test_unwritable_without_folder(tmp_path):
    assert check_writable(tmp_path / "no" / "file.ts") == f"there is no directory {tmp_path / 'no'}"


def test_unwritable_below_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert check_writable(tmp_path / "file" / "x.ts") == f"there is no directory {tmp_path / 'file'}"


def test_unwritable_folder(closed_folder):  # noqa: F811
    with as_ordinary_user():
        found = check_writable(closed_folder / "file.ts")
    assert found == f"the directory {closed_folder} is not writable"


def test_silent_shows_nothing(capsys):
    silent("half way")
    assert capsys.readouterr() == ("", "")


# Writers that have ended, and writers that still run


WRITER = """
import sys, time
from ssdtrt.system.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Return a process in the middle of writing `file.bin`; it is killed after the test."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "file.bin")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path, writer):
    (tmp_path / "file.bin").write_text("old")
    others = [tmp_path / ".file.bin.tmp", tmp_path / ".other.bin.1.x.tmp"]
    for other in others:
        other.write_text("of someone else")
    writer.kill()
    writer.wait()
    assert len(list(tmp_path.iterdir())) == 4 and (tmp_path / "file.bin").read_text() == "old"
    with replacing(tmp_path / "file.bin", exclusive=True) as temporary:
        assert sorted(tmp_path.iterdir()) == sorted([*others, temporary, tmp_path / "file.bin"])
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "file.bin"])
    assert (tmp_path / "file.bin").read_text() == "new"


def test_a_writer_that_must_be_alone(tmp_path, writer):
    """An exclusive writer is refused, another is not, and neither changes the file of the first."""
    with pytest.raises(BusyError, match=f"another process is writing {tmp_path / 'file.bin'}"):
        with replacing(tmp_path / "file.bin", exclusive=True):
            raise AssertionError("not reached")
    with replacing(tmp_path / "file.bin") as temporary:
        temporary.write_text("mine")
    with replacing(tmp_path / "another.bin", exclusive=True) as temporary:
        temporary.write_text("apart")
    assert (tmp_path / "file.bin").read_text() == "mine"
    (left,) = tmp_path.glob(".*.tmp")
    assert left.read_text() == "half" and writer.poll() is None


def as_nfs_locks(file, how):
    """What flock(2) says of NFS: who locks a file for itself alone must have it open for writing."""
    if how & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    FLOCK(file, how)


def no_locks(file, how):
    """What flock does on Lustre that is mounted without its option for it."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.skipif(fcntl is None, reason="there are no such locks")
@pytest.mark.parametrize("flock", [as_nfs_locks, no_locks])
def test_network_file_systems(tmp_path, writer, monkeypatch, flock):
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BusyError), replacing(tmp_path / "file.bin", exclusive=True):
        raise AssertionError("not reached")
    writer.kill()
    writer.wait()
    with replacing(tmp_path / "file.bin", exclusive=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file.bin").read_text() == "new"
    # Without locks nobody knows whether it is another machine that writes.
    assert len(list(tmp_path.glob(".*.tmp"))) == (flock is no_locks)
    with open_exclusive(tmp_path / "file.bin") as file:
        file.write(b"newer")
    remove_unused(tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_a_folder_of_many_is_not_looked_through(tmp_path, writer):
    writer.kill()
    writer.wait()
    with replacing(tmp_path / "file.bin", remove_stale=False):
        pass
    assert len(list(tmp_path.glob(".*.tmp"))) == 1


@given(st.text().filter(lambda text: not text.startswith("\ufeff")), st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_text_is_decoded_by_its_mark(text, encoding):
    if encoding == "utf-16" and text.startswith("\0"):  # UTF-16's mark and a NUL are the mark of UTF-32.
        return
    assert decode_text(text.encode(encoding)) == text
    if not text.startswith("\0"):
        assert decode_text("\ufeff".encode("utf-16-le") + text.encode("utf-16-le")) == text
    assert decode_text("\ufeff".encode("utf-16-be") + text.encode("utf-16-be")) == text
    assert decode_text(text.encode()) == text


def test_text_that_is_not_utf_8():
    with pytest.raises(UnicodeDecodeError):
        decode_text(b"k\xe4ki")
    assert decode_text(b"k\xe4ki", "replace") == "k\ufffdki"
