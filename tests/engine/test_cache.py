"""Engines kept for the next identical build: what they are found by, and that nothing damaged is ever taken."""

import hashlib
import json
import logging
import os
import shutil
import threading
import zipfile

import pytest
import torch

from ssdtrt import compile as compiling
from ssdtrt import config, export
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.compile import compile_engine
from ssdtrt.engine import cache
from ssdtrt.errors import CompileError
from ssdtrt.model.random import random_model
from ssdtrt.system import machine
from ssdtrt.system.versions import installed_versions, this_machine

REQUEST = {
    "backend": "tensorrt",
    "precision": "fp16",
    "batch": "8",
    "streams": 0,
    "workspace_mib": 4096,
    "device": "cpu",
    "detector": False,
    "preprocess": "eval",
    "out": "a",
    "parent": 1,
}
KEY = "0123456789abcdef"
BUILT = {"seconds": 84.0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def engine_file(tmp_path):
    path = tmp_path / "engine.ts"
    path.write_bytes(b"an engine" * 1000)
    return path


@pytest.fixture
def no_build(monkeypatch):
    """Building ends with an error that says it was begun."""

    def fail(*_):
        raise CompileError("it is built")

    monkeypatch.setattr(compiling, "build_in_child", fail)


def test_a_second_compile_takes_what_the_first_built(folder, module, engine, tmp_path, monkeypatch, no_build):
    built = read_metadata(engine)
    facts = {"seconds": 9.5, **{name: built[name] for name in ("versions", "machine", "parity")}}
    metadata = read_metadata(module)
    request = {**REQUEST, "backend": "torchscript", "precision": "fp32", "batch": "1"}
    cache.keep(cache.key_of(request, module, metadata), engine_without_metadata(engine, tmp_path), facts)
    other = tmp_path / "another name.ts"
    shutil.copyfile(module, other)
    said = []
    out = compile_engine(other, tmp_path / "again.ts", backend="torchscript", progress=said.append)
    assert said == []
    again = read_metadata(out)
    assert again["build"] == {**built["build"], "cached": True, "seconds": 9.5}
    assert again["module"] == {"file": "another name.ts", "sha256": built["module"]["sha256"]}
    images = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(torchscript.load(out)(images), torchscript.load(engine)(images)):
        assert torch.equal(found, expected)
    with pytest.raises(CompileError, match="it is built"):
        compile_engine(other, tmp_path / "again.ts", backend="torchscript", cache=False)
    monkeypatch.setattr("ssdtrt.system.devices.emulates_bf16", lambda: False)
    with pytest.raises(CompileError, match="it is built"):
        compile_engine(other, tmp_path / "again.ts", backend="torchscript", precision="bf16")


def engine_without_metadata(engine, folder):
    """The engine as it is before it is said what it is."""
    path = folder / "bare.ts"
    with zipfile.ZipFile(engine) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            if not info.filename.endswith("ssdtrt.json"):
                new.writestr(info.filename, old.read(info))
    return path


def test_a_compile_is_kept_and_said_to_be_taken(folder, module, ssdtrt, monkeypatch):
    monkeypatch.setattr(config, "PARITY_IMAGES", 1)
    first = ssdtrt("-q", "compile", module, "--backend", "torchscript", "-o", "a.ts")
    assert first.exit_code == 0 and "taken from the cache" not in first.stdout
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".ts"]
    assert read_metadata("a.ts")["build"]["cached"] is False
    second = ssdtrt("-q", "compile", module, "--backend", "torchscript", "-o", "b.ts")
    assert second.exit_code == 0
    assert second.stdout.splitlines()[0].endswith(" s before, taken from the cache")
    assert second.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]


def test_another_export_of_the_same_weights_has_the_same_key(model, module, tmp_path):
    again = export.export_module(model, tmp_path / "again.ts")
    assert again.read_bytes() != module.read_bytes()
    assert cache.key_of(REQUEST, again, read_metadata(again)) == cache.key_of(REQUEST, module, read_metadata(module))


def test_other_weights_have_another_key(module, tmp_path):
    with torch.no_grad():
        model = random_model(81, seed=0)
        model.conf[0].bias[0] += 1e-3
    other = export.export_module(model, tmp_path / "other.ts")
    assert cache.key_of(REQUEST, other, read_metadata(other)) != cache.key_of(REQUEST, module, read_metadata(module))


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "torchscript"},
        {"precision": "fp32"},
        {"batch": "1:8:32"},
        {"streams": 4},
        {"workspace_mib": 64},
        {"detector": True},
        {"preprocess": "hub"},
    ],
)
def test_every_setting_changes_the_key(module, change):
    metadata = read_metadata(module)
    assert cache.key_of({**REQUEST, **change}, module, metadata) != cache.key_of(REQUEST, module, metadata)


@pytest.mark.parametrize("what", ["gpu", "sm", "cpu", "os"])
def test_another_machine_changes_the_key(module, monkeypatch, what):
    before, here = cache.key_of(REQUEST, module, read_metadata(module)), this_machine()
    monkeypatch.setattr(machine, "machine", lambda device: {**here, what: "other"})
    assert cache.key_of(REQUEST, module, read_metadata(module)) != before


@pytest.mark.parametrize("what", ["torch", "torch_tensorrt", "tensorrt", "driver", "cuda", "ssdtrt"])
def test_another_version_changes_the_key(module, monkeypatch, what):
    before, here = cache.key_of(REQUEST, module, read_metadata(module)), installed_versions()
    monkeypatch.setattr(machine, "versions", lambda: {**here, what: "0.0"})
    assert cache.key_of(REQUEST, module, read_metadata(module)) != before


def test_another_source_changes_the_key(module, monkeypatch):
    before = cache.key_of(REQUEST, module, read_metadata(module))
    monkeypatch.setattr(cache, "source_digest", lambda: "0" * 64)
    assert cache.key_of(REQUEST, module, read_metadata(module)) != before


def test_where_a_file_goes_and_who_waits_for_it_does_not_matter(module):
    metadata = read_metadata(module)
    other = {**REQUEST, "out": "b", "parent": 2, "module": "c"}
    assert cache.key_of(other, module, metadata) == cache.key_of(REQUEST, module, metadata)


def test_what_is_kept_is_taken(folder, engine_file, tmp_path):
    assert cache.take(KEY, tmp_path / "out") is None and not (tmp_path / "out").exists()
    cache.keep(KEY, engine_file, BUILT)
    assert cache.take(KEY, tmp_path / "out") == BUILT
    assert (tmp_path / "out").read_bytes() == engine_file.read_bytes()
    assert folder.stat().st_mode & 0o77 == 0  # Engines are code: nobody else writes here.


@pytest.mark.parametrize(
    "part, content", [(".ts", b"an engiNe" * 1000), (".ts", b""), (".json", b"{"), (".json", b"[]")]
)
def test_what_is_damaged_is_thrown_away(folder, engine_file, tmp_path, caplog, part, content):
    cache.keep(KEY, engine_file, BUILT)
    (folder / f"{KEY}{part}").write_bytes(content)
    assert cache.take(KEY, tmp_path / "out") is None
    assert list(folder.iterdir()) == []
    assert "built again" in caplog.text


@pytest.mark.parametrize("part", [".ts", ".json"])
def test_half_an_entry_is_none(folder, engine_file, tmp_path, part):
    cache.keep(KEY, engine_file, BUILT)
    (folder / f"{KEY}{part}").unlink()
    assert cache.take(KEY, tmp_path / "out") is None


def test_only_the_last_used_are_kept(folder, engine_file, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_ENGINES", 2)
    for number in (1, 2):
        cache.keep(f"{number}", engine_file, {})
        os.utime(folder / f"{number}.json", (number, number))
    assert cache.take("1", tmp_path / "out") == {}
    cache.keep("3", engine_file, {})
    assert sorted(path.name for path in folder.iterdir()) == ["1.json", "1.ts", "3.json", "3.ts"]


def test_two_at_once_leave_one_whole_entry(folder, engine_file, tmp_path):
    threads = [threading.Thread(target=cache.keep, args=(KEY, engine_file, BUILT)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.take(KEY, tmp_path / "out") == BUILT
    assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.json", f"{KEY}.ts"]


def test_a_cache_that_cannot_be_written_is_logged_and_no_failure(tmp_path, engine_file, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        cache.keep(KEY, engine_file, BUILT)
    assert f"the engine is not kept in {tmp_path / 'file'}" in caplog.text
    assert cache.take(KEY, tmp_path / "out") is None


def test_where_it_is(monkeypatch, tmp_path, engine_file):
    monkeypatch.setenv("SSDTRT_CACHE", "/somewhere")
    assert str(cache.cache_folder()) == "/somewhere"
    monkeypatch.setenv("SSDTRT_CACHE", "")
    assert cache.cache_folder() is None
    cache.keep(KEY, engine_file, BUILT)
    assert cache.take(KEY, tmp_path / "out") is None
    monkeypatch.delenv("SSDTRT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "ssdtrt" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "ssdtrt" / "engines"


def test_the_description_is_json_and_names_the_digest(folder, engine_file):
    cache.keep(KEY, engine_file, BUILT)
    assert json.loads((folder / f"{KEY}.json").read_text()) == {
        "sha256": hashlib.sha256(engine_file.read_bytes()).hexdigest(),
        "built": BUILT,
    }
