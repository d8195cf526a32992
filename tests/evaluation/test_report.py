"""The report of COCO's figures: differences to the baselines, and its JSON."""

import json

import pytest

from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport, EvalSettings
from ssdtrt.system.versions import MeasuredOn, Versions

SETTINGS = EvalSettings("val.json", 0.05, 0.5, 200, "val2017", "1.7.2")
MACHINE = MeasuredOn(os="Linux", cpu="Some CPU", cores=2, versions=Versions(torch="2.9.0"))


def report(name, ap, **changes):
    figures = {**dict.fromkeys(FIGURES, 0.5), "AP": ap, "APl": None}
    return EvalReport(
        name, "fp32", figures, (ClassFigures("dog", 18, ap, None, 3),), 2, 3, 9, 4.0, 0.5, SETTINGS, **changes
    )


def test_difference_is_none_where_either_has_no_figure():
    found = report("a.engine.ts", 0.25).minus(report("eager-fp32", 0.3))
    assert list(found) == list(FIGURES)
    assert found == {**dict.fromkeys(FIGURES, 0.0), "AP": pytest.approx(-0.05), "APl": None}


def test_document():
    baseline = report("eager-fp32", 0.3)
    made = report("a.engine.ts", 0.25, machine=MACHINE, against=(baseline,), notes=("one",), failures=("two",))
    found = json.loads(json.dumps(made.document(), allow_nan=False))
    assert (found["schema"], found["kind"], found["name"]) == (2, "evaluation", "a.engine.ts")
    assert found["classes"] == [{"name": "dog", "category_id": 18, "ap": 0.25, "ap50": None, "objects": 3}]
    assert found["settings"] == {
        "annotations": "val.json", "min_score": 0.05, "nms_iou": 0.5, "max_detections": 200, "images": "val2017",
        "faster_coco_eval": "1.7.2", "orient": False, "annotations_sha256": None, "match_classes": "name",
        "value_range": None, "max_pixels": None, "decode": "cpu",
    }  # fmt: skip
    assert found["machine"] == MACHINE.as_dict()
    assert (found["notes"], found["failures"]) == (["one"], ["two"])
    assert found["against"] == [
        {
            "name": "eager-fp32",
            "precision": "fp32",
            "figures": baseline.figures,
            "difference": {**dict.fromkeys(FIGURES, 0.0), "AP": pytest.approx(-0.05), "APl": None},
            "detections": 9,
            "seconds": 4.0,
            "images_per_second": 0.5,
        }
    ]
