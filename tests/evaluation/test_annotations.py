"""Annotation files: what is read, what is refused in a sentence, and how categories become the model's labels."""

import json

import pytest

from ssdtrt import config
from ssdtrt.errors import AnnotationsError, SsdtrtError
from ssdtrt.evaluation.annotations import CocoObject, find_pictures, listed, match_categories, read_annotations

BOX = {"id": 7, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4.5], "area": 9, "iscrowd": 0}
FORMAT = "is not in COCO's instances format:"


def data(**changes):
    """A small file's content: two pictures, two categories, one object."""
    return {
        "images": [{"id": 9, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}],
        "categories": [{"id": 4, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [BOX],
        **changes,
    }


@pytest.fixture
def saved(tmp_path):
    """Writes a file's content: `saved(content)` -> path."""

    def save(content):
        path = tmp_path / "val.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return save


def test_read(saved):
    crowd = {**BOX, "iscrowd": 1, "segmentation": {"counts": [1], "size": [1, 1]}}
    known = read_annotations(saved(data(annotations=[BOX, crowd])))
    assert list(known.images.items()) == [(2, "a.jpg"), (9, "b.jpg")]
    assert list(known.categories.items()) == [(1, "cat"), (4, "dog")]
    assert known.objects == (
        CocoObject(2, 1, (1, 2, 3, 4.5), area=9, iscrowd=0), CocoObject(2, 1, (1, 2, 3, 4.5), area=9, iscrowd=1)
    )  # fmt: skip
    expected = {"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4.5], "area": 9, "iscrowd": 1}
    assert known.objects[1].as_coco(5) == {"id": 5, **expected}
    assert known.sizes == {} and known.notes == ()


def test_sizes_are_read_where_they_are_given(saved):
    images = [{"id": 2, "file_name": "a.jpg", "width": 640, "height": 480}, {"id": 9, "file_name": "b.jpg", "width": 3}]
    assert read_annotations(saved(data(images=images))).sizes == {2: (640, 480)}


@pytest.mark.parametrize("given", [{}, {"area": None}, {"iscrowd": None}, {"iscrowd": False}])
def test_area_and_crowd_may_be_left_out(saved, given):
    bare = {"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4.5], **given}
    (one,) = read_annotations(saved(data(annotations=[bare]))).objects
    assert (one.as_coco(1)["area"], one.as_coco(1)["iscrowd"]) == (13.5, 0)


def test_an_area_of_0_is_kept(saved):
    (one,) = read_annotations(saved(data(annotations=[{**BOX, "area": 0}]))).objects
    assert one.as_coco(1)["area"] == 0


def test_what_is_not_needed_may_be_anything(saved):
    """Also what JSON does not have: Python and COCO's own tools write and read NaN."""
    content = data(annotations=[{**BOX, "segmentation": [[float("nan")]], "score": None}], info=[3])
    assert len(read_annotations(saved(content)).objects) == 1


def test_byte_order_mark(saved):
    assert read_annotations(saved("\ufeff" + json.dumps(data()))).images == {2: "a.jpg", 9: "b.jpg"}


def test_objects_of_what_is_not_listed_are_left_out(saved):
    known = read_annotations(saved(data(annotations=[BOX, {**BOX, "image_id": 3}, {**BOX, "category_id": 2}])))
    assert len(known.objects) == 1
    assert known.notes == ("2 of 3 annotations are of pictures or categories that are not listed; left out",)


def test_no_such_file(tmp_path):
    with pytest.raises(AnnotationsError, match="no.json: no such file. Give an annotation file in COCO's format.$"):
        read_annotations(tmp_path / "no.json")


def test_directory(tmp_path):
    with pytest.raises(AnnotationsError, match=" is a directory; expected an annotation file in COCO's format.$"):
        read_annotations(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xd8\xff\xe0", b'{"images": [', b"[" * 100_000])
def test_not_json(tmp_path, content):
    (tmp_path / "val.json").write_bytes(content)
    with pytest.raises(AnnotationsError, match=r"val.json is not JSON \(.*\); expected annotations in COCO's format.$"):
        read_annotations(tmp_path / "val.json")


@pytest.mark.parametrize(
    "content, message",
    [
        ([], f"{FORMAT} Expected `object`, got `array`."),
        (3, f"{FORMAT} Expected `object`, got `int`."),
        ({"images": {}}, f"{FORMAT} Expected `array`, got `object` - at `$.images`."),
        (data(images=[]), "lists no images; there is nothing to compare with."),
        (data(categories=None), f"{FORMAT} Expected `array`, got `null` - at `$.categories`."),
        (data(annotations=[]), "lists no annotations; there is nothing to compare with."),
        (
            {"images": data()["images"], "categories": data()["categories"]},
            f"{FORMAT} Object missing required field `annotations`.",
        ),
        (data(images=[{"id": 1}]), f"{FORMAT} Object missing required field `file_name` - at `$.images[0]`."),
        (data(images=[{"id": "1", "file_name": "a"}]), f"{FORMAT} Expected `int`, got `str` - at `$.images[0].id`."),
        (data(images=[{"id": 1, "file_name": "a"}] * 2), ": images[1] has the id 1 of an earlier one."),
        (
            data(categories=[{"id": True, "name": "a"}]),
            f"{FORMAT} Expected `int`, got `bool` - at `$.categories[0].id`.",
        ),
        (data(categories=[{"id": 4, "name": "a"}] * 2), ": categories[1] has the id 4 of an earlier one."),
        (data(annotations=[BOX, 3]), f"{FORMAT} Expected `object`, got `int` - at `$.annotations[1]`."),
        (data(annotations=[{**BOX, "bbox": [1, 2, 3]}]), f"{FORMAT} Expected `array` of length 4, got 3 - at `$.annot"),
        (data(annotations=[{**BOX, "bbox": [1, 2, 3, None]}]), f"{FORMAT} Expected `float`, got `null` - at `$.annot"),
        (
            data(annotations=[BOX, {**BOX, "bbox": [1, 2, 3, float("nan")]}]),
            ": annotations[1] has a bbox or an area that is not finite.",
        ),
        (
            data(annotations=[{**BOX, "area": float("inf")}]),
            ": annotations[0] has a bbox or an area that is not finite.",
        ),
        (
            data(annotations=[{**BOX, "image_id": "2"}]),
            f"{FORMAT} Expected `int`, got `str` - at `$.annotations[0].image_id`.",
        ),
        (
            data(annotations=[{**BOX, "area": "9"}]),
            f"{FORMAT} Expected `float | null`, got `str` - at `$.annotations[0].area`.",
        ),
        (data(annotations=[{**BOX, "image_id": 5}]), "has no object in the pictures and categories that it lists."),
        (data(annotations=[{**BOX, "iscrowd": 1}]), "has no object in the pictures and categories that it lists."),
    ],
)
def test_wrong_structure(saved, content, message):
    path = saved(content)
    with pytest.raises(AnnotationsError) as caught:
        read_annotations(path)
    assert isinstance(caught.value, SsdtrtError)
    assert str(caught.value).removeprefix(str(path)).strip().startswith(message)


def test_pictures_are_found(saved, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    known = read_annotations(saved(data()))
    assert list(find_pictures(known, tmp_path).items()) == [(2, tmp_path / "a.jpg"), (9, tmp_path / "b.jpg")]


def test_some_pictures_are_missing(saved, tmp_path):
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(1, 9)]
    known = read_annotations(saved(data(images=images)))
    (tmp_path / "3.jpg").touch()
    with pytest.raises(AnnotationsError) as caught:
        find_pictures(known, tmp_path)
    assert str(caught.value) == (
        f"7 of the 8 pictures that {known.path} lists are not in {tmp_path}: 1.jpg, 2.jpg, 4.jpg and 4 more. "
        "Their objects would count as missed: add them, or remove them from the list."
    )


def test_wrong_folder(saved, tmp_path):
    known = read_annotations(saved(data()))
    with pytest.raises(AnnotationsError, match=r" holds none of the 2 pictures that .*json lists \(a.jpg, b.jpg\).$"):
        find_pictures(known, tmp_path)
    with pytest.raises(AnnotationsError, match="no does not exist; expected the directory of the pictures.$"):
        find_pictures(known, tmp_path / "no")
    with pytest.raises(AnnotationsError, match="val.json is not a directory; expected the directory of the pictures.$"):
        find_pictures(known, known.path)


def test_cocos_categories_match_by_name():
    ids = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    matched, notes = match_categories(dict(zip(ids, config.COCO_LABELS[1:])), config.COCO_LABELS)
    assert (matched[0], matched[1], matched[12], matched[16], matched[80]) == (None, 1, 13, 17, 90)
    assert notes == ()


def test_names_come_before_order():
    matched, notes = match_categories({1: "Dog", 5: "hot  dog", 7: "CAT"}, ["background", "cat", "dog", "hot dog"])
    assert matched == [None, 7, 1, 5] and notes == ()


def test_fewer_categories_than_labels():
    matched, notes = match_categories({3: "car", 8: "person"}, ["background", "person", "bicycle", "car"])
    assert matched == [None, 8, None, 3]
    assert notes == ("1 of 3 classes are no category here; their detections do not count",)


def test_more_categories_than_labels():
    matched, notes = match_categories({0: "pets", 1: "cat", 2: "dog"}, ["background", "dog"])
    assert matched == [None, 2]
    assert notes == ("the model has no class for pets, cat; objects of that kind count as missed",)


@pytest.mark.parametrize(
    ("categories", "labels", "only"),
    [
        (
            {2: "cat", 7: "dog"},
            ["background", "class 1", "class 2"],
            "2 classes: cat, dog only in the annotations, class 1, class 2 only in the model",
        ),
        (
            {2: "cat", 7: "aeroplane"},
            ["background", "cat", "airplane"],
            "2 classes: aeroplane only in the annotations, airplane only in the model",
        ),
    ],
)
def test_classes_are_matched_by_position_only_where_that_is_asked(categories, labels, only):
    with pytest.raises(AnnotationsError) as caught:
        match_categories(categories, labels)
    assert str(caught.value) == (
        f"The annotations' 2 categories do not fit the model's {only}. Name the model's classes as the annotations do "
        "(ssdtrt export --labels FILE), or match them in order of id: --match-classes position."
    )
    matched, notes = match_categories(categories, labels, "position")
    assert matched == [None, 2, 7]
    assert notes == ("classes are matched to the categories in order of id, as --match-classes position asks",)


def test_fewer_categories_than_classes_by_position():
    matched, _ = match_categories({2: "cat", 7: "dog"}, ["background", "class 1", "class 2", "class 3"], "position")
    assert matched == [None, 2, 7, None]


def test_position_where_names_are_the_same():
    assert match_categories({2: "cat", 7: "dog"}, ["background", "Cat", "dog"], "position") == ([None, 2, 7], ())


def test_unknown_way_to_match():
    with pytest.raises(AnnotationsError, match="matched by 'order'; expected name or position"):
        match_categories({2: "cat"}, ["background", "cat"], "order")


def test_same_name_twice_matches_in_order_of_id():
    assert match_categories({1: "cat", 2: "cat"}, ["background", "cat", "cat"]) == ([None, 1, 2], ())


@pytest.mark.parametrize("by", ["name", "position"])
def test_order_that_contradicts_a_name(by):
    with pytest.raises(AnnotationsError) as caught:
        match_categories({1: "aeroplane", 2: "cat"}, ["background", "cat", "airplane"], by)
    assert str(caught.value) == (
        "The annotations' 2 categories do not fit the model's 2 classes: aeroplane only in the annotations, "
        "airplane only in the model. Name the model's classes as the annotations do (ssdtrt export --labels FILE)."
    )


def test_other_number_of_unnamed_labels():
    with pytest.raises(AnnotationsError, match="3 categories do not fit the model's 2 classes: cat, dog, cow only in"):
        match_categories({1: "cat", 2: "dog", 3: "cow"}, ["background", "class1", "class2"])


def test_listed():
    assert [listed("ab"), listed("abc"), listed("abcd")] == ["a, b", "a, b, c", "a, b, c and 1 more"]
