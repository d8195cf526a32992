"""The settings of a detector, checked before any work. No torch here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING

from ssdtrt import config
from ssdtrt.artifact.inspection import described
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.images.levels import ValueRange
from ssdtrt.system.report import html_table

if TYPE_CHECKING:
    from ssdtrt.runners.baseline import EagerRunner
    from ssdtrt.runners.runner import FileRunner

_DAY = 86_400  # seconds


def check_settings(
    threshold: float,
    max_detections: int = 1,
    workers: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    nms_iou: float = config.NMS_IOU,
    max_bytes: int = config.MAX_BYTES,
    timeout: float = config.FETCH_SECONDS,
    decode: str = config.DECODE[0],
) -> None:
    """Check the settings of a Detector.

    Raises:
        SsdtrtError: For one out of its range.
    """
    if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise SsdtrtError(f"The threshold is {threshold!r}; expected a number of 0..1.")
    if not (isinstance(nms_iou, Real) and 0 < nms_iou <= 1):
        raise SsdtrtError(f"nms_iou is {nms_iou!r}; expected a number above 0, at most 1.")
    if decode not in config.DECODE:
        raise SsdtrtError(f"decode is {decode!r}; expected {', '.join(config.DECODE)}.")
    counts = {"max_detections": max_detections, "workers": workers, "max_pixels": max_pixels, "max_bytes": max_bytes}
    for name, count in counts.items():
        if count is not None and not (isinstance(count, Integral) and count >= 1):
            raise SsdtrtError(f"{name} is {count!r}; expected a whole number from 1 up.")
    if not (isinstance(timeout, Real) and 0 < timeout <= _DAY):
        raise SsdtrtError(f"The timeout is {timeout!r}; expected seconds above 0, at most {_DAY:,}.")
    try:
        low, high = map(float, (0, 1) if value_range is None else value_range)
    except (TypeError, ValueError):
        low, high = math.inf, -math.inf
    if not -math.inf < low < high < math.inf:
        raise SsdtrtError(f"The range of values is {value_range!r}; expected two numbers, the lower one first.")


def check_no_digest(sha256: str | None) -> None:
    """Check that no SHA-256 is given with a runner.

    Raises:
        ArtifactError: For one.
    """
    if sha256 is not None:
        raise ArtifactError("The SHA-256 of a runner is checked where its file is loaded; give it to load_engine.")


def check_nms_inside(runner: FileRunner | EagerRunner, nms_iou: float) -> None:
    """Check that a detector file is given no other IoU than the one that its NMS has inside.

    Raises:
        ArtifactError: For another one.
    """
    if nms_iou != config.NMS_IOU and getattr(runner, "is_detector", False):
        raise ArtifactError(
            f"{getattr(runner, 'path', runner.name)} is a detector file, whose NMS has the IoU {config.NMS_IOU} inside; "
            f"found {nms_iou:g}. Give its module or an engine, or leave --nms-iou (nms_iou) out."
        )


def class_numbers(classes: str | int | Iterable[str | int] | None, labels: Sequence[str]) -> tuple[int, ...] | None:
    """Return the numbers of the classes that are asked for, in order; None for all.

    Args:
        classes: Names or numbers of classes, or one of them. Text that is no name may be a number.
        labels: The names of the model's classes, the background first.

    Raises:
        SsdtrtError: For what is no class, or none at all.
    """
    if classes is None:
        return None
    asked = [classes] if isinstance(classes, (str, int, Integral)) else list(classes)
    if not asked:
        raise SsdtrtError("No class is asked for; name one, or leave the classes out for all.")
    return tuple(sorted({_number(one, labels) for one in asked}))


def _number(asked: str | int, labels: Sequence[str]) -> int:
    names = list(labels[1:])
    if asked in names:
        return names.index(str(asked)) + 1
    number = int(asked) if isinstance(asked, Integral) or (isinstance(asked, str) and asked.isdecimal()) else 0
    if 0 < number <= len(names):
        return number
    close = difflib.get_close_matches(str(asked), names, n=1)
    meant = f"Did you mean {close[0]!r}?" if close else f"The names begin with {', '.join(names[:3])}."
    raise SsdtrtError(f"There is no class {asked!r}; expected a name or a number of 1..{len(names)}. {meant}")


def settings_table(
    runner: FileRunner | EagerRunner, classes: Sequence[int] | None, numbers: Mapping[str, float]
) -> str:
    """Return a table of a file and the settings of its detector, for a notebook."""
    rows = {**described(runner.metadata), "precision": runner.precision, "device": str(runner.device)}
    if classes is not None:
        rows["reported classes"] = ", ".join(runner.labels[number] for number in classes)
    return html_table(f"Detector: {runner.name}", {**rows, **{key: f"{n:g}" for key, n in numbers.items()}})
