"""Tests of inspecting a file without torch; tests/commands/test_machine.py has those of its text."""

import platform

import pytest

from known import known_file
from ssdtrt.artifact import inspection
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.errors import ArtifactError


def test_the_result(tensorrt_engine, like_there):
    found = inspect_file(tensorrt_engine)
    size = tensorrt_engine.stat().st_size
    assert (found.file, found.bytes, found.bytes_per_parameter) == (str(tensorrt_engine), size, size / 1000)
    assert (found.checked, found.differs, found.metadata) == (False, (), read_metadata(tensorrt_engine).as_dict())
    assert inspect_file(tensorrt_engine, check=True).checked is True


def test_the_number_of_parameters_may_be_unknown(tmp_path):
    found = inspect_file(known_file(tmp_path / "known.ts"))
    assert found.bytes_per_parameter is None and found.differs == ()


def test_what_differs_from_this_machine(tensorrt_engine, like_there, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(inspection, "tensorrt_version", lambda: "10.3.0")
    monkeypatch.setattr(inspection, "installed", lambda _: None)
    found = inspect_file(tensorrt_engine)
    assert found.differs == (
        "built for architecture x86_64; this machine has aarch64",
        "built for TensorRT 8.6.0; this machine has 10.3.0",
        "built for Torch-TensorRT 2.2.0; this machine has none",
    )


def test_what_is_none_of_ours(tmp_path):
    with pytest.raises(ArtifactError, match="no such file. Make it first: ssdtrt export && ssdtrt compile"):
        inspect_file(tmp_path / "a.engine.ts")
