"""Results as text: tables, lists where there is no room, and words where there is no number."""

import json

import pytest

from ssdtrt import report
from ssdtrt.results import (
    BenchReport,
    BenchRow,
    Detection,
    DetectionAgreement,
    ImageDetections,
    OutputDistance,
    ParityReport,
)

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


EAGER = row("eager FP32", "fp32")
ENGINE = row(
    "ssd300.engine.ts", "fp16", parity(), median_ms=1.7654, p90_ms=1.8, p99_ms=9.9994, images_per_second=4531.6,
    speedup=8.004, memory_mib=1234.5, build_seconds=119.6,
)  # fmt: skip


def bench(*rows, machine=CPU, notes=()):
    return BenchReport(machine, SETTINGS, rows, notes)


def cells(benchmarked):
    return dict(zip(report.BENCH_HEADER, report.bench_cells(benchmarked)))


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_table():
    assert report.table(("name", "n"), [("a", "1"), ("longer", "22")], 80) == "name     n\na        1\nlonger  22"


def test_table_that_just_fits():
    rows = [("ab", "1", "333")]
    assert report.table(("x", "yyyy", "z"), rows, 13) == "x   yyyy    z\nab     1  333"
    assert report.table(("x", "yyyy", "z"), rows, 12) == "ab\n  yyyy: 1\n  z: 333"


def test_narrow_table_is_stacked():
    text = report.table(("name", "n"), [("a" * 30, "1"), ("b", "2" * 30)], 40)
    assert text == f"{'a' * 30}\n  n: 1\n\nb\n  n: {'2' * 30}"


def test_table_without_rows():
    assert report.table(("name", "n"), [], 80) == "name  n"


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_no_line_is_wider_than_the_table_may_be(machine):
    text = report.bench_text(bench(EAGER, ENGINE, machine=machine), 40)
    assert all(len(line) <= 40 for line in text.split("\n\n", 1)[1].splitlines())
    assert "\nssd300.engine.ts FP16\n  batch: 8\n  median ms: 1.765\n  p90: 1.800\n" in text


def test_bench_cells():
    assert cells(ENGINE) == {
        "runner": "ssd300.engine.ts FP16", "batch": "8", "median ms": "1.765", "p90": "1.800", "p99": "9.999",
        "images/s": "4,532", "speed-up": "8.00x", "MiB": "1,234", "build s": "120", "rel. L2": "1.2e-03",
        "matched": "95.0 %",
    }  # fmt: skip


def test_eager_cells():
    found = cells(EAGER)
    assert found["runner"] == "eager FP32"
    assert (found["median ms"], found["p90"], found["p99"]) == ("14.12", "14.50", "120.4")
    assert (found["images/s"], found["speed-up"], found["MiB"], found["build s"]) == ("566", "1.00x", "-", "-")
    assert (found["rel. L2"], found["matched"]) == ("-", "-")


def test_slow_runner_keeps_a_decimal():
    assert cells(row("a", "fp32", images_per_second=3.14159))["images/s"] == "3.1"
    assert cells(row("a", "fp32", speedup=None))["speed-up"] == "-"


def test_precision_is_named_once():
    assert cells(row("fp16.engine.ts", "fp16"))["runner"] == "fp16.engine.ts"
    assert cells(row("engine.ts", "bf16"))["runner"] == "engine.ts BF16"


def test_not_compared():
    found = cells(row("ssd300.engine.ts", "fp16", build_seconds=3.0))
    assert (found["rel. L2"], found["matched"]) == ("not compared", "not compared")
    found = cells(row("cpu.engine.ts", "fp32", build_seconds=3.0))
    assert (found["rel. L2"], found["matched"]) == ("not compared", "not compared")


def test_none_to_compare():
    nothing = parity(0, 0, 0, None)
    assert report.share(nothing) == "none to compare"
    found = cells(row("ssd300.engine.ts", "fp16", nothing, build_seconds=3.0))
    assert (found["rel. L2"], found["matched"]) == ("1.2e-03", "none to compare")
    for text in (report.parity_text(nothing, 80), report.bench_text(bench(row("a", "fp16", nothing)), 200)):
        assert "none to compare" in text and "%" not in text


def test_share_of_none_found_is_a_percentage():
    assert report.share(parity(5, 0, 0, None)) == "0.0 %"
    assert report.share(parity(3, 3, 2)) == "66.7 %"


@pytest.mark.parametrize("loc, conf", [(NAN, 1e-3), (1e-3, NAN)])
def test_nan_is_not_shown_as_a_distance(loc, conf):
    found = cells(row("ssd300.engine.ts", "fp16", parity(loc=loc, conf=conf), build_seconds=3.0))
    assert found["rel. L2"] == "nan"


def test_bench_text():
    text = report.bench_text(bench(EAGER, ENGINE, notes=("untrained", "a.ts: agreement not compared")), 200)
    lines = text.splitlines()
    assert lines[0] == "Some CPU, 2 cores, torch 2.9.0"
    assert lines[1] == "40 calls a row in 10 interleaved rounds after 3 to warm up, host monotonic clock, TF32 off"
    assert lines[2] == ""
    assert lines[3].split("  ")[0] == "runner" and lines[3].endswith("rel. L2  matched")
    assert lines[4].startswith("eager FP32 ") and lines[4].endswith("  -")
    assert lines[5].startswith("ssd300.engine.ts FP16 ") and lines[5].endswith("1.2e-03   95.0 %")
    assert lines[6:] == ["note: untrained", "note: a.ts: agreement not compared"]


def test_machine_line():
    assert report.machine_line(GPU) == (
        "Some GPU, torch 2.9.0, Torch-TensorRT 2.9.1, TensorRT 10.1, driver 550.54"
    )
    assert report.machine_line({**GPU, "versions": {**VERSIONS, "driver": None}}).endswith(", TensorRT 10.1")


def test_parity_text():
    assert report.parity_text(parity(), 80).splitlines() == [
        "FP16 against FP32 eager on 8 pictures, batch 1, 8",
        "output  relative L2  bound   max abs  finite",
        "loc        1.23e-03  2e-02  5.00e-01     yes",
        "conf       4.56e-04  2e-02  2.50e-01     yes",
        "detections: 40 FP32, 39 engine, 38 matched (95.0 %)",
        "largest score change: 0.0123",
        "passed",
    ]


def test_failed_parity_text():
    text = report.parity_text(parity(loc=NAN, finite=False, change=None), 80)
    assert text.splitlines()[2].split() == ["loc", "nan", "2e-02", "5.00e-01", "NO"]
    assert text.endswith("largest score change: -\nFAILED")


def test_detections_text():
    cats = (Detection("cat", 16, 0.914, (0, 0, 9, 9)), Detection("dog", 17, 0.5, (0, 0, 9, 9)))
    found = [ImageDetections("a.jpg", 10, 10, cats), ImageDetections("empty.jpg", 10, 10, ())]
    assert report.detections_text(found, 80) == (
        "picture    objects      best\na.jpg            2  cat 0.91\nempty.jpg        0         -"
    )


def test_detections_text_without_pictures():
    assert report.detections_text([], 80) == "no picture was read"


def test_json_is_strict_and_whole():
    odd = parity(loc=NAN, finite=False, change=None)
    made = bench(EAGER, row("a.ts", "fp16", odd, memory_mib=float("inf")), machine=GPU)
    found = strict(report.as_json(made))
    assert found == made.as_dict()
    assert found["rows"][1]["agreement"]["outputs"][0]["relative_l2"] is None
    assert found["rows"][1]["agreement"]["passed"] is False and found["rows"][1]["memory_mib"] is None
    assert strict(report.as_json(odd))["outputs"][1]["relative_l2"] == 4.56e-4
