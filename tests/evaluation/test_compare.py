"""Two evaluations compared: what changed, what breaks a limit, and what is not comparable."""

import json

import pytest
from msgspec.structs import replace
from saved_evaluations import SETTINGS, evaluation, first_schema

from ssdtrt.errors import ReportError
from ssdtrt.evaluation.compare import ComparedFigure, compare_evaluations
from ssdtrt.evaluation.report import FIGURES, ClassFigures


@pytest.fixture
def compared(tmp_path):
    """Saves two evaluations and compares them: `compared(old, new, ...)`."""

    def run(old, new, **options):
        for name, report in (("old.json", old), ("new.json", new)):
            (tmp_path / name).write_text(json.dumps(report if isinstance(report, dict) else report.document()))
        return compare_evaluations(tmp_path / "old.json", tmp_path / "new.json", **options)

    return run


def test_every_figure_and_class(compared, tmp_path):
    found = compared(evaluation(0.25, 0.5), evaluation(0.24, 0.625, name="b.engine.ts"))
    assert (found.old, found.new) == (str(tmp_path / "old.json"), str(tmp_path / "new.json"))
    assert found.evaluated == ("a.engine.ts FP32", "b.engine.ts FP32")
    assert [row.name for row in found.figures] == list(FIGURES)
    changes = {row.name: row.change for row in found.figures}
    assert changes == {**dict.fromkeys(FIGURES, 0.0), "AP": pytest.approx(-0.01), "APl": None}
    assert found.classes == (ComparedFigure("cat", 0.5, 0.625), ComparedFigure("dog", None, None))
    assert found.classes[0].change == 0.125 and found.passed and found.failures == found.notes == ()
    made = json.loads(json.dumps(found.document(), allow_nan=False))
    assert (made["kind"], made["schema"], made["passed"]) == ("compare-evaluation", 1, True)
    assert made["classes"][0] == {"change": 0.125, "name": "cat", "old": 0.5, "new": 0.625}


@pytest.mark.parametrize(
    "new, limit, failures",
    [
        (0.24, 0.01, ()),  # 0.25 - 0.24 is a little more in floating point.
        (0.26, 0.0, ()),
        (0.2, None, ()),
        (0.2399, 0.01, ("AP fell from 0.25 to 0.2399, by 0.0101; expected at most 0.01.",)),
        (0.2499, 0.0, ("AP fell from 0.25 to 0.2499, by 0.0001; expected at most 0.",)),
        (None, 1.0, ("AP is not in both reports; expected a figure for --max-ap-drop.",)),
    ],
)
def test_limit(compared, new, limit, failures):
    found = compared(evaluation(0.25), evaluation(new), limit=limit)
    assert found.failures == failures and found.passed is not bool(failures)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"images": 3}, "number of pictures was 2, is 3"),
        ({"objects": 4}, "number of objects was 3, is 4"),
        ({"classes": (ClassFigures("cat", 17, 0.5, 0.75, 2), ClassFigures("cow", 18, 0.5, 0.5, 1))},
         "objects of cat were 3, are 2; class dog is only in the old report; class cow is only in the new report"),
        ({"settings": replace(SETTINGS, annotations_sha256="1" * 64)},
         f"SHA-256 of the annotations was {'0' * 64}, is {'1' * 64}"),
        ({"settings": replace(SETTINGS, orient=True)}, "EXIF orientation was off, is on"),
        ({"settings": replace(SETTINGS, min_score=0.1)}, "lowest score was 0.05, is 0.1"),
        ({"settings": replace(SETTINGS, value_range=(0.0, 4095.0))}, "range of values was none, is (0.0, 4095.0)"),
        ({"settings": replace(SETTINGS, match_classes="position")}, "matching of classes was name, is position"),
    ],
)  # fmt: skip
def test_what_is_not_comparable(compared, changes, text):
    with pytest.raises(ReportError) as caught:
        compared(evaluation(), evaluation(**changes))
    assert f"new.json cannot be compared: {text}. Evaluate both on the same pictures" in str(caught.value)
    found = compared(evaluation(), evaluation(**changes), force=True)
    assert found.notes == tuple(f"compared although they differ: {part}" for part in text.split("; "))


def test_what_does_not_matter_and_what_is_worth_knowing(compared):
    other = replace(SETTINGS, annotations="elsewhere/val.json", images="there", faster_coco_eval="1.8.0")
    found = compared(evaluation(), evaluation(settings=other, detections=7, seconds=1.0, failures=("x",)))
    assert found.notes[0] == "faster-coco-eval was 1.7.2, is 1.8.0"
    assert found.notes[1].endswith("new.json: 1 picture could not be read") and len(found.notes) == 2


def test_a_report_of_the_first_schema_has_no_digest(compared):
    assert compared(first_schema(evaluation().document()), evaluation()).figures[0].change == 0.0


def test_two_classes_of_one_name_stay_apart(compared):
    classes = tuple(ClassFigures("cat", number, ap, ap, 1) for number, ap in ((1, 0.5), (2, 0.25)))
    found = compared(evaluation(classes=classes), evaluation(classes=classes))
    assert found.classes == (ComparedFigure("cat", 0.5, 0.5), ComparedFigure("cat (2)", 0.25, 0.25))
