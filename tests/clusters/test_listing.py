"""Lists of pictures: local ones as for `detect`, and those in object stores."""

import fsspec
import pytest

from ssdtrt.clusters.listing import list_pictures
from ssdtrt.errors import ArtifactError, ImageError


@pytest.fixture
def bucket():
    """Pictures and others in a store in memory, of which only names are looked at."""
    store = fsspec.filesystem("memory")
    names = ("b.jpg", "a.PNG", "deep/er/c.webp", "deep/read.me", "notes.txt", "set [v1]/d.jpg")
    for name in names:
        store.pipe_file(f"/bucket/{name}", b"x")
    yield "memory://bucket"
    store.rm("/bucket", recursive=True)


def test_a_folder_of_a_store_stands_for_the_pictures_below_by_suffix(bucket):
    assert list_pictures([bucket]) == [
        "memory:///bucket/a.PNG", "memory:///bucket/b.jpg", "memory:///bucket/deep/er/c.webp",
        "memory:///bucket/set [v1]/d.jpg",
    ]  # fmt: skip


def test_patterns_match_and_a_file_stands_for_itself(bucket):
    assert list_pictures([f"{bucket}/*.jpg"]) == ["memory:///bucket/b.jpg"]
    assert list_pictures([f"{bucket}/nothing-there.jpg"]) == [f"{bucket}/nothing-there.jpg"]


def test_local_paths_and_stores_keep_their_order(bucket, pictures):
    first, second = pictures("1.png"), pictures("2.png")
    found = list_pictures([second, f"{bucket}/b.jpg", "https://host/x.jpg", first.parent])
    assert found == [str(second), f"{bucket}/b.jpg", "https://host/x.jpg", str(first), str(second)]


def test_what_holds_nothing_is_refused(bucket, tmp_path):
    with pytest.raises(ImageError, match=r"^memory://bucket/\*.gif matches no file\.$"):
        list_pictures([f"{bucket}/*.gif"])
    fsspec.filesystem("memory").pipe_file("/bucket/texts/a.txt", b"x")
    with pytest.raises(ImageError, match="^memory://bucket/texts holds no pictures.$"):
        list_pictures([f"{bucket}/texts"])
    with pytest.raises(ImageError, match="holds no pictures"):
        list_pictures([tmp_path])


def test_a_file_system_that_is_not_known_is_said_without_the_password():
    with pytest.raises(ArtifactError, match=r"^nosuch://host/a cannot be opened with fsspec: Protocol not known"):
        list_pictures(["nosuch://user:secret@host/a"])
