"""The names of the classes. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssdtrt import config
from ssdtrt.errors import WeightsError


def class_names(num_classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes, the background first.

    Args:
        num_classes: The number of classes, with the background.
        labels: Their names without the background; by default COCO's if there are 80, else `class 1`, `class 2` and
            so on.

    Raises:
        WeightsError: If the number of labels is not that of the classes.
    """
    if labels is not None:
        if len(labels) != num_classes - 1:
            raise WeightsError(
                f"{len(labels)} labels were given; the weights have {num_classes - 1} classes besides the background."
            )
        return ("background", *labels)
    if num_classes == config.NUM_CLASSES:
        return config.COCO_LABELS
    return ("background", *(f"class {i}" for i in range(1, num_classes)))


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read the names of classes from a text file.

    Args:
        path: The file: one name a line, without the background. Empty lines are skipped.

    Raises:
        WeightsError: If the file cannot be read or has no name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} cannot be read as a list of labels ({reason}).") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise WeightsError(f"{path} names no class; expected one name a line, without the background.")
    return names
