"""Thresholds: each row that violates one is a sentence, and nothing to measure is a violation."""

import pytest

from saved_reports import eager, engine, first_schema, report, row, second_schema
from ssdtrt.benchmarking import report_file, thresholds


def violations(data, **limits):
    return thresholds.violations(report_file.parse(data, "the report"), **limits)


DATA = report(eager(8.0), engine(1.0, speedup=8.0), engine(2.0, 8, speedup=4.0), row("compile", 9.0))


@pytest.mark.parametrize(
    "limits, expected",
    [
        ({}, []),
        ({"min_speedup": 4.0, "max_latency_ms": 2.0}, []),
        ({"min_speedup": 5.0}, ["b1.engine.ts FP16, batch 8 is 4x as fast as FP32 eager; expected at least 5x."]),
        ({"max_latency_ms": 1.5}, ["b1.engine.ts FP16, batch 8 takes 2 ms; expected at most 1.5 ms."]),
        (
            {"min_speedup": 8.5, "max_latency_ms": 1.0},
            [
                "b1.engine.ts FP16, batch 1 is 8x as fast as FP32 eager; expected at least 8.5x.",
                "b1.engine.ts FP16, batch 8 is 4x as fast as FP32 eager; expected at least 8.5x.",
                "b1.engine.ts FP16, batch 8 takes 2 ms; expected at most 1 ms.",
            ],
        ),
    ],
)
def test_rows_of_files_are_held_to_the_thresholds_in_every_schema(limits, expected):
    assert violations(DATA, **limits) == violations(second_schema(DATA), **limits) == expected
    plain = [text.replace("FP16", "FP16, engine-plain") for text in expected]  # An engine had no CUDA graph then.
    assert violations(first_schema(report(*DATA["rows"][:3])), **limits) == plain


@pytest.mark.parametrize("limits", [{"min_speedup": 0.1}, {"max_latency_ms": 1e6}])
def test_what_was_not_measured_does_not_pass(limits):
    failed = report(eager(8.0), engine(1.0), engine(None, 8))
    assert violations(failed, **limits) == [
        "b1.engine.ts FP16, batch 8 failed (out of memory); expected a row that was measured."
    ]
    assert violations(report(eager(8.0), row("compile", 1.0)), **limits) == [
        "The report has no row of a file; expected one for the threshold."
    ]


def test_a_row_without_a_speed_up_violates_it():
    data = report(engine(1.0, speedup=None))
    assert violations(data, max_latency_ms=1.0) == []
    assert violations(data, min_speedup=0.1) == [
        "b1.engine.ts FP16, batch 1 has no speed-up; expected at least 0.1x (--min-speedup)."
    ]


def test_an_onnx_file_is_held_to_them_and_an_engine_without_its_cuda_graph_is_not():
    onnx = row("onnxruntime", 4.0, file="ssd300.onnx", precision="fp32", speedup=2.0)
    plain = row("engine-plain", 1.5, file="work/b1.engine.ts", speedup=5.3)
    data = report(eager(8.0), onnx, engine(1.0, speedup=8.0), plain)
    assert violations(data, min_speedup=6.0) == [
        "ssd300.onnx FP32, onnxruntime, batch 1 is 2x as fast as FP32 eager; expected at least 6x."
    ]


def test_a_module_counts_as_a_baseline_beside_engines_and_alone_as_a_file():
    module = row("torchscript", 7.9, file="ssd300.ts", speedup=1.01)
    assert violations(report(eager(8.0), engine(1.0, speedup=8.0), module), min_speedup=5.0) == []
    (text,) = violations(report(eager(8.0), module), min_speedup=5.0)
    assert text.startswith("ssd300.ts ") and text.endswith(" is 1.01x as fast as FP32 eager; expected at least 5x.")
