"""The kernels' times: what is kept is read again, and nothing else."""

import hashlib
import logging

import pytest
import torch

from ssdtrt.system import machine
from ssdtrt.engine import timing_cache

CPU = torch.device("cpu")


def test_what_is_kept_is_read_again(tmp_path):
    path = tmp_path / "new" / "times.bin"
    assert timing_cache.read(path) == b""
    timing_cache.keep(path, b"times")
    assert path.read_bytes() == hashlib.sha256(b"times").digest() + b"times"
    assert timing_cache.read(path) == b"times"
    timing_cache.keep(path, b"more times")
    assert timing_cache.read(path) == b"more times" and [one.name for one in path.parent.iterdir()] == ["times.bin"]


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\0" + b[1:], lambda b: b"", lambda b: b[:9]]
)
def test_what_is_not_as_it_was_written_is_not_read(tmp_path, change):
    path = tmp_path / "times.bin"
    timing_cache.keep(path, b"times")
    path.write_bytes(change(path.read_bytes()))
    assert timing_cache.read(path) == b""


def test_nowhere_to_keep_them_is_no_error(tmp_path, caplog):
    timing_cache.keep(None, b"times")
    assert timing_cache.read(None) == timing_cache.read(tmp_path) == b""
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        timing_cache.keep(tmp_path / "file" / "times.bin", b"times")
    assert "the kernels' times are not kept in" in caplog.text


def test_they_lie_beside_the_engines_by_machine_and_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path))
    path = timing_cache.file_for(CPU)
    assert path.parent == tmp_path and path.name.startswith("timings-") and path == timing_cache.file_for(CPU)
    here = machine.machine(CPU)
    with monkeypatch.context() as changed:
        changed.setattr(machine, "machine", lambda device: {**here, "gpu": "another"})
        assert timing_cache.file_for(CPU) != path
    versions = machine.versions()
    with monkeypatch.context() as changed:
        changed.setattr(machine, "versions", lambda: {**versions, "tensorrt": "another"})
        assert timing_cache.file_for(CPU) != path
    monkeypatch.setenv("SSDTRT_CACHE", "")
    assert timing_cache.file_for(CPU) is None
