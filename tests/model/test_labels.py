"""The names of the classes: COCO's, numbered ones, and those of a file."""

import pytest

from ssdtrt.errors import WeightsError
from ssdtrt.model.labels import class_names, read_labels


def test_default_names():
    names = class_names(81, None)
    assert len(names) == 81
    assert (names[0], names[1], names[17], names[80]) == ("background", "person", "dog", "toothbrush")
    assert class_names(2, None) == ("background", "class 1")


def test_read_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\napple\n  crab apple  \r\n\nJerusalem artichoke\nkäki", encoding="utf-8")
    assert read_labels(path) == ("apple", "crab apple", "Jerusalem artichoke", "käki")


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "names no class"), (b"\n \n", "names no class"), (b"\xff\xfe\x00", "cannot be read as")],
)
def test_labels_file_without_labels(content, part, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=part) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


def test_missing_labels_file(tmp_path):
    with pytest.raises(WeightsError, match="none.txt cannot be read as a list of labels .No such file or directory"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(WeightsError, match="cannot be read as a list of labels .Is a directory"):
        read_labels(tmp_path)
