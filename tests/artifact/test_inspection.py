"""What `ssdtrt inspect` says of a file, everywhere and without torch."""

import json
import platform
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from conftest import ROOT
from known import known_file, metadata_like, write_metadata
from ssdtrt.artifact import inspection, torchscript
from ssdtrt.artifact.inspection import inspect_file, inspection_text, printable
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.errors import ArtifactError


def small(path, metadata):
    """One of our files by its metadata; there is no network of ours in it."""
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
    """This machine is the one that the engine was built on."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(inspection, "tensorrt_version", lambda: "8.6.0")
    monkeypatch.setattr(inspection, "installed", {"torch-tensorrt": "2.2.0"}.get)


def test_the_result(tensorrt_engine, like_there):
    found = inspect_file(tensorrt_engine)
    size = tensorrt_engine.stat().st_size
    assert (found.file, found.bytes, found.bytes_per_parameter) == (str(tensorrt_engine), size, size / 1000)
    assert (found.checked, found.differs, found.metadata) == (False, (), read_metadata(tensorrt_engine).as_dict())
    assert inspect_file(tensorrt_engine, check=True).checked is True


def test_the_number_of_parameters_may_be_unknown(tmp_path):
    found = inspect_file(known_file(tmp_path / "known.ts"))
    assert found.bytes_per_parameter is None and found.differs == ()
    assert "a parameter" not in inspection_text(found, 100)


def test_what_differs_from_this_machine(tensorrt_engine, like_there, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(inspection, "tensorrt_version", lambda: "10.3.0")
    monkeypatch.setattr(inspection, "installed", lambda _: None)
    found = inspect_file(tensorrt_engine)
    assert found.differs == (
        "built for architecture x86_64; here is aarch64",
        "built for TensorRT 8.6.0; here is 10.3.0",
        "built for Torch-TensorRT 2.2.0; here is none",
    )
    assert f"  no: {'; '.join(found.differs)}\n" in inspection_text(found, 300)


def test_the_table(tensorrt_engine, like_there):
    lines = inspection_text(inspect_file(tensorrt_engine), 100).splitlines()
    assert max(map(len, lines)) <= 100
    rows = dict(line.split(None, 1) for line in lines if not line.startswith((" ", "fits")))
    size = tensorrt_engine.stat().st_size
    assert rows["size"] == f"{size:,} bytes, {size / 1000:.2f} a parameter"
    assert rows["checked"] == "metadata only (--check reads it all)"
    assert (rows["kind"], rows["build.batch"], rows["machine.sm"]) == ("engine", "1:8:32", "9.0")
    assert rows["inputs"] == "images [N, 3, 300, 300] float32"
    assert rows["model.labels"].startswith("background, person, bicycle, car")
    assert rows["parity.outputs"] == "name loc relative_l2 1.2e-06"
    said = " ".join(" ".join(lines[3:5]).split())
    known = "yes, as far as can be told without the GPU; that must be of compute capability 9.0"
    assert said == f"fits this machine {known}"


def test_every_field_is_in_the_table(engine):
    """The names of a real engine's metadata, to the last leaf."""

    def names(value, prefix=""):
        for key, item in value.items():
            if isinstance(item, dict):
                yield from names(item, f"{prefix}{key}.")
            else:
                yield prefix + key

    text = inspection_text(inspect_file(engine), 120)
    shown = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert shown[4:] == list(names(read_metadata(engine))) and len(shown) > 40


def test_forty_columns_hold_it(tensorrt_engine, like_there):
    lines = inspection_text(inspect_file(tensorrt_engine), 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[lines.index("model.preprocess") + 1] == "  eval"
    digits = lines.index("model.weights.sha256")
    assert lines[digits + 1].strip() + lines[digits + 2].strip() == "0" * 64


def test_what_a_terminal_would_act_on_is_written_out(tmp_path):
    path = small(tmp_path / "a.ts", metadata_like(labels=["background", "\x1b[2Jcat", "\u202ecar", "猫"]))
    text = inspection_text(inspect_file(path), 200)
    assert "background, \\x1b[2Jcat, \\u202ecar, 猫" in text
    assert printable("a\nb\ud800") == "a\\nb\\ud800"


def run(*arguments):
    command = [sys.executable, "-X", "importtime", "-m", "ssdtrt", "inspect", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_command_on_a_large_file_is_quick_and_imports_no_torch(module):
    assert module.stat().st_size > 90_000_000
    started = time.monotonic()
    done = run(module)
    assert time.monotonic() - started < 5  # Alone 0.2 s; two busy cores are slower.
    assert done.returncode == 0 and "22894902" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "ssdtrt.artifact.inspection" in imported and not {"torch", "numpy", "PIL"} & imported


def test_the_command_as_json(module, ssdtrt, tmp_path):
    done = ssdtrt("inspect", module, "--json", "-")
    found = json.loads(done.stdout)
    assert (done.exit_code, found) == (0, json.loads(json.dumps(inspect_file(module).document())))
    assert found["metadata"]["model"]["weights"]["sha256"] == read_metadata(module).model.weights.sha256
    assert ssdtrt("inspect", module, "--json", "found.json").exit_code == 0
    assert json.loads((tmp_path / "found.json").read_text()) == found


def test_only_check_sees_a_flipped_bit(tensorrt_engine, ssdtrt):
    content = bytearray(tensorrt_engine.read_bytes())
    with zipfile.ZipFile(tensorrt_engine) as archive:
        names = archive.namelist()
        after = archive.getinfo(names[1]).header_offset
    content[content.rindex(b"__torch__", 0, after)] ^= 1  # In the first member.
    tensorrt_engine.write_bytes(content)
    assert ssdtrt("inspect", tensorrt_engine).exit_code == 0
    done = ssdtrt("inspect", "--check", tensorrt_engine)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"Error: {tensorrt_engine} is truncated, damaged or not one of ssdtrt's files (Bad CRC-32 for file '"
    )


def test_the_digest_is_checked_where_it_is_asked_for(tensorrt_engine, ssdtrt):
    sidecar = tensorrt_engine.with_name("gpu.engine.ts.sha256")
    sidecar.write_text("0" * 64 + "\n")
    assert ssdtrt("inspect", tensorrt_engine).exit_code == 0
    for arguments in (("--check",), ("--sha256", "1" * 64)):
        done = ssdtrt("inspect", tensorrt_engine, *arguments)
        assert done.exit_code == 1 and done.stderr.startswith(f"Error: {tensorrt_engine} has the SHA-256 ")


@pytest.mark.parametrize("command", ["compile", "verify", "detect", "evaluate"])
def test_the_commands_on_a_file_take_a_digest(command, module, ssdtrt, tmp_path):
    annotations = tmp_path / "annotations.json"
    (tmp_path / "a.jpg").touch()
    found = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    images = [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}]
    categories = [{"id": 1, "name": "person"}]
    annotations.write_text(json.dumps({"images": images, "annotations": [found], "categories": categories}))
    more = {
        "compile": ("--backend", "torchscript"),
        "detect": (annotations,),
        "evaluate": ("--images", tmp_path, "--annotations", annotations),
    }.get(command, ())
    done = ssdtrt("-q", command, module, "--sha256", "0" * 64, *more)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {module} has the SHA-256 ")
    assert f"; expected {'0' * 64}, as demanded." in done.stderr


def test_what_is_none_of_ours(tmp_path):
    with pytest.raises(ArtifactError, match="no such file. Make it first: ssdtrt compile"):
        inspect_file(tmp_path / "a.engine.ts")
