"""What is true of a set of pictures: COCO's annotation files, the pictures they list, their categories as labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssdtrt.errors import AnnotationsError

SHOWN = 3  # names in a message, before the rest is a number


@dataclass(frozen=True)
class Annotations:
    """An annotation file that was read and checked.

    `images` is {image id: file name} and `categories` {category id: name}, both in ascending order of id. `objects` are
    COCO's annotations of those, in the file's order: dicts with `image_id`, `category_id`, `bbox` ([left, top, width,
    height] in pixels), `area` (pixels) and `iscrowd` (0 or 1). `sizes` is {image id: (width, height)}, where given.
    """

    path: Path
    images: dict[int, str]
    categories: dict[int, str]
    objects: tuple[dict, ...]
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())


def read_annotations(path: str | Path) -> Annotations:
    """Reads a file of COCO's `instances` format.

    Objects of a picture or a category that is not listed are left out, with a note, as COCO's own evaluation does.
    Raises AnnotationsError where there is no such file, it is not of that format, or it holds nothing to compare with.
    """
    path = Path(path)
    data = _read_json(path)
    for name in ("images", "categories", "annotations"):
        if not isinstance(data, dict) or not isinstance(data.get(name), list):
            raise AnnotationsError(f"{path} has no list of {name}; expected COCO's instances format.")
        if not data[name]:
            raise AnnotationsError(f"{path} lists no {name}; there is nothing to compare with.")
    images = _by_id(path, data["images"], "images", "file_name")
    categories = _by_id(path, data["categories"], "categories", "name")
    found = [_object(path, index, entry) for index, entry in enumerate(data["annotations"])]
    objects = tuple(one for one in found if one["image_id"] in images and one["category_id"] in categories)
    if all(one["iscrowd"] for one in objects):
        raise AnnotationsError(f"{path} has no object in the pictures and categories that it lists.")
    left = len(found) - len(objects)
    note = f"{left} of {len(found)} annotations are of pictures or categories that are not listed; left out"
    sizes = {one["id"]: (one["width"], one["height"]) for one in data["images"] if {"width", "height"} <= one.keys()}
    return Annotations(path, images, categories, objects, sizes, (note,) if left else ())


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise AnnotationsError(f"{path}: no such file. Give an annotation file in COCO's format.") from error
    except IsADirectoryError as error:
        raise AnnotationsError(f"{path} is a directory; expected an annotation file in COCO's format.") from error
    except OSError as error:
        raise AnnotationsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise AnnotationsError(f"{path} is not JSON ({error}); expected annotations in COCO's format.") from error


def _by_id(path: Path, entries: list, what: str, name: str) -> dict[int, str]:
    """{id: name} in ascending order of id."""
    found: dict[int, str] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get(name), str):
            raise AnnotationsError(f"{path}: {what}[{index}] needs an integer id and a text {name}.")
        if entry["id"] in found:
            raise AnnotationsError(f"{path}: {what}[{index}] has the id {entry['id']} of an earlier one.")
        found[entry["id"]] = entry[name]
    return dict(sorted(found.items()))


def _object(path: Path, index: int, entry) -> dict:
    """One annotation with what a comparison of boxes needs; without an area it is that of the box."""
    box = entry.get("bbox") if isinstance(entry, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise AnnotationsError(f"{path}: annotations[{index}] needs a bbox of four numbers: left, top, width, height.")
    for name in ("image_id", "category_id"):
        if type(entry.get(name)) is not int:
            raise AnnotationsError(f"{path}: annotations[{index}] needs an integer {name}.")
    area = box[2] * box[3] if entry.get("area") is None else entry["area"]
    if not _is_number(area):
        raise AnnotationsError(f"{path}: annotations[{index}] has an area that is no number.")
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": box,
        "area": area,
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
    }


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def find_pictures(annotations: Annotations, folder: str | Path) -> dict[int, Path]:
    """{image id: path in `folder`} of every listed picture. Raises AnnotationsError when some are not there."""
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is no directory" if folder.exists() else "does not exist"
        raise AnnotationsError(f"{folder} {reason}; expected the directory of the pictures.")
    places = {image: folder / name for image, name in annotations.images.items()}
    missing = [annotations.images[image] for image, place in places.items() if not place.is_file()]
    if len(missing) == len(places):
        raise AnnotationsError(
            f"{folder} holds none of the {len(places)} pictures that {annotations.path} lists ({listed(missing)})."
        )
    if missing:
        raise AnnotationsError(
            f"{len(missing)} of the {len(places)} pictures that {annotations.path} lists are not in {folder}: "
            f"{listed(missing)}. Their objects would count as missed: add them, or take them out of the list."
        )
    return places


def match_categories(categories: Mapping[int, str], labels: Sequence[str]) -> tuple[list[int | None], tuple[str, ...]]:
    """The category id of each label (background first, which has none), and notes on what has no counterpart.

    By name, whatever the case, where the names on one side all occur on the other: a label without a category is None,
    and its detections do not count. Else by ascending id where the numbers agree and no name stands at another place (a
    fine-tuned model's labels may be class1, class2, ...). Raises AnnotationsError.
    """
    wanted = [_key(label) for label in labels[1:]]
    known = {_key(name): number for number, name in categories.items()}
    shared = known.keys() & set(wanted)
    unique = len(known) == len(categories) and len(set(wanted)) == len(wanted)
    if unique and shared and len(shared) in (len(known), len(wanted)):
        return [None, *(known.get(key) for key in wanted)], _unmatched(categories, labels, shared)
    names = list(map(_key, categories.values()))
    if len(names) == len(wanted) and all(names[i] == wanted[i] or wanted[i] not in names for i in range(len(names))):
        return [None, *categories], () if names == wanted else ("classes are matched to the categories in order of id",)
    strange = [name for name in categories.values() if _key(name) not in shared]
    own = [label for label in labels[1:] if _key(label) not in shared]
    raise AnnotationsError(
        f"The annotations' {len(categories)} categories do not fit the model's {len(wanted)} classes: "
        f"{listed(strange) or 'none'} only in the annotations, {listed(own) or 'none'} only in the model. "
        "Name the model's classes as the annotations do: ssdtrt export --labels FILE."
    )


def _unmatched(categories: Mapping[int, str], labels: Sequence[str], shared) -> tuple[str, ...]:
    notes = []
    own = [label for label in labels[1:] if _key(label) not in shared]
    if own:
        notes.append(f"{len(own)} of {len(labels) - 1} classes are no category here; their detections do not count")
    strange = [name for name in categories.values() if _key(name) not in shared]
    if strange:
        notes.append(f"the model has no class for {listed(strange)}; objects of that kind count as missed")
    return tuple(notes)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
