"""Folders on disks and in stores: files appear as a whole, and errors say where."""

import pickle

import fsspec
import pytest

from ssdtrt.clusters.storage import Folder, is_stored
from ssdtrt.errors import ArtifactError


@pytest.fixture(params=["disk", "memory", "file"])
def place(request, tmp_path):
    """A folder that is not there yet, as a path, in a store in memory, and as the address of a disk."""
    if request.param == "memory":
        yield "memory://results"
        fsspec.filesystem("memory").rm("/results", recursive=True)
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/results"


def test_what_is_written_is_there(place):
    folder = Folder(place)
    assert folder.names() == []
    folder.make()
    folder.make()
    folder.write("a.txt", b"first")
    folder.write("b.txt", b"second")
    other = pickle.loads(pickle.dumps(folder))
    other.write("a.txt", b"again")
    assert sorted(folder.names()) == ["a.txt", "b.txt"]
    with folder.open("a.txt") as file:
        assert file.read() == b"again"
    folder.remove("b.txt")
    assert folder.names() == ["a.txt"]


def test_errors_are_one_line(place, tmp_path):
    with pytest.raises(ArtifactError, match=r"results/none\.txt cannot be read: "):
        Folder(place).open("none.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"/file/x cannot be written: Not a directory\. Give another with -o\.$"):
        Folder(str(tmp_path / "file" / "x")).make()
    Folder(place).make()


@pytest.mark.parametrize(("place", "stored"), [("s3://a/b", True), ("gs://a", True), ("https://a/b", False),
                                               ("HTTP://a", False), ("/a/b", False), ("a", False)])  # fmt: skip
def test_an_object_store_is_an_address_that_is_not_of_the_web(place, stored):
    assert is_stored(place) is stored


def test_a_password_is_not_shown():
    assert str(Folder("memory://user:secret@results")) == "memory://results"
