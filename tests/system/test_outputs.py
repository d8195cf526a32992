"""Tests of output files: refused early if they cannot be written, and written by one process at a time."""

import os

import pytest

from ssdtrt.errors import ArtifactError
from ssdtrt.system.outputs import check_output, writing


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
