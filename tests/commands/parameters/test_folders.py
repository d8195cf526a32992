"""Which names -o does not take for a new folder."""

import click
import pytest

from ssdtrt.commands.parameters.folders import check_folder_name


@pytest.mark.parametrize(
    "name", [None, "out", "out.d", "run-1.2", "new/out", "photos.2024", "a.b/c", "s3://bucket/out"]
)
def test_names_of_folders(name):
    check_folder_name(name)


@pytest.mark.parametrize(
    "name, kind",
    [("a.jpg", "a picture"), ("new/a.PNG", "a picture"), ("a.mp4", "a video"), ("a.json", "JSON"), ("a.jsonl", "JSON")],
)
def test_names_of_files_but_for_folders_that_are_there(name, kind, tmp_path):
    path = tmp_path / name
    with pytest.raises(click.UsageError, match=f"-o is a folder, and .*{name} is called like {kind}: give a folder"):
        check_folder_name(str(path))
    path.mkdir(parents=True)
    check_folder_name(str(path))
