"""Tests of the metadata of saved files, and of refusing files that are not ssdtrt's."""

import datetime
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from known import metadata_like, typed, write_metadata
from ssdtrt.artifact.metadata import add_metadata, now, read_metadata
from ssdtrt.errors import ArtifactError
from ssdtrt.runners import torchscript

ROOT = Path(__file__).parents[2]
LABELS = ["background", "café", "猫"]
METADATA = metadata_like(labels=LABELS)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layer(rows).relu()


def scripted():
    with torchscript.quiet():
        return torch.jit.script(Small().eval())


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return the bytes of a saved module without metadata."""
    path = tmp_path_factory.mktemp("bare") / "small.ts"
    torchscript.save(scripted(), path)
    return path.read_bytes()


@pytest.fixture
def ours(bare, tmp_path):
    """Return a function that writes a file with metadata: `ours(metadata, name)` -> path."""

    def write(metadata=METADATA, name="small.ts"):
        path = tmp_path / name
        path.write_bytes(bare)
        write_metadata(path, metadata)
        return path

    return write


def with_member(bare, path, content):
    """Write a TorchScript archive whose metadata member has this content."""
    path.write_bytes(bare)
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{folder}/extra/ssdtrt.json", content)
    return path


def refusal(path, *kinds):
    """Return the message of the error from `read_metadata`, which is one line and names the file."""
    with pytest.raises(ArtifactError) as caught:
        read_metadata(path, *kinds)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message.replace(str(path), "FILE")


def test_metadata_comes_back(ours):
    assert read_metadata(ours()).as_dict() == METADATA
    assert read_metadata(str(ours()), ("module",)).as_dict() == METADATA


@pytest.mark.parametrize("kind", ["module", "engine", "detector"])
def test_every_kind_is_read(ours, kind):
    found = read_metadata(ours(metadata_like(kind)))
    assert found.kind == kind and found == typed(metadata_like(kind))


def test_metadata_is_a_plain_zip_member(ours):
    with zipfile.ZipFile(ours()) as archive:
        assert archive.testzip() is None
        found = [name for name in archive.namelist() if name.endswith("ssdtrt.json")]
        assert len(found) == 1 and found[0].split("/")[1:] == ["extra", "ssdtrt.json"]
        assert json.loads(archive.read(found[0])) == METADATA
        assert archive.getinfo(found[0]).compress_type == zipfile.ZIP_STORED


def test_metadata_is_read_without_torch(ours):
    code = (
        "import sys; from ssdtrt.artifact.metadata import read_metadata; "
        "print(read_metadata(sys.argv[1]).export.method, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(ours())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["script", "False"], "")


def test_plain_torch_reads_the_file(bare, ours, tmp_path):
    path = ours()
    (tmp_path / "bare.ts").write_bytes(bare)
    rows = torch.rand(5, 3)
    extra = {"ssdtrt.json": ""}
    with torchscript.quiet():
        before = torch.jit.load(str(tmp_path / "bare.ts"))(rows)
        after = torch.jit.load(str(path), _extra_files=extra)(rows)
    assert torch.equal(before, after) and before.shape == (5, 2)
    assert json.loads(extra["ssdtrt.json"]) == METADATA


def test_other_members_are_left_alone(bare, ours, tmp_path):
    (tmp_path / "bare.ts").write_bytes(bare)
    with zipfile.ZipFile(tmp_path / "bare.ts") as before, zipfile.ZipFile(ours()) as after:
        names = before.namelist()
        assert after.namelist()[:-1] == names and len(names) > 3
        assert all(after.read(name) == before.read(name) for name in names)
        end = before.start_dir
    assert ours().read_bytes()[:end] == bare[:end]


def test_renamed_file_is_still_read(ours, tmp_path):
    path = ours().rename(tmp_path / "another-name.ts")
    extra = {"ssdtrt.json": ""}
    with torchscript.quiet():
        torch.jit.load(str(path), _extra_files=extra)
    assert read_metadata(path).as_dict() == METADATA == json.loads(extra["ssdtrt.json"])


def test_loaded_module_answers_as_the_saved(ours):
    path = ours()
    rows = torch.rand(4, 3)
    assert torch.equal(torchscript.load(path)(rows), torchscript.load(path)(rows))
    assert not torchscript.load(path).training


def test_the_time_is_utc_in_whole_seconds():
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    created = datetime.datetime.fromisoformat(now())
    assert before <= created <= before + datetime.timedelta(minutes=1)


def test_exported_module_carries_metadata(module):
    found = read_metadata(module)
    assert (found.schema, found.kind, found.format) == (2, "module", "torchscript")
    assert (found.export.method, found.precision, found.batch_range) == ("trace", "fp32", None)
    assert found.model.num_classes == 81 and found.model.labels[1] == "person"
    assert found.model.preprocess == "eval" and not found.trained
    assert [spec.as_dict() for spec in found.inputs] == [
        {"name": "images", "shape": ["N", 3, 300, 300], "dtype": "float32"}
    ]


def test_what_is_added_is_read_back(bare, tmp_path):
    path = tmp_path / "small.ts"
    path.write_bytes(bare)
    add_metadata(path, typed(metadata_like("detector", "tensorrt")))
    assert read_metadata(path) == typed(metadata_like("detector", "tensorrt"))


OLD_ENGINE = {
    "schema": 1,
    "kind": "engine",
    "module": {"file": "my ssd.ts", "sha256": "1" * 64},
    "build": {
        "backend": "tensorrt",
        "precision": "fp16",
        "batch": "8",
        "streams": 4,
        "workspace_mib": 4096,
        "seconds": 9,
    },
}


def test_a_module_of_the_first_schema_still_loads(ours):
    old = {**METADATA, "schema": 1, "build": {"method": "script", "precision": "fp32"}}
    del old["export"], old["format"]
    assert read_metadata(ours(old)).as_dict() == METADATA


@pytest.mark.parametrize(
    "changes, command",
    [
        ({}, "ssdtrt compile 'my ssd.ts' --fp16 --batch-size 8 --streams 4"),
        ({"kind": "detector"}, "ssdtrt compile 'my ssd.ts' --fp16 --batch-size 8 --streams 4 --detector"),
        (
            {"build": {"backend": "torchscript", "precision": "bf16", "batch": None}},
            "ssdtrt compile 'my ssd.ts' --backend torchscript --bf16",
        ),
        ({"build": {"precision": "fp8"}}, "ssdtrt compile"),
        ({"build": None}, "ssdtrt compile"),
    ],
)
def test_an_engine_of_the_first_schema_is_refused_with_the_command_that_rebuilds_it(ours, changes, command):
    assert refusal(ours({**OLD_ENGINE, **changes})) == (
        f"FILE was written by an older ssdtrt (schema 1, this one loads engines of schema 2). Build it again: {command}"
    )


def test_missing_module(tmp_path):
    assert refusal(tmp_path / "ssd300.ts") == "FILE: no such file. Make it first: ssdtrt export -o FILE"


def test_missing_engine(tmp_path, monkeypatch):
    """The commands that make it here, and all that are needed."""
    engine, command = tmp_path / "my.engine.ts", "ssdtrt compile"
    for gpu, option in ((True, ""), (False, " --backend torchscript")):
        monkeypatch.setattr("ssdtrt.system.versions.may_have_tensorrt", lambda module="", gpu=gpu: gpu)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ssd300.ts").unlink(missing_ok=True)
        advice = f"{command}{option}"
        assert refusal(engine) == f"FILE: no such file. Make it first: ssdtrt export && {advice} -o FILE"
        assert refusal(Path("ssd300.engine.ts")).endswith(f"Make it first: ssdtrt export && {advice}")
        (tmp_path / "ssd300.ts").touch()
        assert refusal(Path("ssd300.engine.ts")).endswith(f"Make it first: {advice}")
        assert refusal(Path("ssd300.detector.ts")).endswith(f"Make it first: {advice} --detector")


def test_file_below_a_file(ours):
    assert refusal(ours() / "inner.ts").startswith("FILE: no such file.")


def test_directory(tmp_path):
    assert refusal(tmp_path) == "FILE is a directory; expected a file that ssdtrt export or ssdtrt compile wrote."


def test_empty_file(tmp_path):
    path = tmp_path / "empty.ts"
    path.touch()
    assert refusal(path) == "FILE is empty; expected a file that ssdtrt export or ssdtrt compile wrote."


@pytest.mark.parametrize("content", [b"hello, this is text\n", b"<!DOCTYPE html>", b"\x80\x02}q\x00", b"P"])
def test_not_an_archive(tmp_path, content):
    path = tmp_path / "other.ts"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"FILE is not one of ssdtrt's files (it begins with {content[:8]!r}); expected one")


def test_unreadable_file(ours, not_root):
    path = ours()
    path.chmod(0)
    assert refusal(path) == "FILE cannot be read: Permission denied."


def test_truncated_anywhere(ours, tmp_path):
    whole = ours().read_bytes()
    path = tmp_path / "cut.ts"
    sizes = [*range(2, len(whole), 37), len(whole) // 2, len(whole) - 23, len(whole) - 22, len(whole) - 1]
    for size in sizes:
        path.write_bytes(whole[:size])
        message = refusal(path)
        assert message.startswith("FILE is truncated, damaged or not one of ssdtrt's files ("), size
        assert message.endswith("Make it again."), size


def test_truncated_then_padded(ours):
    path = ours()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    assert refusal(path).startswith("FILE is truncated")


def test_flipped_bit_in_the_metadata(ours):
    path = ours()
    content = bytearray(path.read_bytes())
    content[content.index(b'"schema"') + 2] ^= 1
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith("FILE is truncated, damaged or not one of ssdtrt's files (Bad CRC-32")


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_damage_in_the_directory_is_an_artifact_error(ours, flip):
    path = ours()
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[-1].header_offset
    refused = 0
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        try:
            read_metadata(path)
        except ArtifactError as error:
            refused += 1
            assert str(error).startswith(str(path))
    assert refused > 200


def test_checkpoint(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"model": Small().state_dict()}, path)
    assert refusal(path) == "FILE is a checkpoint, not a module; first run: ssdtrt export --weights FILE."


def test_torchscript_without_metadata(bare, tmp_path):
    path = tmp_path / "foreign.ts"
    path.write_bytes(bare)
    assert refusal(path) == (
        "FILE is a TorchScript archive without ssdtrt's metadata; make it with ssdtrt export or ssdtrt compile."
    )


@pytest.mark.parametrize("name", ["notes.txt", "ssdtrt.json", "extra.txt"])
def test_other_archive(tmp_path, name):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "{}")
    assert refusal(path) == "FILE is a zip archive, but not one of ssdtrt's files."


def test_archive_of_nothing(tmp_path):
    path = tmp_path / "none.zip"
    zipfile.ZipFile(path, "w").close()
    assert refusal(path) == "FILE is a zip archive, but not one of ssdtrt's files."


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"not json", b"\xff\xfe\x00", b"[]", b"null", b'"text"', b"3", b"{}", b'{"kind": "module"}',
        b'{"schema": 1}', b'{"schema": null, "kind": "module"}', b'{"schema": "one", "kind": "module"}',
    ],
)  # fmt: skip
def test_damaged_metadata(bare, tmp_path, content):
    message = refusal(with_member(bare, tmp_path / "damaged.ts", content))
    assert message.startswith("FILE carries damaged metadata (") and message.endswith("Make it again.")


@pytest.mark.parametrize("kind", ["module", "something new"])
def test_newer_schema(ours, kind):
    message = refusal(ours({"schema": 3, "kind": kind}))
    assert message == "FILE was written by a newer ssdtrt (schema 3, this one reads up to 2). Update ssdtrt."


def test_engine_where_a_module_is_expected(ours):
    message = refusal(ours({"schema": 2, "kind": "engine"}), ("module",))
    assert message == (
        "FILE is an engine; expected a file of kind module. "
        "An engine is not compiled again: give the module that ssdtrt export wrote."
    )


def test_detector_where_an_engine_or_a_module_is_expected(ours):
    message = refusal(ours({"schema": 2, "kind": "detector"}), ("engine", "module"))
    assert message == "FILE is a detector; expected a file of kind engine or module."


def test_module_where_an_engine_is_expected(ours):
    assert refusal(ours(), ("engine",)) == "FILE is a module; expected a file of kind engine."


def test_unknown_kind(ours):
    message = refusal(ours({"schema": 2, "kind": "banana"}))
    assert message == "FILE is of the unknown kind 'banana'; expected module or engine or detector."


@pytest.mark.parametrize(
    "name, command",
    [("a.ts", "export -o a.ts"), ("ssd300.ts", "export"), ("my net.onnx", "export --format onnx -o 'my net.onnx'")],
)
def test_a_missing_file_names_the_command_that_makes_it(tmp_path, name, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        read_metadata(name)
    assert str(caught.value) == f"{name}: no such file. Make it first: ssdtrt {command}"


# Plans


def plan_metadata():
    metadata = metadata_like("engine", "tensorrt")
    metadata["request"].update(format="plan", front_end="tensorrt")
    return {**metadata, "format": "plan", "plan": {"size": 4, "sha256": "3" * 64}}


def test_a_plan_needs_tensorrt_but_not_torch_tensorrt():
    metadata = plan_metadata()
    metadata["versions"]["torch_tensorrt"] = None
    assert typed(metadata).plan.size == 4
    metadata["versions"]["tensorrt"] = None
    with pytest.raises(msgspec.ValidationError, match="versions.tensorrt is null; expected the one that a TensorRT"):
        typed(metadata)


def test_an_engine_file_needs_torch_tensorrt():
    metadata = metadata_like("engine", "tensorrt")
    assert metadata["plan"] is None
    metadata["versions"]["torch_tensorrt"] = None
    with pytest.raises(msgspec.ValidationError, match="versions.torch_tensorrt is null"):
        typed(metadata)


def test_a_plan_without_its_digest_is_refused():
    with pytest.raises(msgspec.ValidationError, match="plan is null; expected the size and the SHA-256 of the plan"):
        typed({**plan_metadata(), "plan": None})


def test_the_recorded_format_is_that_of_the_file(ours):
    reason = "format is 'plan'; expected 'torchscript'"
    assert refusal(ours(plan_metadata())) == f"FILE carries damaged metadata ({reason}). Make it again."
