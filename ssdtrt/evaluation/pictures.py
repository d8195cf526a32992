"""Which file is which annotated picture, and the ids of pictures and classes in COCO's results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ssdtrt import config
from ssdtrt.errors import AnnotationsError
from ssdtrt.evaluation.annotations import Annotations, listed, match_categories
from ssdtrt.reading.addresses import path_of
from ssdtrt.reading.sources import STDIN, expand
from ssdtrt.sinks.json_sinks import CocoId
from ssdtrt.system.report import counted

_GIVE = "give --annotations FILE"


def find_pictures(
    annotations: Annotations, images: str | Path, *, subset: bool = False
) -> tuple[Annotations, dict[CocoId, Path]]:
    r"""Find the pictures that the annotations list.

    Args:
        annotations: The annotations. A `\` in a file name may separate folders.
        images: The folder of the pictures; or a pattern or `-`, as for `expand`, of paths that end with the file names
            of the annotations.
        subset: Whether pictures that are not there are left out, with their objects and a note.

    Returns:
        The annotations, of a subset those of its pictures, and {image id: path}.

    Raises:
        AnnotationsError: If none of them is there, or without `subset` not all, or if those of a subset have no object.
        ImageError: If no file matches a pattern, or a list is empty.
    """
    folder = Path(images)
    if folder.is_dir():
        paths = {image: _in_folder(folder, name) for image, name in annotations.images.items()}
    elif str(images) == STDIN or glob.has_magic(str(images)):
        annotations, paths = _in_list(annotations, str(images))
    else:
        reason = "is not a directory" if folder.exists() else "does not exist"
        raise AnnotationsError(f"{folder} {reason}; expected the directory of the pictures.")
    there = {image: path for image, path in paths.items() if os.path.isfile(path)}
    missing = [name for image, name in annotations.images.items() if image not in there]
    if not there:
        raise AnnotationsError(
            f"{folder} holds none of the {counted(len(annotations.images), 'picture')} that {annotations.path} lists ({listed(missing)})."
        )
    if missing and not subset:
        raise AnnotationsError(
            f"{folder} lacks {len(missing)} of the {counted(len(annotations.images), 'picture')} that {annotations.path} lists: "
            f"{listed(missing)}. Their objects would count as missed: add them, or evaluate the others alone (--subset)."
        )
    return _only(annotations, there, folder) if missing else annotations, there


def _in_folder(folder: Path, name: str) -> Path:
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not os.path.isfile(path) else path


def _in_list(annotations: Annotations, images: str) -> tuple[Annotations, dict[CocoId, Path]]:
    """The annotations, with notes on what was left out, and {image id: path} of a pattern or a list."""
    notes: list[str] = []
    ids = _listed_ids(list(map(str, expand([images], note=notes.append))), annotations)
    paths: dict[CocoId, Path] = {}
    for path, image in ids.items():
        if image is not None and paths.setdefault(image, Path(path)) != Path(path):
            name = annotations.images[image]
            raise AnnotationsError(f"{paths[image]} and {path} both are {name} of {annotations.path}. Leave one out.")
    if strays := [path for path, image in ids.items() if image is None]:
        count = counted(len(strays), "picture")
        notes.append(f"{images}: left out {count} that {annotations.path} does not list ({listed(strays)})")
    return (replace(annotations, notes=(*annotations.notes, *notes)) if notes else annotations), paths


def _only(annotations: Annotations, images: Mapping[CocoId, Path], folder: Path) -> Annotations:
    """The annotations of some pictures alone, with a note on the others."""
    objects = tuple(one for one in annotations.objects if one.image_id in images)
    if all(one.iscrowd for one in objects):
        raise AnnotationsError(
            f"{annotations.path} has no object in the {counted(len(images), 'picture')} of {folder}."
        )
    names = [name for image, name in annotations.images.items() if image not in images]
    count = len(annotations.objects) - len(objects)
    note = (
        f"a subset: {folder} lacks {len(names)} of {counted(len(annotations.images), 'picture')}, left out with "
        f"{counted(count, 'object')} ({listed(names)})"
    )
    known = {image: annotations.images[image] for image in images}
    sizes = {image: size for image, size in annotations.sizes.items() if image in images}
    return replace(annotations, images=known, objects=objects, sizes=sizes, notes=(*annotations.notes, note))


@dataclass(frozen=True)
class CocoIds:
    """The ids that COCO's results take.

    Attributes:
        images: {path: image id} of every picture.
        categories: The category id of each label, the background first; None for one whose detections are not written.
        notes: What is to be known of the annotations, and what does not fit them.
    """

    images: dict[str, CocoId]
    categories: Sequence[CocoId | None]
    notes: tuple[str, ...] = ()


def coco_ids(pictures: Iterable[str | Path], labels: Sequence[str], annotations: Annotations | None = None) -> CocoIds:
    """Return the ids of pictures and labels; whatever is doubtful is an error.

    Args:
        pictures: The paths of the pictures.
        labels: The model's labels, the background first.
        annotations: Has the image ids by file name, which is the end of a picture's path, and the category ids by name.
            Without it pictures must have COCO's numbers as names, such as 000139.jpg, and labels COCO's names.

    Raises:
        AnnotationsError: If a picture or a label has no id, or two pictures have the same.
    """
    paths = [str(path) for path in pictures]
    if annotations is None:
        lacking = f"no number as name, such as 000139.jpg, to be the id: {_GIVE}"
        return CocoIds(_unique({path: _number(path) for path in paths}, paths, lacking), _ids_of_coco(labels))
    names = listed(list(annotations.images.values()))
    lacking = f"no id in {annotations.path}, which lists {names}: add them there, or leave them out"
    categories, notes = match_categories(annotations.categories, labels)
    ids = _unique(_listed_ids(paths, annotations), paths, lacking)
    return CocoIds(ids, categories, (*annotations.notes, *notes))


def _number(path: str) -> CocoId | None:
    """The number that is the name of a file."""
    stem = Path(path_of(path)).stem
    return int(stem) if stem.isascii() and stem.isdigit() else None


def _listed_ids(paths: Sequence[str], annotations: Annotations) -> dict[str, CocoId | None]:
    """{path: image id}: of the file names that a path ends with the longest one's."""
    known: dict[tuple[str, ...], list[CocoId]] = {}
    for image, name in annotations.images.items():
        known.setdefault(_parts(name), []).append(image)
    found: dict[str, CocoId | None] = {}
    for path in paths:
        parts = _parts(os.path.abspath(path_of(path)))
        ends = (parts[start:] for start in range(len(parts)))
        images = next((known[end] for end in ends if end in known), [None])
        if len(images) > 1:
            ids = " and ".join(map(repr, images))
            raise AnnotationsError(f"{annotations.path} lists {path} more than once, with the ids {ids}.")
        found[path] = images[0]
    return found


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts


def _unique(found: Mapping[str, CocoId | None], paths: Sequence[str], lacking: str) -> dict[str, CocoId]:
    """The ids by path, each of one picture; `lacking` says what a picture without one has not."""
    without = [path for path, image in found.items() if image is None]
    if without:
        raise AnnotationsError(
            f"No COCO results: {listed(without)} {'has' if len(without) == 1 else 'have'} {lacking}."
        )
    if len(found) < len(paths):
        twice = [path for path, count in Counter(paths).items() if count > 1]
        raise AnnotationsError(f"No COCO results: given more than once: {listed(twice)}. Give each picture once.")
    ids = {path: image for path, image in found.items() if image is not None}
    first: dict[CocoId, str] = {}
    for path, image in ids.items():
        if first.setdefault(image, path) != path:
            raise AnnotationsError(
                f"No COCO results: {first[image]} and {path} both have the id {image!r}. Leave one out, or {_GIVE} "
                "that lists both."
            )
    return ids


def _ids_of_coco(labels: Sequence[str]) -> list[CocoId | None]:
    """COCO's category id of each label, all of which must be COCO's."""
    known = dict(zip(config.COCO_LABELS[1:], config.COCO_CATEGORY_IDS[1:]))
    others = [label for label in labels[1:] if label not in known]
    if others or len(set(labels)) < len(labels):
        names = listed(others) or listed([label for label, count in Counter(labels).items() if count > 1])
        reason = "not COCO's" if others else "there more than once"
        raise AnnotationsError(
            f"No COCO results: {names} among the model's {counted(len(labels) - 1, 'class')}: {reason}, so the category ids are "
            f"not known: {_GIVE}, whose categories have them."
        )
    return [None, *(known[label] for label in labels[1:])]
