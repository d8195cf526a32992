"""Tests that a plan is read with its record beside it, and that a lost, damaged or foreign record is refused in one line."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from known import metadata_like
from ssdtrt import config
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import check_file, read_metadata
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.container import check_intact, format_of, read_record
from ssdtrt.formats.plan_file import PlanInfo, is_plan, record_path

PLAN = b"ftrt" + bytes(range(200))


def plan_metadata(plan=PLAN):
    """Return the metadata of a plan, as JSON types."""
    metadata = metadata_like("engine", "tensorrt")
    metadata["request"].update(format="plan", front_end="tensorrt", streams=4)
    return {**metadata, "format": "plan", "plan": PlanInfo.of(plan).as_dict()}


RECORD = json.dumps(plan_metadata()).encode()


@pytest.fixture
def path(tmp_path):
    """Return the path of a plan with its record beside it."""
    path = tmp_path / "a.plan"
    path.write_bytes(PLAN)
    record_path(path).write_bytes(RECORD)
    return path


def refusal(path, call=check_file):
    """Return the one-line message of the error, with FILE in place of the path."""
    with pytest.raises(ArtifactError) as caught:
        call(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


def test_the_record_comes_back(path):
    assert record_path(path) == path.with_name("a.plan.json")
    assert read_record(path) == RECORD
    found = check_file(path, ("engine",))
    assert (found.kind, found.format, found.plan) == ("engine", "plan", PlanInfo.of(PLAN))
    assert found.as_dict() == plan_metadata()
    assert inspect_file(path, check=True).metadata == plan_metadata()


def test_another_name_is_still_a_plan_by_its_first_bytes(path):
    other = path.rename(path.with_name("model"))
    assert is_plan(other) and format_of(other) == "plan"
    record_path(path).rename(record_path(other))
    check_file(other)


def test_an_archive_by_the_name_of_a_plan_is_an_archive(tmp_path):
    path = tmp_path / "module.plan"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("module/data.pkl", b"")
        archive.writestr("module/extra/ssdtrt.json", json.dumps(metadata_like()))
    assert not is_plan(path) and check_file(path).kind == "module"


def test_a_plan_without_its_record(path):
    record_path(path).unlink()
    assert refusal(path) == (
        "FILE is a TensorRT plan without its record a.plan.json, which must be beside it. Copy both, or build it again: "
        "ssdtrt compile --format plan"
    )


def test_changed_bytes_are_seen_anywhere(path):
    for place in range(0, len(PLAN), 7):
        path.write_bytes(PLAN[:place] + bytes([PLAN[place] ^ 4]) + PLAN[place + 1 :])
        assert refusal(path, check_intact) == (
            "FILE is not the plan that a.plan.json is the record of (the SHA-256 is another). Copy both from where they "
            "were built, or build it again: ssdtrt compile --format plan"
        )
        with pytest.raises(ArtifactError):
            check_file(path)


@pytest.mark.parametrize("size", [1, 3, 4, len(PLAN) - 1, len(PLAN) + 1])
def test_another_length_is_seen(path, size):
    path.write_bytes((PLAN + b"\0")[:size])
    assert "is not the plan that a.plan.json is the record of" in refusal(path)


def test_an_empty_plan(path):
    path.write_bytes(b"")
    assert refusal(path) == "FILE is empty; expected a file that ssdtrt export or ssdtrt compile wrote."


@pytest.mark.parametrize("size", range(0, len(RECORD), 97))
def test_a_truncated_record_is_refused_by_its_name(path, size):
    record_path(path).write_bytes(RECORD[:size])
    for call in (check_file, check_intact, read_metadata):
        assert "FILE" in refusal(path, call)
    assert "FILE.json" in refusal(path, check_intact)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"[]", "FILE.json is damaged (Expected `object`, got `array`)"),
        (b"{}", "FILE.json is damaged (Object missing required field `plan`)"),
        (b'{"plan": null}', "FILE.json is damaged (Expected `object`, got `null` - at `$.plan`)"),
        (b"\xff", "FILE.json is damaged ("),
        (b'{"plan": ' + b"[" * 100_000, "FILE.json is damaged ("),
        (json.dumps({"plan": {"size": 1, "sha256": "0"}}).encode(), "FILE.json is damaged ("),
    ],
)
def test_a_damaged_record_is_refused_by_its_name(path, content, reason):
    record_path(path).write_bytes(content)
    assert refusal(path, check_intact).startswith(reason)


def test_a_record_above_the_limit_is_not_read(path, monkeypatch):
    monkeypatch.setattr(config, "MAX_METADATA", 100)
    assert refusal(path) == "FILE.json has more than 100 bytes, which no record has. Make it again."


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"format": "torchscript"}, "format is 'torchscript'; expected 'plan'"),
        ({"format": "onnx"}, "format is 'onnx'; expected 'plan'"),
        ({"kind": "other"}, "kind"),
        ({"kind": "detector"}, "a plan is an engine of the front end tensorrt"),
        ({"kind": "module"}, ""),
    ],
)
def test_a_record_of_another_kind_or_format(path, changes, reason):
    metadata = {**plan_metadata(), **changes}
    if changes.get("kind") == "detector":
        metadata["request"]["detector"] = True
    record_path(path).write_text(json.dumps(metadata))
    message = refusal(path, lambda path: check_file(path, ("engine", "detector")))
    assert message.startswith("FILE ") and reason in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_opened(path):
    os.mkfifo(path.with_name("pipe.plan"))
    with pytest.raises(ArtifactError, match="pipe.plan is a named pipe"):
        is_plan(path.with_name("pipe.plan"))
    record_path(path).unlink()
    os.mkfifo(record_path(path))
    for call in (check_file, check_intact, read_metadata):
        assert refusal(path, call).startswith("FILE.json is a named pipe; expected")


def test_a_folder_in_place_of_the_record(path):
    record_path(path).unlink()
    record_path(path).mkdir()
    assert refusal(path).startswith("FILE.json is a directory; expected")


def test_a_missing_plan_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refusal(tmp_path / "ssd300.plan") == (
        "FILE: no such file. Make it first on a machine with a GPU and TensorRT: ssdtrt export && ssdtrt compile --format "
        "plan -o FILE"
    )


def test_a_digest_beside_it_is_checked(path):
    path.with_name("a.plan.sha256").write_text(f"{'0' * 64}  a.plan\n")
    assert "as recorded in" in refusal(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None,
          max_examples=int(os.environ.get("SSDTRT_FUZZ", 150)))  # fmt: skip
@given(plan=st.binary(max_size=40), record=st.binary(max_size=200) | st.integers(0, 1 << 30), flip=st.integers(1, 255))
def test_no_bytes_give_another_error(tmp_path, plan, record, flip):
    """A plan and its record of any bytes, or a record with one changed byte."""
    path = tmp_path / "fuzz.plan"
    path.write_bytes(plan if isinstance(record, bytes) else PLAN)
    if isinstance(record, int):
        place = record % len(RECORD)
        record = RECORD[:place] + bytes([RECORD[place] ^ flip]) + RECORD[place + 1 :]
    record_path(path).write_bytes(record)
    for call in (check_intact, read_metadata):
        try:
            call(path)
        except ArtifactError as error:
            assert "fuzz.plan" in str(error) and "\n" not in str(error)


def test_reading_needs_no_torch(path):
    code = (
        "import sys; sys.modules.update(torch=None, tensorrt=None)\n"
        "from ssdtrt.artifact.inspection import inspect_file\n"
        "print(inspect_file(sys.argv[1], check=True).metadata['format'])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("plan\n", "")
