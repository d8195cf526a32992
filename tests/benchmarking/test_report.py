"""A benchmark's report: its JSON, and what identifies a row."""

import json

import msgspec
import pytest

from ssdtrt import config
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.benchmarking.report import BatchGpuState, BenchReport, BenchRow, BenchSettings, HostTimes, PartTime
from ssdtrt.system.gpu_state import GpuState
from ssdtrt.system.versions import MeasuredOn, Versions

MACHINE = MeasuredOn(os="Linux", cpu="Some CPU", cores=2, versions=Versions(torch="2.9.0"))
SETTINGS = BenchSettings(rounds=3, iterations=4, clock="host")
AGREEMENT = ParityReport(
    "fp16", 8, (1, 8), 2e-2, 1e-4, (OutputDistance("loc", 1e-3), OutputDistance("conf", 2e-3)),
    DetectionAgreement(10, 8, 8, 0.01),
)  # fmt: skip


def row(**changes):
    values = {
        "name": "a.ts", "precision": "fp16", "batch_size": 4, "samples": 20, "median_ms": 2.0, "p90_ms": 2.5,
        "p99_ms": 3.0, "images_per_second": 2000.0, "speedup": 7.5,
    }  # fmt: skip
    return BenchRow(**{**values, **changes})


def test_row_as_dict():
    found = row().as_dict()
    assert found["agreement"] is None and found["build_seconds"] is None and found["memory_mib"] is None
    assert (found["name"], found["batch_size"], found["median_ms"], found["speedup"]) == ("a.ts", 4, 2.0, 7.5)
    assert (found["status"], found["reason"], found["host"], found["file"]) == ("ok", "", None, None)


def test_row_with_host_times():
    made = row(host=HostTimes(2.0, 2.5, 3.0, 3.5, 0.25), case="engine", file="a.ts")
    assert json.loads(json.dumps(made.as_dict()))["host"] == {
        "median_ms": 2.0, "p90_ms": 2.5, "p99_ms": 3.0, "max_ms": 3.5, "returned_ms": 0.25
    }  # fmt: skip
    assert made.ok


def test_a_failed_row_has_no_figures():
    made = BenchRow("torch.compile FP16", "fp16", 8, case="compile", status="failed", reason="no Triton")
    assert not made.ok
    found = {name: value for name, value in made.as_dict().items() if value is not None}
    assert found == {
        "name": "torch.compile FP16", "precision": "fp16", "batch_size": 8, "case": "compile", "status": "failed",
        "reason": "no Triton", "samples": 0,
    }  # fmt: skip


def test_report_as_json():
    parts = (PartTime("network", 8, 2.0, 2.5),)
    rows = row(), row(agreement=AGREEMENT, build_seconds=1.5)
    report = BenchReport(MACHINE, SETTINGS, rows, ("untrained",), parts)
    found = json.loads(json.dumps(report.document(), allow_nan=False))
    assert list(found) == ["schema", "kind", "machine", "settings", "rows", "notes", "parts", "failures"]
    assert (found["schema"], found["kind"]) == (config.BENCH_SCHEMA, "bench")
    assert found["machine"] == MACHINE.as_dict() and found["settings"] == SETTINGS.as_dict()
    assert found["notes"] == ["untrained"]
    assert found["rows"][0]["agreement"] is None
    assert found["rows"][1]["agreement"]["passed"] is True
    assert found["rows"][1]["agreement"]["detections"]["match_rate"] == 0.8
    assert found["parts"] == [{"name": "network", "batch_size": 8, "median_ms": 2.0, "p90_ms": 2.5}]
    assert msgspec.convert(found, BenchReport) == report


def test_the_gpus_state_as_json():
    state = BatchGpuState(8, None, GpuState(sm_mhz=1980.0, throttled=("power limit",)), ("python (12)",))
    settings = msgspec.structs.replace(SETTINGS, gpu_state=(state,))
    (found,) = json.loads(json.dumps(settings.as_dict()))["gpu_state"]
    assert (found["batch_size"], found["before"], found["other_processes"]) == (8, None, ["python (12)"])
    assert (found["after"]["sm_mhz"], found["after"]["throttled"]) == (1980.0, ["power limit"])
    assert msgspec.convert(found, BatchGpuState) == state


def test_fields_of_a_row():
    assert set(row().as_dict()) == {
        "name", "precision", "batch_size", "case", "file", "status", "reason", "samples", "median_ms", "p90_ms",
        "p99_ms", "max_ms", "coefficient_of_variation", "images_per_second", "speedup", "speedup_low", "speedup_high",
        "host", "memory_mib", "build_seconds", "compile_seconds", "first_call_ms", "agreement", "accuracy",
    }  # fmt: skip


def test_a_row_without_a_median_was_not_measured():
    assert row().ok and not BenchRow("a", "fp16", 8).ok and not row(status="failed").ok


def test_an_engine_was_built_and_a_module_was_not():
    assert row(build_seconds=1.5).built and not row().built


def test_report_without_notes():
    found = BenchReport(MACHINE, SETTINGS, (row(),)).as_dict()
    assert (found["notes"], found["parts"]) == ([], [])


@pytest.mark.parametrize(
    "changes, is_file, runner",
    [
        ({"case": "engine", "file": "work/b1.engine.ts"}, True, "work/b1.engine.ts FP16"),
        ({"case": "engine-plain", "file": "b1.engine.ts"}, True, "b1.engine.ts FP16, engine-plain"),
        ({"case": "eager-fp16"}, False, "eager-fp16"),
        ({"case": "compile"}, False, "compile FP16"),
        ({"case": "onnxruntime", "file": "ssd300.onnx"}, True, "ssd300.onnx FP16, onnxruntime"),
        ({"case": "onnxruntime"}, False, "onnxruntime FP16"),
        ({"name": "mine"}, False, "mine FP16"),
    ],
)
def test_what_a_row_is_called(changes, is_file, runner):
    made = row(**changes)
    assert (made.is_file, made.runner, made.label) == (is_file, runner, f"{runner}, batch 4")


def test_rows_of_two_reports_belong_together_by_their_key():
    first = row(case="engine", file="a.ts", median_ms=3.0)
    assert first.key == row(case="engine", file="a.ts").key
    for changes in ({"file": "b.ts"}, {"case": "engine-plain"}, {"precision": "fp32"}, {"batch_size": 8}):
        assert first.key != row(**{"case": "engine", "file": "a.ts", **changes}).key


def test_file_names_in_place_of_paths_but_where_two_are_the_same():
    def files(*paths):
        rows = tuple(row(case="engine", file=path) for path in paths)
        return [made.file for made in BenchReport(MACHINE, SETTINGS, rows).with_file_names.rows]

    assert files("x/a.ts", "x/b.ts", "x/a.ts") == ["a.ts", "b.ts", "a.ts"]
    assert files("x/a.ts", "y/a.ts", "y/b.ts", None) == ["x/a.ts", "y/a.ts", "b.ts", None]
