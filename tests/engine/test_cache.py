"""Tests of the cache of engines: its keys, and that damaged entries are not used."""

import ast
import copy
import hashlib
import json
import shutil
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch

import ssdtrt as package
from ssdtrt import config, export
from ssdtrt.artifact.metadata import BuildInfo, ModuleFile, read_metadata
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.artifact.quantization import Quantization
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.compile import compile_engine
from ssdtrt.engine import cache, cached_build
from ssdtrt.engine.build import Built
from ssdtrt.engine.cache import read_timing_cache, timing_cache_file, write_timing_cache
from ssdtrt.errors import CompileError, SsdtrtError
from ssdtrt.runners import torchscript
from ssdtrt.system.versions import Machine, Versions, installed_versions, this_machine

PACKAGE = Path(package.__file__).parent
DIGEST = "3" * 64
REQUEST = BuildRequest(
    weights="0" * 64, graph="1" * 64, preprocess="eval", backend="tensorrt", precision="fp16", batch="8"
)
OWN_API = msgspec.structs.replace(REQUEST, front_end="tensorrt")
INT8 = msgspec.structs.replace(
    OWN_API, precision="int8", quantization=Quantization(table="t.json", ranges={"heads.0": 1.0}, exponents={})
)
KEY = "0123456789abcdef" * 4
CPU = torch.device("cpu")
BUILT = Built(seconds=84.0, versions=Versions(torch="2.2.2"), machine=Machine(os="Linux"))
OUTPUTS = (OutputDistance("loc", 4e-3, 0.1),)
PARITY = ParityReport("fp16", 8, (8,), 2e-2, 1e-4, OUTPUTS, DetectionAgreement(10, 10, 10, 0.01))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the folder of an empty cache."""
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def logged(monkeypatch):
    """The warnings of the cache: what they would say in a log."""
    found = []
    monkeypatch.setattr(cache._logger, "warning", lambda text, *values: found.append(text % values))
    return found


@pytest.fixture
def engine_file(tmp_path):
    path = tmp_path / "engine.ts"
    path.write_bytes(b"an engine" * 1000)
    return path


@pytest.fixture
def no_build(monkeypatch):
    """Make the start of a build raise an error."""

    def fail(*_):
        raise CompileError("it is built")

    monkeypatch.setattr(cached_build, "build_in_child", fail)


def test_a_second_compile_takes_what_the_first_built(folder, module, engine, tmp_path, monkeypatch, no_build):
    metadata = read_metadata(engine)
    built = Built(seconds=9.5, versions=metadata.versions, machine=metadata.machine)
    cache.add_to_cache(
        cache.cache_key(metadata.request, CPU), engine_without_metadata(engine, tmp_path), built, metadata.parity
    )
    other = tmp_path / "another name.ts"
    shutil.copyfile(module, other)
    shown = []
    out = compile_engine(other, tmp_path / "again.ts", backend="torchscript", progress=shown.append)
    assert shown == []
    again = read_metadata(out)
    assert again.build == BuildInfo(9.5, cached=True) and again.parity == metadata.parity
    assert again.module == ModuleFile("another name.ts", metadata.module.sha256)
    images = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(torchscript.load(out)(images), torchscript.load(engine)(images)):
        assert torch.equal(found, expected)
    with pytest.raises(CompileError, match="it is built"):
        compile_engine(other, tmp_path / "again.ts", backend="torchscript", cache=False)
    monkeypatch.setattr("ssdtrt.compile.emulates_bf16", lambda: False)
    with pytest.raises(CompileError, match="it is built"):
        compile_engine(other, tmp_path / "again.ts", backend="torchscript", precision="bf16")


def engine_without_metadata(engine, folder):
    """Return a copy of an engine without its metadata."""
    path = folder / "bare.ts"
    with zipfile.ZipFile(engine) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            if not info.filename.endswith("ssdtrt.json"):
                new.writestr(info.filename, old.read(info))
    return path


def test_a_compile_is_kept_and_said_to_be_taken(folder, module, ssdtrt, monkeypatch):
    first = ssdtrt("-q", "compile", module, "--backend", "torchscript", "-o", "a.ts")
    assert first.exit_code == 0 and "taken from the cache" not in first.stdout
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".ts"]
    assert read_metadata("a.ts").build.cached is False
    second = ssdtrt("-q", "compile", module, "--backend", "torchscript", "-o", "b.ts")
    assert second.exit_code == 0
    assert second.stdout.splitlines()[0].endswith(" s before, taken from the cache")
    assert second.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]


def test_another_export_of_the_same_weights_has_the_same_graph(model, module, tmp_path):
    again = export.export_module(model, tmp_path / "again.ts")
    assert again.read_bytes() != module.read_bytes()
    assert cache.graph_digest(again) == cache.graph_digest(module)


def test_each_class_of_the_network_is_alone_in_its_module(model):
    """Or the names in the code, and the digest, depend on whether it is the first that its process exports."""
    classes = {type(part) for part in model.modules() if type(part).__module__.startswith("ssdtrt.")}
    assert len(classes) == len({one.__module__ for one in classes}) == 2


def test_other_weights_have_another_graph_digest(model, module, tmp_path):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.conf[0].bias[0] += 1e-3
    other = export.export_module(changed, tmp_path / "other.ts")
    assert cache.graph_digest(other) != cache.graph_digest(module)


CHANGES = {
    "weights": DIGEST,
    "graph": DIGEST,
    "preprocess": "hub",
    "backend": "torchscript",
    "precision": "fp32",
    "batch": "1:8:32",
    "streams": 4,
    "workspace_mib": 64,
    "front_end": "tensorrt",
    "format": "plan",
    "detector": True,
    "quantization": Quantization(table="t.json", ranges={"heads.0": 2.0}, exponents={}),
}


def quantized(**changes):
    """A request of an INT8 engine whose quantization differs from the first one's."""
    return msgspec.structs.replace(INT8, quantization=msgspec.structs.replace(INT8.quantization, **changes))


def test_the_ranges_and_the_kept_layers_change_the_key_and_the_name_of_the_table_does_not():
    key = cache.cache_key(INT8, CPU)
    assert cache.cache_key(quantized(table="another.json"), CPU) == key
    assert cache.cache_key(quantized(ranges={"heads.0": 1.5}), CPU) != key
    assert cache.cache_key(quantized(keep_fp16=("heads.0",)), CPU) != key


@pytest.mark.parametrize("name", BuildRequest.__struct_fields__)
def test_every_field_of_the_request_changes_the_key(name):
    base = {"format": OWN_API, "quantization": INT8}.get(name, REQUEST)
    changed = msgspec.structs.replace(base, **{name: CHANGES[name]})
    assert cache.cache_key(changed, CPU) != cache.cache_key(base, CPU)


@pytest.mark.parametrize("what", ["gpu", "sm", "cpu", "os"])
def test_another_machine_changes_the_key(monkeypatch, what):
    before, here = cache.cache_key(REQUEST, CPU), this_machine()
    monkeypatch.setattr(cache, "this_machine", lambda device: msgspec.structs.replace(here, **{what: "other"}))
    assert cache.cache_key(REQUEST, CPU) != before


@pytest.mark.parametrize("what", ["torch", "torch_tensorrt", "tensorrt", "driver", "cuda"])
def test_another_version_changes_the_key(monkeypatch, what):
    before, here = cache.cache_key(REQUEST, CPU), installed_versions()
    monkeypatch.setattr(cache, "installed_versions", lambda: msgspec.structs.replace(here, **{what: "0.0"}))
    assert cache.cache_key(REQUEST, CPU) != before


def test_the_cores_of_the_process_and_our_own_version_do_not_change_the_key(monkeypatch):
    before, machine, versions = cache.cache_key(REQUEST, CPU), this_machine(), installed_versions()
    monkeypatch.setattr(cache, "this_machine", lambda device: msgspec.structs.replace(machine, cores=1))
    monkeypatch.setattr(cache, "installed_versions", lambda: msgspec.structs.replace(versions, ssdtrt="9", python="9"))
    assert cache.cache_key(REQUEST, CPU) == before


CODE = 'LIMIT = 3\n\n\ndef write(x):\n    """Write x."""\n    return x + LIMIT\n'


@pytest.mark.parametrize(
    "code, same",
    [
        (CODE.replace('"""Write x."""', '"""Write another x."""'), True),
        (CODE.replace("LIMIT = 3", "LIMIT = 3  # A comment."), True),
        ('"""A module."""\n' + CODE, True),
        (CODE.replace("x + LIMIT", "x - LIMIT"), False),
        (CODE.replace("LIMIT = 3", "LIMIT = 4"), False),
        (CODE + "from ssdtrt import config\nSIZE = config.NMS_IOU\n", False),
    ],
)
def test_the_code_that_writes_a_network_changes_the_key_and_its_comments_do_not(tmp_path, monkeypatch, code, same):
    def key(text):
        path = tmp_path / "writer.py"
        path.write_text(text)
        found = SimpleNamespace(origin=str(path))
        monkeypatch.setattr(cache.importlib.util, "find_spec", lambda name: found)
        return cache.cache_key(REQUEST, CPU)

    assert (key(CODE) == key(code)) is same


def test_a_constant_that_the_writers_name_changes_the_key(monkeypatch):
    before = cache.cache_key(REQUEST, CPU)
    monkeypatch.setattr(config, "THRESHOLD", 0.99)  # Used for detecting, not for building.
    assert cache.cache_key(REQUEST, CPU) == before
    monkeypatch.setattr(config, "NMS_IOU", 0.55)
    assert cache.cache_key(REQUEST, CPU) != before


def test_every_module_that_builds_or_is_built_is_among_the_writers():
    """The list has all modules of engine/ that build, and all of model/, images/ and rewriting/ that those import."""
    around = {"__init__", "acceptance", "build", "cache", "cached_build", "parity"}
    engine = {path.stem for path in (PACKAGE / "engine").glob("*.py")} - around
    assert {f"engine.{name}" for name in engine} <= set(cache._WRITERS)
    imported = set()
    for name in engine:
        tree = ast.parse((PACKAGE / "engine" / f"{name}.py").read_text())
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    needed = {
        name.removeprefix("ssdtrt.")
        for name in imported
        if name.startswith(("ssdtrt.model.", "ssdtrt.images.", "ssdtrt.rewriting."))
    }
    assert needed and needed <= set(cache._WRITERS)


def test_what_is_kept_is_taken(folder, engine_file, tmp_path):
    assert cache.copy_from_cache(KEY, tmp_path / "out") is None and not (tmp_path / "out").exists()
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    assert cache.copy_from_cache(KEY, tmp_path / "out") == cache._Entry(digest_of(engine_file), BUILT, PARITY)
    assert (tmp_path / "out").read_bytes() == engine_file.read_bytes()
    assert folder.stat().st_mode & 0o77 == 0  # Engines are code, so only the user may write to the folder.


@pytest.mark.parametrize(
    "part, content", [(".ts", b"an engiNe" * 1000), (".ts", b""), (".json", b"{"), (".json", b"[]")]
)
def test_what_is_damaged_is_thrown_away(folder, engine_file, tmp_path, logged, part, content):
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    (folder / f"{KEY}{part}").write_bytes(content)
    assert cache.copy_from_cache(KEY, tmp_path / "out") is None
    assert list(folder.iterdir()) == []
    assert len(logged) == 1 and logged[0].endswith("the engine is built again")


def test_a_full_disk_under_the_engine_costs_no_entry(folder, engine_file, logged):
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    with pytest.raises(OSError, match="No space left on device"):
        cache.copy_from_cache(KEY, Path("/dev/full"))
    assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.json", f"{KEY}.ts"] and logged == []


@pytest.mark.parametrize("part", [".ts", ".json"])
def test_half_an_entry_is_none(folder, engine_file, tmp_path, part):
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    (folder / f"{KEY}{part}").unlink()
    assert cache.copy_from_cache(KEY, tmp_path / "out") is None


def test_a_wrong_limit_is_refused_before_anything_is_built(folder, module, tmp_path, monkeypatch, no_build):
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "large")
    with pytest.raises(SsdtrtError, match="^SSDTRT_CACHE_LIMIT is 'large'; expected a size such as 10GB or 500MB"):
        compile_engine(module, tmp_path / "e.ts", backend="torchscript")
    with pytest.raises(CompileError, match="it is built"):
        compile_engine(module, tmp_path / "e.ts", backend="torchscript", cache=False)


def test_two_at_once_leave_one_whole_entry(folder, engine_file, tmp_path):
    threads = [threading.Thread(target=cache.add_to_cache, args=(KEY, engine_file, BUILT, PARITY)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.copy_from_cache(KEY, tmp_path / "out") == cache._Entry(digest_of(engine_file), BUILT, PARITY)
    assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.json", f"{KEY}.ts"]


def test_a_cache_that_cannot_be_written_is_logged_and_no_failure(tmp_path, engine_file, monkeypatch, logged):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path / "file"))
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    assert len(logged) == 1 and logged[0].startswith(f"the engine could not be cached in {tmp_path / 'file'}: ")
    assert cache.copy_from_cache(KEY, tmp_path / "out") is None


def test_nothing_is_kept_where_it_is_turned_off(monkeypatch, tmp_path, engine_file):
    monkeypatch.setenv("SSDTRT_CACHE", "")
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    assert cache.copy_from_cache(KEY, tmp_path / "out") is None


def test_the_description_is_json_and_names_the_digest(folder, engine_file):
    cache.add_to_cache(KEY, engine_file, BUILT, PARITY)
    found = json.loads((folder / f"{KEY}.json").read_text())
    assert found["sha256"] == digest_of(engine_file)
    assert (found["built"]["seconds"], found["parity"]["precision"]) == (84.0, "fp16")


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_kernel_times_are_read_again(tmp_path):
    path = tmp_path / "new" / "times.bin"
    assert read_timing_cache(path) == b""
    write_timing_cache(path, b"times")
    assert path.read_bytes() == hashlib.sha256(b"times").digest() + b"times"
    assert read_timing_cache(path) == b"times"
    write_timing_cache(path, b"more times")
    assert read_timing_cache(path) == b"more times" and [one.name for one in path.parent.iterdir()] == ["times.bin"]


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\0" + b[1:], lambda b: b"", lambda b: b[:9]]
)
def test_kernel_times_that_are_not_as_they_were_written_are_not_read(tmp_path, change):
    path = tmp_path / "times.bin"
    write_timing_cache(path, b"times")
    path.write_bytes(change(path.read_bytes()))
    assert read_timing_cache(path) == b""


def test_nowhere_to_keep_kernel_times_is_no_error(tmp_path, logged):
    write_timing_cache(None, b"times")
    assert read_timing_cache(None) == read_timing_cache(tmp_path) == b""
    (tmp_path / "file").touch()
    write_timing_cache(tmp_path / "file" / "times.bin", b"times")
    assert len(logged) == 1 and logged[0].startswith("the timing cache could not be written to ")


def test_kernel_times_lie_beside_the_engines_by_machine_and_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path))
    path, machine, versions = timing_cache_file(CPU), this_machine(CPU), installed_versions()
    assert path.parent == tmp_path and path.name.startswith("timings-") and path == timing_cache_file(CPU)
    with monkeypatch.context() as changed:
        changed.setattr(cache, "this_machine", lambda device: msgspec.structs.replace(machine, gpu="another"))
        assert timing_cache_file(CPU) != path
    with monkeypatch.context() as changed:
        changed.setattr(cache, "installed_versions", lambda: msgspec.structs.replace(versions, tensorrt="another"))
        assert timing_cache_file(CPU) != path
    monkeypatch.setenv("SSDTRT_CACHE", "")
    assert timing_cache_file(CPU) is None
