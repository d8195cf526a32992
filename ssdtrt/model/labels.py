"""The names of the classes: given, read from a list, or recorded in a checkpoint. Imports no torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdtrt import config
from ssdtrt.errors import WeightsError
from ssdtrt.system.files import decode_text
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.report import counted

RECORDED_AS = ("label_map", "label_info", "labels", "class_names", "classes", "names")
_SHOWN = 3  # names in a note


def class_names(num_classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes, the background first.

    Args:
        num_classes: The number of classes, with the background.
        labels: Their names without the background; by default `class 1`, `class 2` and so on.

    Raises:
        WeightsError: If the number of labels is not that of the classes.
    """
    if labels is None:
        return ("background", *(f"class {i}" for i in range(1, num_classes)))
    if len(labels) != num_classes - 1:
        raise WeightsError(
            f"Found {counted(len(labels), 'label')}; the weights have {counted(num_classes - 1, 'class')} besides the "
            "background."
        )
    return ("background", *labels)


def are_numbered(labels: Sequence[str]) -> bool:
    """Return whether no class has a name of its own: all are `class 1`, `class 2` and so on."""
    return tuple(labels[1:]) == class_names(len(labels), None)[1:]


def read_labels(path: str | Path, note: Progress = silent) -> tuple[str, ...]:
    """Read the names of classes from a text file.

    Args:
        path: The file, one name a line; or `coco` for COCO's 80 names. Empty lines and a first line `background` are
            skipped. The text is UTF-8, UTF-16 or UTF-32 with a byte-order mark, or else Windows-1252.
        note: Called with a line if the file is read as Windows-1252, which may be a wrong guess.

    Raises:
        WeightsError: If the file cannot be read, has no name, or names the background after a class.
    """
    if path == "coco":
        return config.COCO_LABELS[1:]
    guessed = False
    try:
        content = Path(path).read_bytes()
        try:
            text = decode_text(content)
        except UnicodeDecodeError:
            text, guessed = content.decode("cp1252"), True
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} cannot be read as a list of labels ({reason}).") from error
    # A mark inside is from a list put before. Other white space inside, such as no-break spaces, becomes spaces.
    names = [" ".join(line.replace("\ufeff", "").split()) for line in text.splitlines()]
    names = [name for name in names if name]
    for name in names:
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            raise WeightsError(
                f"{path} cannot be read as a list of labels ({name[:20]!a} is no name). Save it as UTF-8."
            )
    found = without_background(names, str(path))
    if not found:
        raise WeightsError(f"{path} names no class; expected one name a line, without the background.")
    if guessed:
        odd = ", ".join([name for name in found if not name.isascii()][:_SHOWN])
        note(f"{path} is not UTF-8; it was read as Windows-1252 ({odd}). If that is wrong, save it as UTF-8.")
    return found


def without_background(labels: Sequence[str], origin: str = "The list of labels") -> tuple[str, ...]:
    """Return the names of classes without a first one that stands for the background.

    Args:
        labels: The names.
        origin: Their origin, for messages.

    Raises:
        WeightsError: If the background comes after a class; the network has it before all of them.
    """
    names = tuple(labels[1:] if labels and _is_background(labels[0]) else labels)
    for number, name in enumerate(names, 1):
        if _is_background(name):
            raise WeightsError(
                f"{origin} has {name!r} as class {number}; the background is before all classes: leave it out."
            )
    return names


def _is_background(name: str) -> bool:
    return name.strip().strip("_").casefold() == "background"


def recorded_names(loaded: Mapping[Any, Any]) -> dict[int, str]:
    """Return {number: name} of the classes that a checkpoint records; empty if it records none.

    Args:
        loaded: What the file holds. NVIDIA's training puts `label_map`, {number: name}, beside the weights; a dict
            {name: number} and a list of names are taken too, and `classes`, `class_names` and the like.
    """
    for key in RECORDED_AS:
        found = loaded.get(key)
        if isinstance(found, (list, tuple)):
            found = dict(enumerate(found))
        if not isinstance(found, Mapping) or not found:
            continue
        if all(isinstance(name, str) and type(number) is int for name, number in found.items()):
            found = {number: name for name, number in found.items()}
        pairs = [(str(number), name) for number, name in found.items()]
        if all(number.isdecimal() and isinstance(name, str) and name.strip() for number, name in pairs):
            return {int(number): " ".join(name.split()) for number, name in pairs}
    return {}


def names_by_number(num_classes: int, recorded: Mapping[int, str]) -> dict[int, str] | None:
    """Return the recorded names by the classes' numbers, 1..C-1; None if it is not clear which class they name.

    Args:
        num_classes: The number of classes, C, with the background.
        recorded: {number: name}. A 0 is the background, or the first class where the names count from 0.
    """
    last = max(recorded)
    if any(number > 0 and _is_background(name) for number, name in recorded.items()):
        return None
    if 0 in recorded and not _is_background(recorded[0]) and last != num_classes - 1:
        if last != num_classes - 2:
            return None
        return {number + 1: name for number, name in recorded.items()}
    return {number: name for number, name in recorded.items() if number > 0} if last < num_classes else None


def names_of_checkpoint(num_classes: int, recorded: Mapping[int, str]) -> tuple[tuple[str, ...], str | None]:
    """Return the names of a checkpoint's classes, the background first, and what a user must know of them.

    Args:
        num_classes: The number of classes, with the background.
        recorded: What the file records, from `recorded_names`. A class that it does not name is `class N`.

    Returns:
        The names, and a note if not every class has a name of its own.
    """
    names = list(class_names(num_classes, None))
    count = num_classes - 1
    own = counted(count, "class")
    advice = "--labels FILE names them (--labels coco: COCO's 80)"
    if not recorded:
        return tuple(names), f"holds no class names: classes are numbered, 1 to {count}. {advice}."
    known = names_by_number(num_classes, recorded)
    if known is None:
        numbers = f"{len(recorded)} from {min(recorded)} to {max(recorded)}"
        return tuple(names), f"has class names that do not fit its {own} ({numbers}): not used. {advice}."
    for number, name in known.items():
        names[number] = name
    shown = ", ".join(list(known.values())[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    return tuple(names), f"names {len(known)} of its {own} ({shown})." if len(known) < count else None
