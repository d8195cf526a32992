"""The folder of the cache: what is listed and removed, what never is, and its limit."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch
from permissions import as_ordinary_user

from ssdtrt.artifact.cache_folder import (
    _hub_folder,
    cache_folder,
    cache_limit,
    choose_entries,
    clear_cache,
    keep_cache_limit,
    list_cache,
)
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.build import Built
from ssdtrt.engine.cache import add_to_cache, copy_from_cache, read_timing_cache, write_timing_cache
from ssdtrt.errors import SsdtrtError
from ssdtrt.system.files import open_in_use, replacing
from ssdtrt.system.versions import Machine, Versions

ONE, TWO, THREE, FOUR = (digit * 64 for digit in "1234")
REQUEST = BuildRequest(
    weights=ONE, graph=TWO, preprocess="eval", backend="tensorrt", precision="fp16", batch="1:8:32", detector=True
)
BUILT = Built(
    seconds=84.0, versions=Versions(torch="2.14.0+cu130"), machine=Machine(os="Linux", gpu="NVIDIA H200", sm="9.0")
)
PARITY = ParityReport(
    "fp16", 8, (8,), 2e-2, 1e-4, (OutputDistance("loc", 4e-3, 0.1),), DetectionAgreement(10, 10, 10, 0.01)
)
SIZE = 1_000_000
DAY = 86400


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of an empty cache."""
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def stored(folder, tmp_path):
    """Three engines of a megabyte, last used three, two and one days ago, and a timing cache of four days ago."""
    (tmp_path / "engine.ts").write_bytes(b"\1" * SIZE)
    for days, key in ((3, ONE), (2, TWO), (1, THREE)):
        add_to_cache(key, tmp_path / "engine.ts", BUILT, PARITY, REQUEST)
        os.utime(folder / f"{key}.json", (time.time() - days * DAY,) * 2)
    timings = folder / f"timings-{'a' * 16}.bin"
    write_timing_cache(timings, b"times")
    os.utime(timings, (time.time() - 4 * DAY,) * 2)
    return folder


def keys(entries):
    return [entry.key for entry in entries]


def names(folder):
    return sorted(os.listdir(folder))


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SSDTRT_CACHE", "/somewhere")
    assert str(cache_folder()) == "/somewhere"
    monkeypatch.setenv("SSDTRT_CACHE", "")
    assert cache_folder() is None and list_cache().folder is None and list_cache().entries == ()
    assert clear_cache(list_cache(), []).removed == ()
    monkeypatch.delenv("SSDTRT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ssdtrt" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "ssdtrt" / "engines"
    assert list_cache().entries == ()  # There is no such folder yet.


@pytest.mark.parametrize(
    "text, limit",
    [
        ("10GB", 10_000_000_000), ("500MB", 500_000_000), ("500 mb", 500_000_000), ("1.5GiB", 1_610_612_736),
        ("2k", 2000), ("2048", 2048), ("1TB", 10**12), ("0", None), ("0GB", None), ("", 20_000_000_000),
        (None, 20_000_000_000),
    ],
)  # fmt: skip
def test_a_limit(text, limit, monkeypatch):
    monkeypatch.delenv("SSDTRT_CACHE_LIMIT", raising=False)
    if text is not None:
        monkeypatch.setenv("SSDTRT_CACHE_LIMIT", text)
    assert cache_limit() == limit


@pytest.mark.parametrize("text", ["ten", "-1", "5%", "GB", "1iB", "1e9", "10 PB", "1,5GB", "nan", "inf"])
def test_what_is_no_limit(text, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", text)
    with pytest.raises(SsdtrtError) as refused:
        list_cache()
    expected = "expected a size such as 10GB or 500MB, or 0 for no limit."
    assert str(refused.value) == f"SSDTRT_CACHE_LIMIT is {text!r}; {expected}"


def test_what_is_listed(stored):
    report = list_cache()
    assert keys(report.entries) == [THREE, TWO, ONE, "timings-" + "a" * 16]  # The last used first.
    assert [entry.type for entry in report.entries] == ["engine", "engine", "engine", "timings"]
    assert report.bytes == sum(path.stat().st_size for path in stored.iterdir())
    first, timings = report.entries[0], report.entries[-1]
    assert first.bytes == SIZE + (stored / f"{THREE}.json").stat().st_size and timings.bytes == 32 + 5
    assert (first.request, first.versions, first.machine) == (REQUEST, BUILT.versions, BUILT.machine)
    assert (first.in_words, first.built_with) == ("FP16, batch 1:8:32, detector", "H200, torch 2.14.0")
    assert (timings.in_words, timings.built_with, timings.short_key) == ("timing cache", "-", "timings-aaaa")


def test_the_least_recently_used_leave_when_it_is_too_large(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "2.5MB")
    assert copy_from_cache(ONE, tmp_path / "out") is not None  # Used now.
    read_timing_cache(stored / f"timings-{'a' * 16}.bin")
    notes = []
    keep_cache_limit({THREE}, notes.append)
    assert set(keys(list_cache().entries)) == {"timings-" + "a" * 16, ONE, THREE}
    assert notes == [
        "1 least recently used entry was removed from the cache (1.0 MB), whose limit is 2.5 MB (SSDTRT_CACHE_LIMIT)"
    ]
    keep_cache_limit({THREE}, notes.append)
    assert len(notes) == 1
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "1")
    keep_cache_limit({THREE}, notes.append)
    assert keys(list_cache().entries) == [THREE]  # What was just stored stays, though it is larger than the limit.
    assert notes[1].startswith("2 least recently used entries were removed from the cache (1.0 MB)")
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "0")
    keep_cache_limit((), notes.append)
    assert keys(list_cache().entries) == [THREE] and len(notes) == 2


def test_what_ssdtrt_did_not_write_stays(stored, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in (f"{ONE}.ts", "mine.txt"):
        (outside / name).write_text("mine")
    (stored / "linked").symlink_to(outside)
    (stored / f"{FOUR}.ts").symlink_to(outside / f"{ONE}.ts")
    (stored / f"timings-{'b' * 16}.bin").symlink_to(outside / "mine.txt")
    (stored / f"{'5' * 64}.ts").mkdir()
    others = ("mine.json", "mine.ts", "report.txt", f"{ONE}.txt", "timings.bin", ".hidden.tmp", f"{ONE[:40]}.ts")
    for name in others:
        (stored / name).write_text("mine")
    (stored / f"{'6' * 64}.json").write_text('{"name": "of another program"}')
    left = {"linked", f"{FOUR}.ts", f"timings-{'b' * 16}.bin", f"{'5' * 64}.ts", *others, f"{'6' * 64}.json"}
    assert len(list_cache().entries) == 4
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "1")
    keep_cache_limit()
    assert set(names(stored)) == left and names(outside) == [f"{ONE}.ts", "mine.txt"]
    assert clear_cache(list_cache(), list_cache().entries).removed == ()
    assert (outside / f"{ONE}.ts").read_text() == "mine"


def test_what_is_damaged_is_shown_and_removed(stored):
    (stored / f"{ONE}.json").write_bytes(b"{")
    (stored / f"{TWO}.json").unlink()
    (stored / f"{THREE}.ts").unlink()
    (stored / f"{FOUR}.json").write_text("{}")
    (stored / f"{FOUR}.ts").touch()
    report = list_cache()
    damaged = choose_entries(report, ["damaged"])
    assert set(keys(damaged)) == {ONE, TWO, THREE, FOUR} and {entry.in_words for entry in damaged} == {"damaged"}
    cleared = clear_cache(report, damaged)
    assert set(cleared.removed) == {ONE, TWO, THREE, FOUR} and cleared.failures == cleared.in_use == ()
    assert cleared.freed == sum(entry.bytes for entry in damaged)
    assert names(stored) == [f"timings-{'a' * 16}.bin"]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks")
def test_what_is_read_or_written_or_was_used_since_stays(stored, monkeypatch):
    report = list_cache()
    # A writer of TWO has replaced the engine, but not yet the record.
    with open_in_use(stored / f"{ONE}.json"), replacing(stored / f"{TWO}.json"):
        (stored / f"{TWO}.json").unlink()
        os.utime(stored / f"{THREE}.json")
        cleared = clear_cache(report, report.entries[:3])
        monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "1")
        keep_cache_limit({THREE})
        left = names(stored)
    assert cleared.removed == () and cleared.freed == 0 and cleared.in_use == (THREE, TWO, ONE)
    assert {f"{ONE}.json", f"{ONE}.ts", f"{TWO}.ts", f"{THREE}.json", f"{THREE}.ts"} <= set(left)
    report = list_cache()
    assert set(clear_cache(report, report.entries).removed) == {ONE, TWO, THREE}
    assert names(stored) == []


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks")
def test_what_killed_writers_left_is_removed_and_what_is_being_written_is_not(folder):
    killed = folder / f".{ONE[:30]}-0a1b2c3d.999999999.x_1.tmp"
    killed.write_bytes(b"half")
    with replacing(folder / f"timings-{'c' * 16}.bin") as temporary:
        report = list_cache()
        assert {entry.type for entry in report.entries} == {"unfinished"}
        cleared = clear_cache(report, report.entries)
        assert (cleared.removed, cleared.in_use) == ((killed.name,), (temporary.name,))
        assert temporary.exists() and not killed.exists() and cleared.freed == 4


def test_entries_are_chosen_by_type_key_and_age(stored):
    report = list_cache()
    assert keys(choose_entries(report)) == keys(report.entries)
    assert keys(choose_entries(report, ["timings", "22"])) == [TWO, "timings-" + "a" * 16]
    assert keys(choose_entries(report, older_than=2)) == [TWO, ONE, "timings-" + "a" * 16]
    assert keys(choose_entries(report, ["engine"], older_than=2.5)) == [ONE]
    assert choose_entries(report, ["unfinished"]) == () and choose_entries(report, older_than=10**12) == ()
    (stored / f"12{'0' * 62}.ts").touch()
    for name, count in (("1", 2), ("f", 0), ("", 0)):
        with pytest.raises(SsdtrtError, match=f"'{name}' is the beginning of {count} keys in the cache; expected that"):
            choose_entries(list_cache(), [name])


def test_what_the_system_does_not_remove_is_said(stored, monkeypatch):
    report = list_cache()

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        cleared = clear_cache(report, report.entries[:1])
    assert (cleared.removed, cleared.failures) == ((), (f"{THREE} cannot be removed: Permission denied.",))


def test_the_checkpoint_is_where_torch_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("SSDTRT_CACHE", "")
    for name, value in (("HOME", "home"), ("XDG_CACHE_HOME", "xdg"), ("TORCH_HOME", "torch")):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(name, str(tmp_path / value))
        assert str(_hub_folder()) == torch.hub.get_dir()
    assert list_cache().checkpoint is None
    path = tmp_path / "torch" / "hub" / "checkpoints" / "nvidia_ssdpyt_amp_200703.pt"
    path.parent.mkdir(parents=True)
    path.touch()
    assert list_cache().checkpoint == str(path)


def test_the_cache_of_another_user_is_read(stored, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="ssdtrt-test-") as name:
        theirs, ours = Path(name) / "theirs", Path(name) / "ours"
        shutil.copytree(stored, theirs)
        ours.mkdir()
        for path, mode in ((Path(name), 0o755), (theirs, 0o755), (ours, 0o777)):
            path.chmod(mode)
        monkeypatch.setenv("SSDTRT_CACHE", str(theirs))
        with as_ordinary_user():
            assert copy_from_cache(ONE, ours / "out").request == REQUEST
