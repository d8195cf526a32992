"""COCO's annotation files: the pictures they list, the objects in them, and their categories as a model's labels."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from ssdtrt import config
from ssdtrt.errors import AnnotationsError
from ssdtrt.sinks.json_sinks import CocoId
from ssdtrt.system.files import decode_text
from ssdtrt.system.report import counted

_BY_POSITION = "classes are matched to the categories in order of id, as --match-classes position asks"
_SHOWN = 3  # names in a message, before the rest becomes a number


class CocoObject(msgspec.Struct, frozen=True):
    """One annotated object.

    Attributes:
        image_id: The id of its picture.
        category_id: The id of its category.
        bbox: (left, top, width, height) in pixels.
        area: In pixels; None if the file has none, which stands for the area of the box.
        iscrowd: Whether it is a group of objects, in which detections count neither as found nor as wrong.
    """

    image_id: CocoId
    category_id: CocoId
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: bool | int | None = None

    def as_coco(self) -> dict[str, Any]:
        """Return the object as COCO's evaluation takes it, without an id of its own."""
        return {
            "image_id": self.image_id,
            "category_id": self.category_id,
            "bbox": list(self.bbox),
            "area": self.bbox[2] * self.bbox[3] if self.area is None else self.area,
            "iscrowd": int(bool(self.iscrowd)),
        }


class _Image(msgspec.Struct):
    id: CocoId
    file_name: str | None = None
    coco_url: Any = None
    width: float | None = None
    height: float | None = None

    @property
    def name(self) -> str:
        """The file's name, or else the last part of its address; "" where there is neither."""
        url = self.coco_url if isinstance(self.coco_url, str) else ""
        return self.file_name or unquote(url.partition("?")[0].rpartition("/")[2])


class _Category(msgspec.Struct):
    id: CocoId
    name: str


class _Instances(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[CocoObject] = []  # COCO publishes files without, for pictures whose objects are secret.


@dataclass(frozen=True)
class Annotations:
    """An annotation file that was read and checked.

    Attributes:
        path: The file.
        images: {image id: file name}, in ascending order of id.
        categories: {category id: name}, in ascending order of id.
        objects: The objects of those pictures and categories, in the file's order.
        sizes: {image id: (width, height)} in pixels, if the file has them.
        notes: What a reader of the figures must know.
    """

    path: Path
    images: dict[CocoId, str]
    categories: dict[CocoId, str]
    objects: tuple[CocoObject, ...]
    sizes: dict[CocoId, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_annotations(path: str | Path, *, objects_needed: bool = True) -> Annotations:
    """Read a file of COCO's `instances` format.

    Ids are numbers or text, the same for all of a kind. As in COCO's own evaluation, objects of a picture or a category
    that is not listed are left out, with a note; so are categories that no object has, and that share their id or
    their name with another.

    Args:
        path: The file.
        objects_needed: Whether a file without objects, of pictures and categories alone, is refused.

    Raises:
        AnnotationsError: If the file cannot be read, is not of that format, or lists no object that is needed.
    """
    path = Path(path)
    try:
        data = msgspec.convert(_read_json(path), _Instances)
    except msgspec.ValidationError as error:
        raise AnnotationsError(f"{path} is not in COCO's instances format: {error}.") from error
    for name in _Instances.__struct_fields__:
        if not getattr(data, name) and (objects_needed or name != "annotations"):
            raise AnnotationsError(f"{path} lists no {name}; there is nothing to compare with.")
    _check_ids(path, "images", data.images, "image_id", data.annotations)
    _check_ids(path, "categories", data.categories, "category_id", data.annotations)
    for index, one in enumerate(data.annotations):
        if not all(map(math.isfinite, (*one.bbox, one.area or 0.0))):
            raise AnnotationsError(f"{path}: annotations[{index}] has a bbox or an area that is not finite.")
    images = _image_names(path, data.images)
    categories, notes = _category_names(path, data.categories, data.annotations)
    strays = _strays(data.annotations, images, categories)
    objects = tuple(one for one in data.annotations if one.image_id in images and one.category_id in categories)
    if objects_needed and all(one.iscrowd for one in objects):
        reason = f": {listed(strays)}" if strays else ", but for crowds"
        raise AnnotationsError(f"{path} has no object in the pictures and categories that it lists{reason}.")
    if strays:
        few = f"{len(strays)} of {counted(len(data.annotations), 'annotation')}"
        notes.append(f"left out {few}, of pictures or categories that are not listed ({listed(strays)})")
    sizes = {one.id: (one.width, one.height) for one in data.images if one.width is not None and one.height is not None}
    return Annotations(path, images, categories, objects, sizes, tuple(notes))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(decode_text(path.read_bytes()))
    except FileNotFoundError as error:
        raise AnnotationsError(f"{path}: no such file. Give an annotation file in COCO's format.") from error
    except IsADirectoryError as error:
        raise AnnotationsError(f"{path} is a directory; expected an annotation file in COCO's format.") from error
    except OSError as error:
        raise AnnotationsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # ValueError is raised for bytes that are not UTF-8, too.
        raise AnnotationsError(f"{path} is not JSON ({error}); expected annotations in COCO's format.") from error


def _check_ids(
    path: Path, name: str, entries: Sequence[_Image | _Category], key: str, objects: Sequence[CocoObject]
) -> None:
    """Refuse ids of one kind that are partly numbers and partly text: which belong together would be a guess."""
    first = entries[0].id
    used = (("annotations", key, [getattr(one, key) for one in objects]), (name, "id", [one.id for one in entries]))
    for place, field_name, ids in used:
        odd = next((index for index, number in enumerate(ids) if type(number) is not type(first)), None)
        if odd is not None:
            raise AnnotationsError(
                f"{path}: {place}[{odd}] has the {field_name} {ids[odd]!r}, and {name}[0] has the id {first!r}; "
                "expected only numbers or only text."
            )


def _image_names(path: Path, entries: Sequence[_Image]) -> dict[CocoId, str]:
    """{id: file name} in ascending order of id."""
    names: dict[CocoId, str] = {}
    for index, entry in enumerate(entries):
        if not entry.name:
            raise AnnotationsError(f"{path}: images[{index}], id {entry.id!r}, has neither file_name nor coco_url.")
        if entry.id in names:
            raise AnnotationsError(
                f"{path}: images[{index}], {entry.name}, has the id {entry.id!r} of an earlier one, {names[entry.id]}."
            )
        names[entry.id] = entry.name
    return {number: names[number] for number in sorted(names)}


def _category_names(
    path: Path, entries: Sequence[_Category], objects: Sequence[CocoObject]
) -> tuple[dict[CocoId, str], list[str]]:
    """{id: name} in ascending order of id, and a note on each duplicate that no object has, and that is left out."""
    used = {one.category_id for one in objects}
    names: dict[CocoId, str] = {}
    notes: dict[CocoId, str] = {}
    for index, entry in enumerate(entries):
        first = names.setdefault(entry.id, entry.name)
        if _key(first) != _key(entry.name):
            if entry.id in used or not objects:
                raise AnnotationsError(
                    f"{path}: categories[{index}], {entry.name}, has the id {entry.id!r} of an earlier one, {first}."
                )
            notes[entry.id] = f"category {entry.id!r} has two names, {first} and {entry.name}, and no object; left out"
    taken: dict[str, CocoId] = {}
    for number in sorted(names.keys() - notes.keys(), key=lambda number: (number not in used, number)):
        other = taken.setdefault(_key(names[number]), number)
        if objects and other != number and number not in used:
            same = f"the name of category {other!r}, {names[number]}"
            notes[number] = f"category {number!r} has {same}, and no object; left out"
    return {number: names[number] for number in sorted(names) if number not in notes}, list(notes.values())


def _strays(objects: Sequence[CocoObject], images: Collection[CocoId], categories: Collection[CocoId]) -> list[str]:
    """What each object of no listed picture or category is of."""
    strays = []
    for index, one in enumerate(objects):
        if one.image_id not in images:
            strays.append(f"annotations[{index}] of image {one.image_id!r}")
        elif one.category_id not in categories:
            strays.append(f"annotations[{index}] of category {one.category_id!r}")
    return strays


def match_categories(
    categories: Mapping[CocoId, str], labels: Sequence[str], by: str = config.CLASS_MATCHING[0]
) -> tuple[list[CocoId | None], tuple[str, ...]]:
    """Find the category of each of a model's labels.

    They are matched by name, in upper or lower case, if all names of one side occur on the other. By position they are
    matched in ascending order of id, if there are as many labels or more and no name has another place: the labels of
    a fine-tuned model may be class 1, class 2 and so on.

    Args:
        categories: {category id: name} of the annotations, in ascending order of id.
        labels: The model's labels, the background first.
        by: `name` or `position`.

    Returns:
        The category id of each label, and notes on what has no counterpart. The background has none, nor has a label
        whose detections do not count.

    Raises:
        AnnotationsError: If that is not possible.
    """
    if by not in config.CLASS_MATCHING:
        raise AnnotationsError(f"Classes cannot be matched by {by!r}; expected {' or '.join(config.CLASS_MATCHING)}.")
    names = [_key(name) for name in categories.values()]
    own = [_key(label) for label in labels[1:]]
    by_name = dict(zip(names, categories))
    shared = by_name.keys() & set(own)
    unique = len(by_name) == len(names) and len(set(own)) == len(own)
    if names == own:
        return [None, *categories], ()
    fits = len(names) <= len(own) and all(own[i] == name or own[i] not in names for i, name in enumerate(names))
    if by == "position" and fits:
        return [None, *categories, *[None] * (len(own) - len(names))], (_BY_POSITION,)
    if by == "name" and unique and shared and len(shared) in (len(names), len(own)):
        return [None, *map(by_name.get, own)], _unmatched(categories, labels, shared)
    numbered = all(re.fullmatch(r"class\s?\d+", name) for name in own if name not in by_name)
    advice = ", or evaluate with --match-classes position, in order of id" if by == "name" and fits and numbered else ""
    raise AnnotationsError(
        f"The annotations' {counted(len(names), 'category')} do not fit the model's {counted(len(own), 'class')}: "
        f"{listed(_others(categories.values(), shared)) or 'none'} only in the annotations, "
        f"{listed(_others(labels[1:], shared)) or 'none'} only in the model. "
        f"Name the model's classes as the annotations do (ssdtrt export --labels FILE){advice}."
    )


def _unmatched(categories: Mapping[CocoId, str], labels: Sequence[str], shared: Collection[str]) -> tuple[str, ...]:
    notes = []
    no_category = _others(labels[1:], shared)
    if no_category:
        count = f"{len(no_category)} of {counted(len(labels) - 1, 'class')}"
        notes.append(f"no category here for {count}, whose detections are left out")
    no_label = _others(categories.values(), shared)
    if no_label:
        notes.append(f"the model has no class for {listed(no_label)}; objects of that kind count as missed")
    return tuple(notes)


def _others(names: Collection[str], shared: Collection[str]) -> list[str]:
    return [name for name in names if _key(name) not in shared]


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def listed(names: Sequence[str]) -> str:
    """Join the first few names, and say how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
