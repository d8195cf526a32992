"""Compare two evaluations on the same annotations, figure by figure and class by class. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ssdtrt import config
from ssdtrt.errors import ReportError
from ssdtrt.evaluation import report_file
from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport, EvalSettings
from ssdtrt.system.report import Report, counted, differing

# What must be the same for figures to be comparable, and what a reader should know of: words by the name of a field.
_COUNTS = {"images": "number of pictures", "objects": "number of objects"}
_SETTINGS = {
    "annotations_sha256": "SHA-256 of the annotations",
    "min_score": "lowest score",
    "nms_iou": "IoU of NMS",
    "max_detections": "most detections of a picture",
    "orient": "EXIF orientation",
    "match_classes": "matching of classes",
    "value_range": "range of values",
}
_WORTH_KNOWING = {"faster_coco_eval": "faster-coco-eval"}


class ComparedFigure(Report, frozen=True):
    """A figure of both reports.

    Attributes:
        name: Its name in FIGURES, or that of a class, whose AP it is.
        old: The old value, 0..1; None where there is none.
        new: The new one.
    """

    derived: ClassVar[tuple[str, ...]] = ("change",)

    name: str
    old: float | None
    new: float | None

    @property
    def change(self) -> float | None:
        """The new value less the old one; None where either report has none."""
        return None if self.old is None or self.new is None else self.new - self.old


class EvalComparison(Report, frozen=True):
    """How COCO's figures changed from one evaluation to the next.

    Attributes:
        old: The file of the old report.
        new: The file of the new one.
        evaluated: The names and precisions of what the two are of.
        limit: By how much AP may fall, 0..1; None without a limit.
        figures: The twelve figures.
        classes: The AP of each class that is in both.
        failures: A sentence where AP breaks the limit.
        notes: What a reader must know.
    """

    kind = "compare-evaluation"
    derived: ClassVar[tuple[str, ...]] = ("passed",)

    old: str
    new: str
    evaluated: tuple[str, str]
    limit: float | None
    figures: tuple[ComparedFigure, ...]
    classes: tuple[ComparedFigure, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether AP keeps the limit."""
        return not self.failures


def compare_evaluations(
    old: str | Path, new: str | Path, *, limit: float | None = None, force: bool = False
) -> EvalComparison:
    """Compare the evaluation saved at `new` with the one at `old`.

    Args:
        old: The path of a report.
        new: The path of a later one.
        limit: By how much AP may fall, 0..1; a report without AP is a failure.
        force: Compare also where pictures, objects, classes or settings differ.

    Returns:
        What changed, and what broke the limit.

    Raises:
        ReportError: Where a file holds no evaluation, or the two are not comparable.
    """
    then, now = report_file.read(old), report_file.read(new)
    different = _differences(then, now)
    if different and not force:
        raise ReportError(
            f"{old} and {new} cannot be compared: {'; '.join(different)}. "
            "Evaluate both on the same pictures and annotations with the same settings, or give --force."
        )
    figures = tuple(ComparedFigure(name, then.figures[name], now.figures[name]) for name in FIGURES)
    before, after = _by_name(then), _by_name(now)
    classes = tuple(ComparedFigure(name, before[name].ap, after[name].ap) for name in before if name in after)
    notes = [f"compared although they differ: {text}" for text in different]
    notes += differing(then.settings, now.settings, _WORTH_KNOWING)
    notes += [f"{path}: {counted(len(report.failures), 'picture')} could not be read" for path, report in
              ((old, then), (new, now)) if report.failures]  # fmt: skip
    evaluated = (f"{then.name} {then.precision.upper()}", f"{now.name} {now.precision.upper()}")
    failures = _failures(figures[0], limit)
    return EvalComparison(str(old), str(new), evaluated, limit, figures, classes, failures, tuple(notes))


def _failures(ap: ComparedFigure, limit: float | None) -> tuple[str, ...]:
    """How AP breaks the limit."""
    if limit is None:
        return ()
    if ap.change is None:
        return ("AP is not in both reports; expected a figure for --max-ap-drop.",)
    if ap.change >= -limit - config.LIMIT_ROUNDING:
        return ()
    return (f"AP fell from {ap.old:.6g} to {ap.new:.6g}, by {-ap.change:.6g}; expected at most {limit:g}.",)


def _differences(old: EvalReport, new: EvalReport) -> list[str]:
    """What makes the figures of two reports incomparable, each in words."""
    found = differing(old, new, _COUNTS)
    before, after = ({name: row.objects for name, row in _by_name(report).items()} for report in (old, new))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for name in names[:3]:
        if name in before and name in after:
            found.append(f"objects of {name} were {before[name]}, are {after[name]}")
        else:
            found.append(f"class {name} is only in the {'old' if name in before else 'new'} report")
    return found + settings_differences(old.settings, new.settings)


def settings_differences(old: EvalSettings, new: EvalSettings) -> list[str]:
    """Return what makes the figures of two evaluations incomparable, as far as their settings tell, each in words."""
    recorded = {
        name: words
        for name, words in _SETTINGS.items()
        if name != "annotations_sha256" or None not in (getattr(old, name), getattr(new, name))
    }
    return differing(old, new, recorded)


def _by_name(report: EvalReport) -> dict[str, ClassFigures]:
    """The classes by name; one with the name of another has its id behind it."""
    found: dict[str, ClassFigures] = {}
    for row in report.classes:
        found[f"{row.name} ({row.category_id})" if row.name in found else row.name] = row
    return found
