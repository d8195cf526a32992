"""Which file is which annotated picture: in a folder, and for the ids of COCO's results."""

import io
from pathlib import Path

import pytest
from coco_files import write_annotations

from ssdtrt import config
from ssdtrt.errors import AnnotationsError, ImageError
from ssdtrt.evaluation.annotations import read_annotations
from ssdtrt.evaluation.pictures import coco_ids, find_pictures

CAT, DOG = {1: "cat", 4: "dog"}, ["background", "dog"]
BOX = [1, 2, 3, 4]


@pytest.fixture
def listing(tmp_path):
    """Annotations that list pictures {id: name}, each with a cat, in a file: `listing(names)`."""

    def make(names, categories=CAT):
        first = next(iter(categories))
        objects = [(image, first, BOX) for image in names]
        return read_annotations(write_annotations(tmp_path / "val.json", names, objects, categories))

    return make


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_pictures_are_found(listing, tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    known = listing({9: "b.jpg", 2: "a.jpg"})
    same, paths = find_pictures(known, tmp_path)
    assert same is known and list(paths.items()) == [(2, tmp_path / "a.jpg"), (9, tmp_path / "b.jpg")]


def test_backslashes_separate_folders_where_they_are_no_name(listing, tmp_path):
    touch(tmp_path, "val/a.jpg", "odd\\name.jpg")
    known = listing({1: "val\\a.jpg", 2: "odd\\name.jpg"})
    assert find_pictures(known, tmp_path)[1] == {1: tmp_path / "val" / "a.jpg", 2: tmp_path / "odd\\name.jpg"}


def test_some_pictures_are_missing(listing, tmp_path):
    known = listing({number: f"{number}.jpg" for number in range(1, 9)})
    touch(tmp_path, "3.jpg")
    with pytest.raises(AnnotationsError) as caught:
        find_pictures(known, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} lacks 7 of the 8 pictures that {known.path} lists: 1.jpg, 2.jpg, 4.jpg and 4 more. "
        "Their objects would count as missed: add them, or evaluate the others alone (--subset)."
    )


def test_a_subset_has_the_pictures_that_are_there_and_their_objects(listing, tmp_path):
    known = listing({number: f"{number}.jpg" for number in range(1, 9)})
    touch(tmp_path, "3.jpg", "8.jpg")
    part, paths = find_pictures(known, tmp_path, subset=True)
    assert part.images == {3: "3.jpg", 8: "8.jpg"} and paths == {n: tmp_path / f"{n}.jpg" for n in (3, 8)}
    assert [one.image_id for one in part.objects] == [3, 8] and part.categories == CAT
    assert part.notes == (
        f"a subset: {tmp_path} lacks 6 of 8 pictures, left out with 6 objects (1.jpg, 2.jpg, 4.jpg and 3 more)",
    )
    touch(tmp_path, *known.images.values())
    assert find_pictures(known, tmp_path, subset=True)[0] is known


def test_a_subset_without_objects(tmp_path):
    objects = [(1, 1, BOX), {"image_id": 2, "category_id": 1, "bbox": BOX, "iscrowd": 1}]
    known = read_annotations(write_annotations(tmp_path / "val.json", {1: "1.jpg", 2: "2.jpg"}, objects, CAT))
    touch(tmp_path / "in", "2.jpg")
    with pytest.raises(AnnotationsError, match="val.json has no object in the 1 picture of .*in.$"):
        find_pictures(known, tmp_path / "in", subset=True)


def test_a_pattern_is_the_pictures_whose_paths_end_with_the_listed_names(listing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "in/a/1.jpg", "in/b/1.jpg", "in/2.jpg", "in/other.jpg", "in/notes.txt")
    known = listing({1: "a/1.jpg", 2: "b/1.jpg", 3: "2.jpg"})
    found, paths = find_pictures(known, "in/**/*.jpg")
    assert paths == {1: Path("in/a/1.jpg"), 2: Path("in/b/1.jpg"), 3: Path("in/2.jpg")}
    assert found.notes == (f"in/**/*.jpg: left out 1 picture that {known.path} does not list (in/other.jpg)",)
    part, paths = find_pictures(known, "in/[ab]/*", subset=True)
    assert list(part.images) == [1, 2] and part.notes[-1].startswith("a subset: in/[ab]/* lacks 1 of 3 pictures")
    with pytest.raises(AnnotationsError, match=r"^in/2.* lacks 2 of the 3 pictures that "):
        find_pictures(known, "in/2*")
    with pytest.raises(ImageError, match=r"^in/x\* matches no file.$"):
        find_pictures(known, "in/x*")
    with pytest.raises(
        AnnotationsError, match="in/a/1.jpg and in/b/1.jpg both are 1.jpg of .*val.json. Leave one out."
    ):
        find_pictures(listing({1: "1.jpg"}), "in/[ab]/*")


def test_a_list_on_stdin_is_the_pictures_too(listing, tmp_path, monkeypatch):
    touch(tmp_path, "x/1.jpg")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{tmp_path}/x/1.jpg\n".encode())))
    known = listing({7: "1.jpg"})
    assert find_pictures(known, "-") == (known, {7: tmp_path / "x" / "1.jpg"})


def test_wrong_folder(listing, tmp_path):
    known = listing({1: "a.jpg", 2: "b.jpg"})
    for subset in (False, True):
        with pytest.raises(AnnotationsError, match=r" holds none of the 2 pictures that .*lists \(a.jpg, b.jpg\).$"):
            find_pictures(known, tmp_path, subset=subset)
    with pytest.raises(AnnotationsError, match="no does not exist; expected the directory of the pictures.$"):
        find_pictures(known, tmp_path / "no")
    with pytest.raises(AnnotationsError, match="val.json is not a directory; expected the directory of the pictures.$"):
        find_pictures(known, known.path)


# The ids of COCO's results


def test_names_that_are_cocos_numbers_and_labels_that_are_cocos():
    ids = coco_ids([Path("val/000139.jpg"), "7.png"], config.COCO_LABELS)
    assert ids.images == {"val/000139.jpg": 139, "7.png": 7} and ids.notes == ()
    assert (ids.categories[0], ids.categories[1], ids.categories[12], ids.categories[80]) == (None, 1, 13, 90)
    assert coco_ids([], ["background", "toothbrush", "person"]).categories == [None, 90, 1]


@pytest.mark.parametrize(
    "pictures, message",
    [
        (
            ["a/0001.jpg", "b/1.jpg"],
            "a/0001.jpg and b/1.jpg both have the id 1. Leave one out, or give --annotations FI",
        ),
        (["1.jpg", "2.jpg", "1.jpg"], "given more than once: 1.jpg. Give each picture once."),
        (
            ["1.jpg", "street.jpg"],
            "street.jpg has no number as name, such as 000139.jpg, to be the id: give --annotatio",
        ),
        (["\u0664.jpg", "-5.jpg", "1.5.jpg", "x.jpg"], "\u0664.jpg, -5.jpg, 1.5.jpg and 1 more have no number as name"),
    ],
)
def test_pictures_whose_id_is_in_doubt(pictures, message):
    with pytest.raises(AnnotationsError) as caught:
        coco_ids(pictures, config.COCO_LABELS)
    assert str(caught.value).startswith(f"No COCO results: {message}")


@pytest.mark.parametrize(
    "labels, message",
    [
        (["person", "pothole", "car"], "pothole among the model's 3 classes: not COCO's, so the category ids are not "
         "known: give --annotations FILE, whose categories have them."),
        (["cat", "dog", "cat"], "cat among the model's 3 classes: there more than once, so the category ids are not "),
        ([f"class {number}" for number in range(1, 81)], "class 1, class 2, class 3 and 77 more among the model's 80"),
    ],
)  # fmt: skip
def test_labels_whose_id_is_in_doubt(labels, message):
    with pytest.raises(AnnotationsError) as caught:
        coco_ids(["1.jpg"], ["background", *labels])
    assert str(caught.value).startswith(f"No COCO results: {message}")


def test_ids_by_file_name_and_class_name(listing):
    names = {5: "a/0001.jpg", 8: "b\\1.jpg", 9: "1.jpg", 3: "/data/street.jpg"}
    known = listing(names, {4: "cat", 17: "dog", 20: "cow"})
    pictures = ["val/a/0001.jpg", "b/1.jpg", "elsewhere/1.jpg", "/data/street.jpg"]
    ids = coco_ids(pictures, ["background", "dog", "cat"], known)
    assert ids.images == dict(zip(pictures, (5, 8, 9, 3))) and ids.categories == [None, 17, 4]
    assert ids.notes == ("the model has no class for cow; objects of that kind count as missed",)


def test_an_unused_duplicate_category_is_not_taken(listing):
    known = listing({1: "a.jpg"}, {7: "dog", 3: "dog"})  # The picture has a 7.
    ids = coco_ids(["a.jpg"], DOG, known)
    assert ids.categories == [None, 7]
    assert ids.notes == ("category 3 has the name of category 7, dog, and no object; left out",)


def test_text_ids_by_file_name(listing):
    known = listing({"x": "a.jpg", "y": "b.jpg"}, {"k": "dog"})
    assert coco_ids(["in/b.jpg"], DOG, known).images == {"in/b.jpg": "y"}
    assert coco_ids(["in/b.jpg"], DOG, known).categories == [None, "k"]


@pytest.mark.parametrize(
    "pictures, message",
    [
        (["in/a.jpg", "in/c.jpg"], "in/c.jpg has no id in {}, which lists a.jpg, sub/b.jpg: add them there, or leave"),
        (["b.jpg"], "b.jpg has no id in {}, which lists a.jpg, sub/b.jpg: add them there, or leave them out."),
        (["xa.jpg", "y/b.jpg"], "xa.jpg, y/b.jpg have no id in {}, which lists a.jpg, sub/b.jpg: add them there, or "),
        (["in/a.jpg", "out/a.jpg"], "in/a.jpg and out/a.jpg both have the id 1. Leave one out, or give --annotations "),
        (
            ["a.jpg", "x/../a.jpg"],
            "a.jpg and x/../a.jpg both have the id 1. Leave one out, or give --annotations FILE ",
        ),
    ],
)
def test_pictures_that_are_not_listed_or_twice(listing, pictures, message):
    known = listing({1: "a.jpg", 2: "sub/b.jpg"})
    with pytest.raises(AnnotationsError) as caught:
        coco_ids(pictures, DOG, known)
    assert str(caught.value).startswith("No COCO results: " + message.format(known.path))


def test_one_file_name_of_two_ids(listing):
    known = listing({3: "v/a.jpg", 9: "v\\a.jpg"})
    with pytest.raises(AnnotationsError) as caught:
        coco_ids(["v/a.jpg"], DOG, known)
    assert str(caught.value) == f"{known.path} lists v/a.jpg more than once, with the ids 3 and 9."
