"""The kernels' times: what is kept is read again, and nothing else."""

import hashlib
import logging

import pytest
import torch

from ssdtrt.engine.cache import keep_timing_cache, read_timing_cache, timing_cache_file
from ssdtrt.system import machine
from ssdtrt.system.versions import installed_versions, this_machine

CPU = torch.device("cpu")


def test_what_is_kept_is_read_again(tmp_path):
    path = tmp_path / "new" / "times.bin"
    assert read_timing_cache(path) == b""
    keep_timing_cache(path, b"times")
    assert path.read_bytes() == hashlib.sha256(b"times").digest() + b"times"
    assert read_timing_cache(path) == b"times"
    keep_timing_cache(path, b"more times")
    assert read_timing_cache(path) == b"more times" and [one.name for one in path.parent.iterdir()] == ["times.bin"]


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\0" + b[1:], lambda b: b"", lambda b: b[:9]]
)
def test_what_is_not_as_it_was_written_is_not_read(tmp_path, change):
    path = tmp_path / "times.bin"
    keep_timing_cache(path, b"times")
    path.write_bytes(change(path.read_bytes()))
    assert read_timing_cache(path) == b""


def test_nowhere_to_keep_them_is_no_error(tmp_path, caplog):
    keep_timing_cache(None, b"times")
    assert read_timing_cache(None) == read_timing_cache(tmp_path) == b""
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        keep_timing_cache(tmp_path / "file" / "times.bin", b"times")
    assert "the kernels' times are not kept in" in caplog.text


def test_they_lie_beside_the_engines_by_machine_and_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path))
    path = timing_cache_file(CPU)
    assert path.parent == tmp_path and path.name.startswith("timings-") and path == timing_cache_file(CPU)
    here = this_machine(CPU)
    with monkeypatch.context() as changed:
        changed.setattr(machine, "machine", lambda device: {**here, "gpu": "another"})
        assert timing_cache_file(CPU) != path
    versions = installed_versions()
    with monkeypatch.context() as changed:
        changed.setattr(machine, "versions", lambda: {**versions, "tensorrt": "another"})
        assert timing_cache_file(CPU) != path
    monkeypatch.setenv("SSDTRT_CACHE", "")
    assert timing_cache_file(CPU) is None
