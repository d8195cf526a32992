"""The notes of a benchmark, and its thresholds: what violates one is a sentence, and so is nothing to measure."""

import pytest

from saved_reports import eager, engine, first_schema, report, second_schema
from saved_reports import row as json_row
from ssdtrt.benchmarking import diagnostics, report_file
from ssdtrt.benchmarking.diagnostics import gpu_notes, row_notes
from ssdtrt.benchmarking.report import BatchGpuState, BenchRow, HostTimes
from ssdtrt.system.gpu_state import GpuState


def row(median, host, returned, variation=0.01, samples=100, name="a"):
    times = HostTimes(host, host, host, host, returned)
    return BenchRow(name, "fp16", 8, samples=samples, median_ms=median, host=times, coefficient_of_variation=variation)


def test_steady_rows_of_a_busy_gpu_give_no_note():
    assert row_notes([row(11.7, 11.8, 0.2), row(0.5, 0.515, 0.1), BenchRow("b", "fp16", 8, status="failed")]) == []


def test_launching_that_takes_as_long_as_the_gpu():
    assert row_notes([row(3.9, 4.0, 3.8), row(11.7, 11.8, 0.2, name="b")]) == [
        "the host is the bottleneck, a CUDA graph shows what the GPU can do: "
        "a batch 8 (3.800 ms to launch, 3.900 ms between GPU events, 4.000 ms in all)"
    ]


def test_a_host_that_takes_far_longer():
    assert len(row_notes([row(0.5, 0.7, 0.1)])) == 1
    assert row_notes([row(0.05, 0.065, 0.01)]) == []  # 15 us are the wait itself


def test_on_a_cpu_the_host_is_no_bottleneck():
    assert row_notes([row(200.0, 200.0, None)]) == []


def test_unsteady_rows():
    rows = [row(2.0, 2.0, None, 0.0251), row(2.0, 2.0, None, 0.025, name="b"), row(2.0, 2.0, None, 0.5, 9, "c")]
    rows.append(row(2.0, 2.0, None, None, name="d"))
    assert row_notes(rows) == ["times vary by more than 2.5 %: a batch 8 (2.5 %)"]


def state(batch_size, before, after, others=()):
    states = [None if reasons is None else GpuState(throttled=tuple(reasons)) for reasons in (before, after)]
    return BatchGpuState(batch_size, *states, tuple(others))


def test_throttling_and_company():
    states = [state(1, [], []), state(8, [], ["power limit"], ["python (12)"]), state(32, None, None, ["python (12)"])]
    assert gpu_notes(states) == [
        "the GPU was throttled at batch 8: power limit", "other processes use the GPU: python (12)"
    ]  # fmt: skip
    assert gpu_notes([BatchGpuState(1, GpuState(), GpuState())]) == gpu_notes(None) == []


def violations_of(data, **limits):
    return diagnostics.violations(report_file.parse(data, "the report"), **limits)


DATA = report(eager(8.0), engine(1.0, speedup=8.0), engine(2.0, 8, speedup=4.0), json_row("compile", 9.0))


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
    assert violations_of(DATA, **limits) == violations_of(second_schema(DATA), **limits) == expected
    plain = [text.replace("FP16", "FP16, engine-plain") for text in expected]  # An engine had no CUDA graph then.
    assert violations_of(first_schema(report(*DATA["rows"][:3])), **limits) == plain


@pytest.mark.parametrize("limits", [{"min_speedup": 0.1}, {"max_latency_ms": 1e6}])
def test_what_was_not_measured_does_not_pass(limits):
    failed = report(eager(8.0), engine(1.0), engine(None, 8))
    assert violations_of(failed, **limits) == [
        "b1.engine.ts FP16, batch 8 failed (out of memory); expected a row that was measured."
    ]
    assert violations_of(report(eager(8.0), json_row("compile", 1.0)), **limits) == [
        "The report has no row of a file; expected one for the threshold."
    ]


def test_a_row_without_a_speed_up_violates_it():
    data = report(engine(1.0, speedup=None))
    assert violations_of(data, max_latency_ms=1.0) == []
    assert violations_of(data, min_speedup=0.1) == [
        "b1.engine.ts FP16, batch 1 has no speed-up; expected at least 0.1x (--min-speedup)."
    ]


def test_an_onnx_file_is_held_to_them_and_an_engine_without_its_cuda_graph_is_not():
    onnx = json_row("onnxruntime", 4.0, file="ssd300.onnx", precision="fp32", speedup=2.0)
    plain = json_row("engine-plain", 1.5, file="work/b1.engine.ts", speedup=5.3)
    data = report(eager(8.0), onnx, engine(1.0, speedup=8.0), plain)
    assert violations_of(data, min_speedup=6.0) == [
        "ssd300.onnx FP32, onnxruntime, batch 1 is 2x as fast as FP32 eager; expected at least 6x."
    ]


def test_a_module_counts_as_a_baseline_beside_engines_and_alone_as_a_file():
    module = json_row("torchscript", 7.9, file="ssd300.ts", speedup=1.01)
    assert violations_of(report(eager(8.0), engine(1.0, speedup=8.0), module), min_speedup=5.0) == []
    (text,) = violations_of(report(eager(8.0), module), min_speedup=5.0)
    assert text.startswith("ssd300.ts ") and text.endswith(" is 1.01x as fast as FP32 eager; expected at least 5x.")
