"""Output files: refused early if they cannot be written, written by one process at a time, removed by their record."""

import hashlib
import json
import os

import pytest

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.system.outputs import FolderRecord, check_output, new_folder, remove_written, writing, written_files


def test_output_that_can_be_written(tmp_path):
    assert check_output(str(tmp_path / "new.ts")) == tmp_path / "new.ts"
    assert os.listdir(tmp_path) == []


def test_output_is_a_directory(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        check_output(tmp_path)
    assert str(caught.value) == f"{tmp_path} cannot be written: it is a directory. Give another path with -o."


def test_output_without_a_folder(tmp_path):
    path = tmp_path / "no" / "new.ts"
    with pytest.raises(ArtifactError) as caught:
        check_output(path)
    reason = f"there is no directory {path.parent}"
    assert str(caught.value) == f"{path} cannot be written: {reason}. Give another path with -o."


def test_what_the_system_refuses_while_writing_is_one_line(tmp_path):
    with pytest.raises(ArtifactError) as caught, writing(tmp_path / "new.ts"):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == f"{tmp_path / 'new.ts'} cannot be written: No space left on device."
    assert os.listdir(tmp_path) == []


# Files that are removed by their record


def test_a_record_tells_what_was_written_from_what_is_the_users(tmp_path):
    record = FolderRecord(tmp_path)
    for name in ("a.jpg", "crops/cat/a.jpg", "crops/dog/a.jpg", "changed.jpg", "gone.jpg", "odd\udce9.jpg"):
        record.write(name, name.encode(errors="surrogateescape"))
    record.close()
    (tmp_path / "changed.jpg").write_bytes(b"the user's")
    (tmp_path / "gone.jpg").unlink()
    (tmp_path / "mine.jpg").write_bytes(b"a.jpg")  # The same bytes under another name.
    (tmp_path / "crops" / "dog" / "mine.txt").touch()
    assert hashlib.sha256(b"a.jpg").hexdigest() == written_files(tmp_path)[tmp_path / "a.jpg"]
    with open(tmp_path / config.RECORD_FILE, "ab") as file:  # Of a run that was killed, and what nobody writes.
        file.write(b'[1]\n{"file": 1}\n{"file": "../x", "sha256": ""}\n{"file": "/x", "sha256": ""}\n{"file": "mi')
    assert len(written_files(tmp_path)) == 6
    remove_written(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"changed.jpg", "mine.jpg", "crops/dog/mine.txt", config.RECORD_FILE}
    assert not (tmp_path / "crops" / "cat").exists()
    FolderRecord(tmp_path).close()
    assert written_files(tmp_path) == {} == written_files(tmp_path / "none")


def test_a_record_never_leads_out_of_its_folder(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"mine")
    folder = tmp_path / "out"
    folder.mkdir()
    lines = [{"file": name, "sha256": hashlib.sha256(b"mine").hexdigest()} for name in
             ("../mine.txt", str(tmp_path / "mine.txt"), "a/../../mine.txt", "link/mine.txt", "a\0/b")]  # fmt: skip
    (folder / "link").symlink_to(tmp_path)
    (folder / config.RECORD_FILE).write_text("\n".join([*map(json.dumps, lines), "[" * 100_000]))
    remove_written(folder)
    assert (tmp_path / "mine.txt").read_bytes() == b"mine"


def test_new_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out-3").touch()
    assert [str(new_folder("out")) for _ in range(3)] == ["out", "out-2", "out-4"]
    with pytest.raises(
        ArtifactError, match=r"^out-3/out cannot be made: Not a directory. Give another folder with -o.$"
    ):
        new_folder("out-3/out")
