"""Evaluations as `ssdtrt evaluate --json` writes them, small and with round figures."""

from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport, EvalSettings

SETTINGS = EvalSettings("val.json", 0.05, 0.5, 200, "val", "1.7.2", annotations_sha256="0" * 64)


def evaluation(ap=0.25, cat=0.5, name="a.engine.ts", **changes):
    """A report of a cat and a dog, as a record."""
    figures = {**dict.fromkeys(FIGURES, 0.5), "AP": ap, "APl": None}
    classes = (ClassFigures("cat", 17, cat, 0.75, 3), ClassFigures("dog", 18, None, None, 0))
    values = {
        "images": 2,
        "objects": 3,
        "detections": 9,
        "seconds": 4.0,
        "images_per_second": 0.5,
        "settings": SETTINGS,
    }
    return EvalReport(name, "fp32", figures, **{"classes": classes, **values, **changes})


def first_schema(document):
    """The same JSON as the first version wrote it: no kind and no schema, and fewer settings."""
    data = {name: value for name, value in document.items() if name not in ("schema", "kind")}
    new = ("faster_coco_eval", "orient", "annotations_sha256")
    data["settings"] = {name: value for name, value in data["settings"].items() if name not in new}
    return data
