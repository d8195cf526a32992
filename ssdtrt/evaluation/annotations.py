"""COCO's annotation files: the pictures they list, the objects in them, and their categories as a model's labels."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ssdtrt import config
from ssdtrt.errors import AnnotationsError

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

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: bool | int | None = None

    def as_coco(self, number: int) -> dict[str, Any]:
        """Return the object as COCO's evaluation takes it, with the id `number`."""
        return {
            "id": number,
            "image_id": self.image_id,
            "category_id": self.category_id,
            "bbox": list(self.bbox),
            "area": self.bbox[2] * self.bbox[3] if self.area is None else self.area,
            "iscrowd": int(bool(self.iscrowd)),
        }


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: float | None = None
    height: float | None = None


class _Category(msgspec.Struct):
    id: int
    name: str


class _Instances(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[CocoObject]


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
    images: dict[int, str]
    categories: dict[int, str]
    objects: tuple[CocoObject, ...]
    sizes: dict[int, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_annotations(path: str | Path) -> Annotations:
    """Read a file of COCO's `instances` format.

    As in COCO's own evaluation, objects of a picture or a category that is not listed are left out, with a note.

    Args:
        path: The file.

    Raises:
        AnnotationsError: If the file cannot be read, is not of that format, or lists no object.
    """
    path = Path(path)
    try:
        data = msgspec.convert(_read_json(path), _Instances)
    except msgspec.ValidationError as error:
        raise AnnotationsError(f"{path} is not in COCO's instances format: {error}.") from error
    for name in _Instances.__struct_fields__:
        if not getattr(data, name):
            raise AnnotationsError(f"{path} lists no {name}; there is nothing to compare with.")
    for index, one in enumerate(data.annotations):
        if not all(map(math.isfinite, (*one.bbox, one.area or 0.0))):
            raise AnnotationsError(f"{path}: annotations[{index}] has a bbox or an area that is not finite.")
    images = {number: image.file_name for number, image in _by_id(path, "images", data.images).items()}
    categories = {number: category.name for number, category in _by_id(path, "categories", data.categories).items()}
    objects = tuple(one for one in data.annotations if one.image_id in images and one.category_id in categories)
    if all(one.iscrowd for one in objects):
        raise AnnotationsError(f"{path} has no object in the pictures and categories that it lists.")
    count = len(data.annotations)
    note = f"{count - len(objects)} of {count} annotations are of pictures or categories that are not listed; left out"
    sizes = {one.id: (one.width, one.height) for one in data.images if one.width is not None and one.height is not None}
    return Annotations(path, images, categories, objects, sizes, (note,) if len(objects) < count else ())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise AnnotationsError(f"{path}: no such file. Give an annotation file in COCO's format.") from error
    except IsADirectoryError as error:
        raise AnnotationsError(f"{path} is a directory; expected an annotation file in COCO's format.") from error
    except OSError as error:
        raise AnnotationsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # ValueError is raised for bytes that are not UTF-8, too.
        raise AnnotationsError(f"{path} is not JSON ({error}); expected annotations in COCO's format.") from error


_Entry = TypeVar("_Entry", _Image, _Category)


def _by_id(path: Path, name: str, entries: Sequence[_Entry]) -> dict[int, _Entry]:
    """{id: entry} in ascending order of id."""
    found: dict[int, _Entry] = {}
    for index, entry in enumerate(entries):
        if entry.id in found:
            raise AnnotationsError(f"{path}: {name}[{index}] has the id {entry.id} of an earlier one.")
        found[entry.id] = entry
    return dict(sorted(found.items()))


def find_pictures(annotations: Annotations, folder: str | Path) -> dict[int, Path]:
    """Return {image id: path} of every picture that the annotations list.

    Args:
        annotations: The annotations.
        folder: The folder of the pictures.

    Raises:
        AnnotationsError: If some of them are not in the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is not a directory" if folder.exists() else "does not exist"
        raise AnnotationsError(f"{folder} {reason}; expected the directory of the pictures.")
    paths = {image: folder / name for image, name in annotations.images.items()}
    missing = [annotations.images[image] for image, path in paths.items() if not path.is_file()]
    if len(missing) == len(paths):
        raise AnnotationsError(
            f"{folder} holds none of the {len(paths)} pictures that {annotations.path} lists ({listed(missing)})."
        )
    if missing:
        raise AnnotationsError(
            f"{len(missing)} of the {len(paths)} pictures that {annotations.path} lists are not in {folder}: "
            f"{listed(missing)}. Their objects would count as missed: add them, or remove them from the list."
        )
    return paths


def match_categories(
    categories: Mapping[int, str], labels: Sequence[str], by: str = config.CLASS_MATCHING[0]
) -> tuple[list[int | None], tuple[str, ...]]:
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
    advice = ", or match them in order of id: --match-classes position" if by == "name" and fits else ""
    raise AnnotationsError(
        f"The annotations' {len(names)} categories do not fit the model's {len(own)} classes: "
        f"{listed(_others(categories.values(), shared)) or 'none'} only in the annotations, "
        f"{listed(_others(labels[1:], shared)) or 'none'} only in the model. "
        f"Name the model's classes as the annotations do (ssdtrt export --labels FILE){advice}."
    )


def _unmatched(categories: Mapping[int, str], labels: Sequence[str], shared: Collection[str]) -> tuple[str, ...]:
    notes = []
    no_category = _others(labels[1:], shared)
    if no_category:
        count = len(labels) - 1
        notes.append(f"{len(no_category)} of {count} classes are no category here; their detections do not count")
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
