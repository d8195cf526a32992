"""Tests that an ONNX file is read without onnx, and that truncated, changed or foreign ones are refused in one line."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from known import metadata_like
from ssdtrt import config
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import check_file, read_metadata
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.container import check_intact, read_record
from ssdtrt.formats.onnx_file import append_record, is_onnx

DAMAGED = "FILE is truncated, damaged or not one of ssdtrt's files ({}). Make it again."
FOREIGN = "FILE is an ONNX file without ssdtrt's metadata; make it with ssdtrt export --format onnx."
RECORD = json.dumps({**metadata_like(), "format": "onnx"}).encode()


def tiny_model():
    """Return the bytes of an ONNX model of one node."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("images", "loc")]
    weight = onnx.numpy_helper.from_array(np.arange(2, dtype=np.float32), "weight")
    graph = helper.make_graph([helper.make_node("Add", ["images", "weight"], ["loc"])], "tiny", *zip(ends), [weight])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a small intact file."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    path.write_bytes(tiny_model())
    append_record(path, RECORD)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, whole):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(whole)
    return path


def refusal(path, call=check_file):
    """Return the one-line message of the error, with FILE in place of the path."""
    with pytest.raises(ArtifactError) as caught:
        call(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


def test_the_records_are_the_last_metadata_of_the_model(path, whole):
    model = onnx.load(path)
    assert [prop.key for prop in model.metadata_props] == ["ssdtrt.json", "ssdtrt.sha256"]
    assert model.metadata_props[0].value.encode() == RECORD == read_record(path)
    before = whole[: whole.rindex(b"ssdtrt.sha256") - 4]  # The field's number and size, the key's number and size.
    assert model.metadata_props[1].value == hashlib.sha256(before).hexdigest()
    assert onnx.load_from_string(tiny_model()).graph == model.graph


def test_the_whole_file_is_accepted(path):
    check_intact(path)
    found = check_file(path, ("module",))
    assert (found.kind, found.format, found.precision, found.batch_range) == ("module", "onnx", "fp32", None)
    assert inspect_file(path, check=True).metadata == {**metadata_like(), "format": "onnx"}


def test_a_file_that_ends_anywhere_else_is_refused(path, whole):
    for size in range(2, len(whole)):
        path.write_bytes(whole[:size])
        message = refusal(path)
        assert message == FOREIGN or message.startswith(DAMAGED.split("{")[0]), size


def test_every_changed_byte_is_seen(path, whole):
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ArtifactError):
            check_file(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda whole: whole[:-1], DAMAGED.format("it ends inside a field")),
        (lambda whole: whole + b"\0", DAMAGED.format("it ends inside a field")),
        (lambda whole: whole + b"\x28\1", DAMAGED.format("bytes follow its ssdtrt.sha256")),
        (lambda whole: whole[: whole.rindex(b"ssdtrt.sha256") - 4], DAMAGED.format("it has no ssdtrt.sha256")),
        (lambda whole: whole.replace(b"images", b"imagez"), DAMAGED.format("its ssdtrt.sha256 is that of other bytes")),
        (lambda whole: whole + whole[len(tiny_model()) :], DAMAGED.format("two of its metadata_props have one key")),
        (lambda whole: tiny_model(), FOREIGN),
        (lambda whole: b"\x08\x08", DAMAGED.format("it has no graph")),
        (lambda whole: b"\x08\x08" + b"\x0f" * 9, DAMAGED.format("it is no ONNX model")),
        (lambda whole: b"\x08\x08\x0a" + b"\xff" * 20, DAMAGED.format("it is no ONNX model")),
        (lambda whole: b"\x08\x08" + b"\x28\1" * 10_001, DAMAGED.format("it has more than 10,000 fields")),
        (lambda whole: b"\x08", "FILE is not one of ssdtrt's files (it begins with b'\\x08'); "
                                "expected one that ssdtrt export or ssdtrt compile wrote."),
        (lambda whole: b"", "FILE is empty; expected a file that ssdtrt export or ssdtrt compile wrote."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(path, whole, change, message):
    path.write_bytes(change(whole))
    assert refusal(path) == message


def test_a_record_above_the_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.onnx"
    path.write_bytes(tiny_model())
    append_record(path, RECORD)
    monkeypatch.setattr(config, "MAX_METADATA", 100)
    message = DAMAGED.format(f"its metadata has {len(RECORD):,} bytes, the limit is 100")
    assert refusal(path, read_metadata) == message


@pytest.mark.parametrize("kind", ["module", "detector"])
def test_both_kinds_have_the_fields_of_an_exported_file(kind, tmp_path):
    path = tmp_path / "kind.onnx"
    path.write_bytes(tiny_model())
    append_record(path, json.dumps({**metadata_like(), "format": "onnx", "kind": kind}).encode())
    found = check_file(path)
    assert (found.kind, found.format) == (kind, "onnx") and not hasattr(found, "request")
    if kind == "detector":
        assert refusal(path, lambda path: check_file(path, ("module",))).startswith("FILE is a detector; expected")


def test_an_engine_is_no_onnx_file(tmp_path):
    path = tmp_path / "engine.onnx"
    path.write_bytes(tiny_model())
    append_record(path, json.dumps({**metadata_like("engine"), "format": "onnx"}).encode())
    assert "carries damaged metadata (Invalid value 'engine'" in refusal(path)


def test_a_digest_beside_it_is_checked(path):
    beside = path.with_name("tiny.onnx.sha256")
    beside.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  tiny.onnx\n")
    check_file(path)
    beside.write_text(f"{'0' * 64}  tiny.onnx\n")
    assert "as recorded in" in refusal(path)


@pytest.mark.parametrize(
    "name, command",
    [
        ("ssd300.onnx", "ssdtrt export --format onnx -o FILE"),
        ("a.detector.onnx", "ssdtrt export --format onnx --detector -o FILE"),
    ],
)
def test_a_missing_file(name, command, tmp_path):
    assert refusal(tmp_path / name) == f"FILE: no such file. Make it first: {command}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ArtifactError, match="is a named pipe"):
        is_onnx(tmp_path / "pipe.onnx")


def test_reading_needs_neither_onnx_nor_torch(path):
    code = (
        "import sys; sys.modules.update(onnx=None, onnxruntime=None, torch=None)\n"
        "from ssdtrt.artifact.inspection import inspect_file\n"
        "print(inspect_file(sys.argv[1], check=True).metadata['format'])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("onnx\n", "")
