"""The names of the classes: COCO's, numbered ones, and those of a file."""

import pytest

from ssdtrt.errors import WeightsError
from ssdtrt.model.labels import (
    are_numbered,
    class_names,
    names_by_number,
    names_of_checkpoint,
    read_labels,
    recorded_names,
    without_background,
)


def test_classes_without_names_are_numbered():
    names = class_names(81, None)
    assert (len(names), names[0], names[1], names[80]) == (81, "background", "class 1", "class 80")
    assert class_names(2, None) == ("background", "class 1")
    assert are_numbered(names) and are_numbered(("background", "class 1"))
    assert not are_numbered(("background", "class 1", "bolt")) and not are_numbered(("background", "class 2"))


def test_coco_is_a_list_of_labels():
    names = read_labels("coco")
    assert (len(names), names[0], names[16], names[79]) == (80, "person", "dog", "toothbrush")


def test_read_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\napple\n  crab apple  \r\n\nJerusalem artichoke\nkäki", encoding="utf-8")
    assert read_labels(path) == ("apple", "crab apple", "Jerusalem artichoke", "käki")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "names no class"),
        (b"\n \n", "names no class"),
        (b"\xef\xbb\xbf", "names no class"),
        (b"background\n", "names no class"),
        (b"\xff\xfe\x00", "cannot be read as"),
        (b"k\x00\xe4\x00\n\x00", "'k.*' is no name.*Save it as UTF-8"),
        (b"a\n\x81\n", "cannot be read as a list of labels"),
        (b"cat\nbackground\ndog\n", "has 'background' as class 2; the background is before all classes: leave it out"),
    ],
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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_a_class(encoding, tmp_path):
    path = tmp_path / "labels.txt"
    mark = "\ufeff" if encoding.endswith("e") else ""
    path.write_bytes(f"{mark}käki\r\npear\r\n".encode(encoding))
    notes = []
    assert read_labels(path, notes.append) == ("käki", "pear") and notes == []


def test_the_mark_of_a_list_that_was_put_behind_another(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffapple\n\ufeffpear\n".encode())
    assert read_labels(path) == ("apple", "pear")


def test_windows_1252_is_read_with_a_note(tmp_path):
    path, notes = tmp_path / "labels.txt", []
    path.write_bytes(b"apple\nk\xe4ki\ncr\xe8me\n")
    assert read_labels(path, notes.append) == ("apple", "käki", "crème")
    (note,) = notes
    assert (
        note == f"{path} is not UTF-8; it was read as Windows-1252 (käki, crème). If that is wrong, save it as UTF-8."
    )


@pytest.mark.parametrize("first", ["background", "Background", "__background__", "BACKGROUND "])
def test_a_first_line_background_is_no_class(first, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(f"\n{first}\napple\npear\n")
    assert read_labels(path) == ("apple", "pear")
    assert without_background([first, "apple"]) == ("apple",)


def test_no_labels_are_no_labels():
    assert without_background([]) == ()
    with pytest.raises(WeightsError, match="The list of labels has 'background' as class 3; the background is before"):
        without_background(["cat", "dog", "background"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"label_map": {0: "background", 1: "bolt", 2: "nut"}}, {0: "background", 1: "bolt", 2: "nut"}),
        ({"label_map": {"1": "bolt", "2": " nut "}}, {1: "bolt", 2: "nut"}),
        ({"label_map": {"bolt": 1, "nut": 2}}, {1: "bolt", 2: "nut"}),
        ({"classes": ["bolt", "nut"]}, {0: "bolt", 1: "nut"}),
        ({"class_names": ("bolt",)}, {0: "bolt"}),
        ({"classes": 4, "names": ["bolt"]}, {0: "bolt"}),
        ({"label_map": {1: 1, 2: 2}}, {}),  # category id to number, as older trainings have it
        ({"label_map": {}}, {}),
        ({"labels": None, "names": ["bolt", 3]}, {}),
        ({"label_map": {1: "bolt", 2: " "}}, {}),
        ({"label_map": {-1: "bolt"}}, {}),
        ({"epoch": 3}, {}),
    ],
)
def test_names_that_a_checkpoint_records(content, expected):
    assert recorded_names(content) == expected


@pytest.mark.parametrize(
    ("recorded", "names"),
    [
        ({0: "background", 1: "bolt", 2: "nut", 3: "pin"}, ("bolt", "nut", "pin")),
        ({1: "bolt", 2: "nut", 3: "pin"}, ("bolt", "nut", "pin")),
        ({0: "bolt", 1: "nut", 2: "pin"}, ("bolt", "nut", "pin")),  # They count from 0, without the background.
        ({0: "nothing", 1: "bolt", 2: "nut", 3: "pin"}, ("bolt", "nut", "pin")),
    ],
)
def test_every_class_is_named(recorded, names):
    assert names_of_checkpoint(4, recorded) == (("background", *names), None)


def test_fewer_names_than_classes():
    names, note = names_of_checkpoint(6, {0: "background", 1: "bolt", 2: "nut", 3: "pin", 4: "cog"})
    assert names == ("background", "bolt", "nut", "pin", "cog", "class 5")
    assert note == "names 4 of its 5 classes (bolt, nut, pin, ...)."
    assert names_of_checkpoint(4, {1: "bolt", 3: "pin"}) == (
        ("background", "bolt", "class 2", "pin"),
        "names 2 of its 3 classes (bolt, pin).",
    )


@pytest.mark.parametrize(
    ("recorded", "found"),
    [({1: "bolt", 9: "pin"}, "2 from 1 to 9"), ({0: "bolt", 1: "nut"}, "2 from 0 to 1")],  # The nut is 1, or 2.
)
def test_names_that_do_not_fit_are_not_used(recorded, found):
    names, note = names_of_checkpoint(6, recorded)
    assert names == ("background", "class 1", "class 2", "class 3", "class 4", "class 5")
    assert note == (
        f"has class names that do not fit its 5 classes ({found}): not used. "
        "--labels FILE names them (--labels coco: COCO's 80)."
    )


def test_no_names():
    names, note = names_of_checkpoint(3, {})
    assert names == ("background", "class 1", "class 2")
    assert note == (
        "holds no class names: classes are numbered, 1 to 2. --labels FILE names them (--labels coco: COCO's 80)."
    )


def test_white_space_in_names_is_a_space_and_letters_are_letters(tmp_path):
    (tmp_path / "labels.txt").write_text("traffic\xa0light\nstop\tsign\nm\u200cn\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ("traffic light", "stop sign", "m\u200cn")


def test_recorded_names_with_a_background_among_the_classes_are_not_used():
    assert names_by_number(3, {1: "background", 2: "dog"}) is None
    assert recorded_names({"label_map": {1: "traffic\n light"}}) == {1: "traffic light"}
