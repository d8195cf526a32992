"""Annotation files: what is read, what is refused in a sentence, and how categories become the model's labels."""

import json

import pytest

from ssdtrt import config
from ssdtrt.errors import AnnotationsError, SsdtrtError
from ssdtrt.evaluation.annotations import CocoObject, listed, match_categories, read_annotations

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
    assert known.objects[1].as_coco() == expected
    assert known.sizes == {} and known.notes == ()


def test_sizes_are_read_where_they_are_given(saved):
    images = [{"id": 2, "file_name": "a.jpg", "width": 640, "height": 480}, {"id": 9, "file_name": "b.jpg", "width": 3}]
    assert read_annotations(saved(data(images=images))).sizes == {2: (640, 480)}


@pytest.mark.parametrize("given", [{}, {"area": None}, {"iscrowd": None}, {"iscrowd": False}])
def test_area_and_crowd_may_be_left_out(saved, given):
    bare = {"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4.5], **given}
    (one,) = read_annotations(saved(data(annotations=[bare]))).objects
    assert (one.as_coco()["area"], one.as_coco()["iscrowd"]) == (13.5, 0)


def test_an_area_of_0_is_kept(saved):
    (one,) = read_annotations(saved(data(annotations=[{**BOX, "area": 0}]))).objects
    assert one.as_coco()["area"] == 0


def test_what_is_not_needed_may_be_anything(saved):
    """Also what JSON does not have: Python and COCO's own tools write and read NaN."""
    content = data(annotations=[{**BOX, "segmentation": [[float("nan")]], "score": None}], info=[3])
    assert len(read_annotations(saved(content)).objects) == 1


def test_byte_order_mark(saved):
    assert read_annotations(saved("\ufeff" + json.dumps(data()))).images == {2: "a.jpg", 9: "b.jpg"}


def test_objects_of_what_is_not_listed_are_left_out(saved):
    known = read_annotations(saved(data(annotations=[BOX, {**BOX, "image_id": 3}, {**BOX, "category_id": 2}])))
    assert len(known.objects) == 1
    assert known.notes == (
        "left out 2 of 3 annotations, of pictures or categories that are not listed "
        "(annotations[1] of image 3, annotations[2] of category 2)",
    )


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
            "lists no annotations; there is nothing to compare with.",
        ),
        (data(images=[{"id": 1}]), ": images[0], id 1, has neither file_name nor coco_url."),
        (
            data(images=[{"id": 1, "file_name": 5}]),
            f"{FORMAT} Expected `str | null`, got `int` - at `$.images[0].file_name`.",
        ),
        (
            data(images=[{"id": "2", "file_name": "a"}]),
            ": annotations[0] has the image_id 2, and images[0] has the id '2'; expected only numbers or only text.",
        ),
        (
            data(images=[{"id": 1, "file_name": "a"}, {"id": "b", "file_name": "b"}]),
            ": images[1] has the id 'b', and images[0] has the id 1; expected only numbers or only text.",
        ),
        (
            data(categories=[{"id": 1, "name": "a"}, {"id": "2", "name": "b"}]),
            ": categories[1] has the id '2', and categories[0] has the id 1; expected only numbers or only text.",
        ),
        (data(images=[{"id": 1, "file_name": "a"}] * 2), ": images[1], a, has the id 1 of an earlier one, a."),
        (
            data(categories=[{"id": True, "name": "a"}]),
            f"{FORMAT} Expected `int | str`, got `bool` - at `$.categories[0].id`.",
        ),
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
            ": annotations[0] has the image_id '2', and images[0] has the id 9; expected only numbers or only text.",
        ),
        (
            data(annotations=[{**BOX, "area": "9"}]),
            f"{FORMAT} Expected `float | null`, got `str` - at `$.annotations[0].area`.",
        ),
        (
            data(annotations=[{**BOX, "image_id": 5}]),
            "has no object in the pictures and categories that it lists: annotations[0] of image 5.",
        ),
        (
            data(annotations=[{**BOX, "iscrowd": 1}]),
            "has no object in the pictures and categories that it lists, but for crowds.",
        ),
    ],
)
def test_wrong_structure(saved, content, message):
    path = saved(content)
    with pytest.raises(AnnotationsError) as caught:
        read_annotations(path)
    assert isinstance(caught.value, SsdtrtError)
    assert str(caught.value).removeprefix(str(path)).strip().startswith(message)


def test_ids_may_be_text(saved):
    one = {**BOX, "image_id": "b", "category_id": "k1"}
    images = [{"id": "b", "file_name": "b.jpg"}, {"id": "a", "file_name": "a.jpg"}]
    known = read_annotations(saved(data(images=images, categories=[{"id": "k1", "name": "cat"}], annotations=[one])))
    assert list(known.images.items()) == [("a", "a.jpg"), ("b", "b.jpg")] and known.categories == {"k1": "cat"}
    assert (known.objects[0].image_id, known.objects[0].category_id) == ("b", "k1")


def test_a_file_name_that_is_missing_is_the_end_of_the_address(saved):
    address = "http://images.cocodataset.org/val2017/"
    images = [
        {"id": 1, "coco_url": f"{address}000000397133.jpg"},
        {"id": 2, "file_name": None, "coco_url": f"{address}a%20b.jpg?size=large"},
        {"id": 3, "file_name": "", "coco_url": "c.jpg"},
        {"id": 4, "file_name": "d.jpg", "coco_url": 7},
    ]
    known = read_annotations(saved(data(images=images)))
    assert known.images == {1: "000000397133.jpg", 2: "a b.jpg", 3: "c.jpg", 4: "d.jpg"}


@pytest.mark.parametrize(
    "categories, used, kept, notes",
    [
        # As Roboflow writes: the first is the name of the data set, or of a class.
        ([(0, "dog"), (1, "cat"), (2, "Dog")], (1, 2), {1: "cat", 2: "Dog"},
         ["category 0 has the name of category 2, dog, and no object; left out"]),
        ([(4, "dog"), (9, "dog")], (4,), {4: "dog"},
         ["category 9 has the name of category 4, dog, and no object; left out"]),
        ([(1, "cat"), (5, "dog"), (3, "dog")], (1,), {1: "cat", 3: "dog"},
         ["category 5 has the name of category 3, dog, and no object; left out"]),
        ([(1, "cat"), (2, "cow"), (2, "hen")], (1,), {1: "cat"},
         ["category 2 has two names, cow and hen, and no object; left out"]),
        ([(1, "cat"), (1, " CAT")], (1,), {1: "cat"}, []),
        ([(1, "cat"), (2, "cat")], (1, 2), {1: "cat", 2: "cat"}, []),  # Which is which, their objects say.
    ],
)  # fmt: skip
def test_an_unused_duplicate_category_is_left_out(saved, categories, used, kept, notes):
    listed = [{"id": number, "name": name} for number, name in categories]
    objects = [{**BOX, "category_id": number} for number in used]
    known = read_annotations(saved(data(categories=listed, annotations=objects)))
    assert list(known.categories.items()) == list(kept.items()) and list(known.notes) == notes
    assert len(known.objects) == len(used)


def test_a_category_of_two_names_that_is_used(saved):
    path = saved(data(categories=[{"id": 1, "name": "cat"}, {"id": 4, "name": "dog"}, {"id": 1, "name": "cow"}]))
    with pytest.raises(AnnotationsError) as caught:
        read_annotations(path)
    assert str(caught.value) == f"{path}: categories[2], cow, has the id 1 of an earlier one, cat."


@pytest.mark.parametrize("rest", [{"annotations": []}, {}])
def test_a_file_of_pictures_and_categories_alone(saved, rest):
    content = {name: part for name, part in data().items() if name != "annotations"}
    path = saved({**content, **rest})
    known = read_annotations(path, objects_needed=False)
    assert known.images == {2: "a.jpg", 9: "b.jpg"} and known.objects == () and known.notes == ()
    with pytest.raises(AnnotationsError, match="lists no annotations; there is nothing to compare with.$"):
        read_annotations(path)


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
    assert notes == ("no category here for 1 of 3 classes, whose detections are left out",)


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
    """Which is advised where all that the model lacks is names."""
    advice = ", or evaluate with --match-classes position, in order of id" if "class 1" in labels else ""
    with pytest.raises(AnnotationsError) as caught:
        match_categories(categories, labels)
    assert str(caught.value) == (
        f"The annotations' 2 categories do not fit the model's {only}. Name the model's classes as the annotations do "
        f"(ssdtrt export --labels FILE){advice}."
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
