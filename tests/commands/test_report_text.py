"""Results as text: tables, lists where there is no room, and words where there is no number."""

import json

import pytest

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.benchmarking.report import BenchReport, BenchRow
from ssdtrt.commands import report_text
from ssdtrt.detection.results import Detection, ImageDetections
from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport

NAN = float("nan")
SETTINGS = {"rounds": 10, "iterations": 4, "warmup": 3, "clock": "host monotonic clock"}
VERSIONS = {"torch": "2.9.0", "torch_tensorrt": "2.9.1", "tensorrt": "10.1", "driver": "550.54"}
CPU = {"cpu": "Some CPU", "cores": 2, "gpu": None, "sm": None, "versions": {**VERSIONS, "torch_tensorrt": None}}
GPU = {"cpu": "Some CPU", "cores": 2, "gpu": "Some GPU", "sm": "9.0", "versions": VERSIONS}


def parity(reference=40, engine=39, matched=38, change=0.0123, loc=1.23e-3, conf=4.56e-4, finite=True):
    outputs = (OutputDistance("loc", loc, 0.5, finite), OutputDistance("conf", conf, 0.25, True))
    agreement = DetectionAgreement(reference, engine, matched, change)
    return ParityReport("fp16", 8, (1, 8), 2e-2, 1e-4, outputs, agreement)


def row(name, precision, agreement=None, **changes):
    values = {
        "batch_size": 8, "samples": 40, "median_ms": 14.123, "p90_ms": 14.5, "p99_ms": 120.44,
        "images_per_second": 566.4, "speedup": 1.0, "memory_mib": None,
    }  # fmt: skip
    return BenchRow(name=name, precision=precision, agreement=agreement, **{**values, **changes})


def bench(*rows, machine=CPU, notes=()):
    return BenchReport(machine, SETTINGS, rows, notes)


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_table():
    assert report_text.table(("name", "n"), [("a", "1"), ("longer", "22")], 80) == "name     n\na        1\nlonger  22"


def test_table_that_just_fits():
    rows = [("ab", "1", "333")]
    assert report_text.table(("x", "yyyy", "z"), rows, 13) == "x   yyyy    z\nab     1  333"
    assert report_text.table(("x", "yyyy", "z"), rows, 12) == "ab\n  yyyy: 1\n  z: 333"


def test_narrow_table_is_stacked():
    text = report_text.table(("name", "n"), [("a" * 30, "1"), ("b", "2" * 30)], 40)
    assert text == f"{'a' * 30}\n  n: 1\n\nb\n  n: {'2' * 30}"


def test_table_without_rows():
    assert report_text.table(("name", "n"), [], 80) == "name  n"


def test_none_to_compare():
    nothing = parity(0, 0, 0, None)
    assert report_text.share(nothing) == "none to compare"
    text = report_text.parity_text(nothing, 80)
    assert "none to compare" in text and "%" not in text


def test_share_of_none_found_is_a_percentage():
    assert report_text.share(parity(5, 0, 0, None)) == "0.0 %"
    assert report_text.share(parity(3, 3, 2)) == "66.7 %"


def test_machine_line():
    assert report_text.machine_line(GPU) == (
        "Some GPU, torch 2.9.0, Torch-TensorRT 2.9.1, TensorRT 10.1, driver 550.54"
    )
    assert report_text.machine_line({**GPU, "versions": {**VERSIONS, "driver": None}}).endswith(", TensorRT 10.1")


def test_parity_text():
    assert report_text.parity_text(parity(), 80).splitlines() == [
        "FP16 against FP32 eager on 8 pictures, batch 1, 8",
        "output  relative L2  bound   max abs  finite",
        "loc        1.23e-03  2e-02  5.00e-01     yes",
        "conf       4.56e-04  2e-02  2.50e-01     yes",
        "detections: 40 FP32, 39 engine, 38 matched (95.0 %)",
        "largest score change: 0.0123",
        "passed",
    ]


def test_failed_parity_text():
    text = report_text.parity_text(parity(loc=NAN, finite=False, change=None), 80)
    assert text.splitlines()[2].split() == ["loc", "nan", "2e-02", "5.00e-01", "NO"]
    assert text.endswith("largest score change: -\nFAILED")


def test_detections_text():
    cats = (Detection("cat", 16, 0.914, (0, 0, 9, 9)), Detection("dog", 17, 0.5, (0, 0, 9, 9)))
    found = [ImageDetections("a.jpg", 10, 10, cats), ImageDetections("empty.jpg", 10, 10, ())]
    assert report_text.detections_text(found, 80) == (
        "picture    objects      best\na.jpg            2  cat 0.91\nempty.jpg        0         -"
    )


def test_detections_text_without_pictures():
    assert report_text.detections_text([], 80) == "no picture was read"


def test_json_is_strict_and_whole():
    odd = parity(loc=NAN, finite=False, change=None)
    made = bench(row("eager FP32", "fp32"), row("a.ts", "fp16", odd, memory_mib=float("inf")), machine=GPU)
    found = strict(report_text.as_json(made))
    assert found == made.as_dict()
    assert found["rows"][1]["agreement"]["outputs"][0]["relative_l2"] is None
    assert found["rows"][1]["agreement"]["passed"] is False and found["rows"][1]["memory_mib"] is None
    assert strict(report_text.as_json(odd))["outputs"][1]["relative_l2"] == 4.56e-4


def evaluation(name="ssd300.engine.ts", precision="fp16", first=0.2504, against=(), **changes):
    """A report whose figures fall by 0.01 from `first`; there is no large object."""
    figures = {figure: first - 0.01 * index for index, figure in enumerate(FIGURES)}
    figures.update(APl=None, ARl=None)
    values = {
        "classes": (
            ClassFigures("baseball glove", 40, 0.1234, 0.3336, 148),
            ClassFigures("cat", 17, 0.5, 0.75, 202),
            ClassFigures("hair drier", 89, None, None, 0),
            ClassFigures("dog", 18, 0.0, 0.0, 218),
        ),
        "images": 5000, "objects": 36335, "detections": 298000, "seconds": 4.0, "images_per_second": 1250.0,
        "machine": CPU, "settings": EVALUATION, "notes": ("classes are matched to the categories in order of id",),
    }  # fmt: skip
    return EvalReport(name, precision, figures, against=against, **{**values, **changes})


EVALUATION = {"annotations": "instances_val2017.json", "min_score": 0.05, "nms_iou": 0.5, "max_detections": 200}
PEERS = (evaluation("eager", "fp32", 0.2506), evaluation("eager-fp16", "fp16", 0.25))


def test_evaluation_text():
    assert report_text.evaluation_text(evaluation(against=PEERS), 100) == (
        "Some CPU, 2 cores, torch 2.9.0\n"
        "ssd300.engine.ts FP16 on instances_val2017.json: 5000 pictures, 36335 objects, 298000 detections,\n"
        "1,250.0 images/s\n"
        "score > 0.05, NMS at IoU 0.5, at most 200 detections a picture, EXIF orientation ignored\n"
        "\n"
        "figure  engine  eager  vs eager  eager-fp16  vs eager-fp16\n"
        "AP       0.250  0.251   -0.0002       0.250        +0.0004\n"
        "AP50     0.240  0.241   -0.0002       0.240        +0.0004\n"
        "AP75     0.230  0.231   -0.0002       0.230        +0.0004\n"
        "APs      0.220  0.221   -0.0002       0.220        +0.0004\n"
        "APm      0.210  0.211   -0.0002       0.210        +0.0004\n"
        "APl          -      -         -           -              -\n"
        "AR1      0.190  0.191   -0.0002       0.190        +0.0004\n"
        "AR10     0.180  0.181   -0.0002       0.180        +0.0004\n"
        "AR100    0.170  0.171   -0.0002       0.170        +0.0004\n"
        "ARs      0.160  0.161   -0.0002       0.160        +0.0004\n"
        "ARm      0.150  0.151   -0.0002       0.150        +0.0004\n"
        "ARl          -      -         -           -              -\n"
        "\n"
        "class              AP   AP50  objects\n"
        "cat             0.500  0.750      202\n"
        "baseball glove  0.123  0.334      148\n"
        "dog             0.000  0.000      218\n"
        "hair drier          -      -        0\n"
        "\n"
        "note: classes are matched to the categories in order of id"
    )


def test_evaluation_text_without_peers():
    lines = report_text.evaluation_text(evaluation(notes=()), 10_000).splitlines()
    assert lines[1].endswith("298000 detections, 1,250.0 images/s")
    assert lines[4:6] == ["figure  value", "AP      0.250"] and lines[-1] == "hair drier          -      -        0"


def test_narrow_evaluation_text():
    odd = ClassFigures("a name that is much too long for here", 1, 0.9, 0.9, 7)
    made = evaluation(against=PEERS[:1])
    text = report_text.evaluation_text(evaluation(against=PEERS[:1], classes=(*made.classes, odd)), 40)
    assert all(len(line) <= 40 for line in text.splitlines())
    assert "\nfigure  engine  eager  vs eager\nAP       0.250  0.251   -0.0002\n" in text
    assert "\na name that is...  0.900  0.900        7\ncat                0.500  0.750      202\n" in text
    assert "\nssd300.engine.ts FP16 on\ninstances_val2017.json: 5000 pictures,\n" in text
    stacked = report_text.evaluation_text(evaluation(against=PEERS), 40)
    assert all(len(line) <= 40 for line in stacked.splitlines())
    assert "\nAP\n  engine: 0.250\n  eager: 0.251\n  vs eager: -0.0002\n  eager-fp16: 0.250\n" in stacked


def test_evaluation_as_json():
    found = strict(report_text.as_json(evaluation(against=PEERS)))
    assert found["figures"]["AP"] == 0.2504 and found["figures"]["APl"] is None
    assert [peer["name"] for peer in found["against"]] == ["eager", "eager-fp16"]
    assert found["against"][0]["difference"]["AP"] == pytest.approx(-0.0002)
    assert found["against"][0]["difference"]["APl"] is None
    assert found["classes"][0] == {
        "name": "baseball glove", "category_id": 40, "ap": 0.1234, "ap50": 0.3336, "objects": 148
    }  # fmt: skip
    assert found["failures"] == [] and found["settings"]["max_detections"] == 200
