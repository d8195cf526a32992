"""What is written into a model repository: whole versions, nothing lost, and nothing of somebody else's replaced."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from serving_files import another, plan_file

from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.serving.triton import repository
from ssdtrt.serving.triton.config import TritonOptions, is_as_written
from ssdtrt.serving.triton.repository import model_name, write_repository
from ssdtrt.system.digests import sha256_file


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def test_a_detector_and_an_engine(detector_file, engine, models, ssdtrt):
    done = ssdtrt("triton", detector_file, engine, "--repository", models, "--json", "out.json")
    assert done.exit_code == 0, done.stderr
    names = ["ssd300_detector", "ssd300_engine"]
    each = ("1/labels.txt", "1/model.pt", "config.pbtxt")
    assert files_in(models) == [f"{name}/{file}" for name in names for file in each]
    assert (models / names[0] / "1" / "model.pt").read_bytes() == detector_file.read_bytes()
    labels = (models / names[0] / "1" / "labels.txt").read_text().splitlines()
    assert labels == list(read_metadata(detector_file).model.labels)
    found = json.loads(Path("out.json").read_text())
    assert (found["kind"], found["schema"], found["repository"]) == ("triton", 1, str(models))
    first = found["models"][0]
    assert (first["name"], first["version"], first["written"], first["backend"]) == (names[0], 1, True, "pytorch")
    assert (first["sha256"], first["folder"]) == (sha256_file(detector_file), str(models / names[0] / "1"))
    assert done.stdout.splitlines()[0] == (f"{models}/ssd300_detector/1: {detector_file}, backend pytorch, written")
    assert done.stderr.count("note: ") == 2 and "CPU engine" in done.stderr


def test_a_new_file_is_the_next_version_and_the_same_is_none(engine, models, tmp_path):
    assert write_repository([engine], models, name="m").models[0].version == 1
    before = contents(models)
    again = write_repository([engine], models, name="m").models[0]
    assert (again.version, again.written, contents(models)) == (1, False, before)
    changed = write_repository([engine], models, name="m", options=TritonOptions(queue_delay=7))
    assert not changed.models[0].written
    after = contents(models)
    assert {path.name for path in before if before[path] != after[path]} == {"config.pbtxt"}
    newer = write_repository([another(engine, tmp_path / "other.engine.ts")], models, name="m").models[0]
    assert (newer.version, newer.written) == (2, True)
    assert sha256_file(models / "m" / "1" / "model.pt") == sha256_file(engine)
    assert newer.sha256 in (models / "m" / "config.pbtxt").read_text()
    back = write_repository([engine], models, name="m").models[0]
    assert (back.version, back.written) == (3, True)  # The newest version is the one that is served.
    assert sorted(path.name for path in (models / "m").iterdir()) == ["1", "2", "3", "config.pbtxt"]


def test_what_a_killed_writer_left_is_completed(engine, models):
    write_repository([engine], models, name="m")
    shutil.rmtree(models / "m" / "1")
    (models / "m" / ".writing-killed").mkdir()
    assert write_repository([engine], models, name="m").models[0].version == 1
    shutil.rmtree(models / "m" / "1")
    (models / "m" / "1").mkdir()  # Somebody's, and empty.
    assert write_repository([engine], models, name="m").models[0].version == 2


def test_a_full_disk_changes_nothing(engine, models, tmp_path, monkeypatch):
    write_repository([engine], models, name="m")
    before, other = contents(models), another(engine, tmp_path / "other.engine.ts")

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(repository.shutil, "copyfile", full)
    with pytest.raises(ArtifactError, match="cannot be written: No space left on device"):
        write_repository([other], models, name="m")
    assert contents(models) == before and sorted(os.listdir(models / "m")) == ["1", "config.pbtxt"]
    with pytest.raises(ArtifactError, match="cannot be written: No space left on device"):
        write_repository([other], tmp_path / "new")
    monkeypatch.undo()
    assert write_repository([other], tmp_path / "new").models[0].version == 1  # The same again, with room.


def refused(message, *arguments, kind=ArtifactError, **options):
    with pytest.raises(kind, match=message):
        write_repository(*arguments, **options)


def test_what_is_not_ours_is_left(engine, detector_file, models):
    write_repository([engine], models, name="m")
    text = (models / "m" / "config.pbtxt").read_text()
    (models / "m" / "config.pbtxt").write_text(text.replace("count: 1", "count: 4"))
    (models / "theirs" / "1").mkdir(parents=True)
    before = contents(models)
    refused("config.pbtxt is not as ssdtrt triton wrote it", [engine], models, name="m")
    refused("theirs exists and has no config.pbtxt", [engine], models, name="theirs")
    (models / "m" / "config.pbtxt").write_text(text)
    refused("has other inputs or outputs than", [detector_file], models, name="m")
    refused("would both be the model ssd300_engine", [engine, engine], models, kind=SsdtrtError)
    refused("A name is for one file; found 2", [engine, detector_file], models, name="x", kind=SsdtrtError)
    refused("is no name of a model", [engine], models, name="../x", kind=SsdtrtError)
    (models / "m" / "config.pbtxt").write_bytes(before[models / "m" / "config.pbtxt"])
    assert contents(models) == before and sorted(os.listdir(models)) == ["m", "theirs"]


def test_folders_that_are_no_repository(engine, tmp_path):
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    refused("holds work and no model, so it is no model repository", [engine], home)
    (tmp_path / "file").write_text("x")
    refused("is no folder", [engine], tmp_path / "file")
    assert files_in(home) == [] and (tmp_path / "file").read_text() == "x"
    (home / "work" / "1").mkdir()  # Now it is a model with a version.
    assert write_repository([engine], home).models[0].name == "ssd300_engine"
    (tmp_path / "empty").mkdir()
    assert write_repository([engine], tmp_path / "empty").models[0].version == 1


def test_files_that_triton_does_not_get(module, engine, onnx_detector, models, tmp_path):
    refused("is a module; expected a file of kind engine or detector", [module], models)
    refused("is an ONNX file", [onnx_detector], models)
    damaged = tmp_path / "damaged.engine.ts"
    damaged.write_bytes(engine.read_bytes()[:-100])
    refused("damaged", [engine, damaged], models)
    refused("is a CPU engine; leave --gpus out", [engine], models, options=TritonOptions(gpus=(0,)), kind=SsdtrtError)
    assert not models.exists()


def test_plans_and_what_they_cannot_do(models, tmp_path):
    one, from_two = plan_file(tmp_path / "a.plan", "8"), plan_file(tmp_path / "b.plan", "2:8:32")
    first, second = write_repository([one, from_two], models).models
    assert files_in(models / "a") == ["1/labels.txt", "1/model.plan", "1/model.plan.json", "config.pbtxt"]
    assert read_metadata(models / "a" / "1" / "model.plan") == read_metadata(one)
    assert first.notes[0].startswith("No container of NVIDIA's has TensorRT 8.6.0")
    assert first.notes[1].startswith("a.plan takes batches of 8 alone, so Triton gathers no requests")
    assert second.notes[1:] == ("b.plan takes no batch below 2: smaller requests that wait alone too long fail.",)
    assert is_as_written((models / "b" / "config.pbtxt").read_text())
    refused(
        "was built for batch 8; leave --max-batch out",
        [one],
        models,
        options=TritonOptions(max_batch=4),
        kind=SsdtrtError,
    )


def test_names():
    assert model_name("/x/ssd300.detector.ts") == "ssd300_detector" and model_name("a b.plan") == "a_b"
    assert model_name(".ts") == "model"
