"""Small files that carry the metadata of an engine, and the machine that such an engine was built on."""

import platform

import pytest
import torch

from known import metadata_like, write_metadata
from ssdtrt.artifact import inspection
from ssdtrt.runners import torchscript


def small(path, metadata):
    """Write a file with the given metadata and a network that is not SSD300."""
    with torchscript.quiet():
        torchscript.save(torch.jit.script(torch.nn.Identity()), path)
    write_metadata(path, metadata)
    return path


@pytest.fixture
def tensorrt_engine(tmp_path):
    metadata = metadata_like("engine", "tensorrt")
    metadata["model"]["parameters"] = 1000
    return small(tmp_path / "gpu.engine.ts", metadata)


@pytest.fixture
def like_there(monkeypatch):
    """Make this machine appear as the one that the engine was built on."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(inspection, "tensorrt_version", lambda: "8.6.0")
    monkeypatch.setattr(inspection, "installed", {"torch-tensorrt": "2.2.0"}.get)
