"""Saved benchmark reports of every schema, and the errors for files that are none."""

import json

import pytest
from msgspec.structs import replace

from conftest import ROOT
from saved_reports import (
    CPU,
    ON_CPU,
    ON_GPU,
    bench_report,
    bench_row,
    eager,
    engine,
    first_schema,
    parity,
    report,
    row,
    save,
    second_schema,
    third_schema,
)
from ssdtrt import config
from ssdtrt.benchmarking import plot, report_file
from ssdtrt.benchmarking.compare import compare_files
from ssdtrt.benchmarking.report import Accuracy, BatchGpuState, BenchSettings, PartTime
from ssdtrt.errors import ReportError
from ssdtrt.evaluation.report import EvalSettings
from ssdtrt.system.gpu_state import GpuState

MAKE_IT = "Make one with: ssdtrt bench --json FILE"
BENCH = {"machine", "settings", "rows"}
REPORTS, BASELINES = ROOT / "benchmarks" / "reports", ROOT / "benchmarks" / "baselines"
RECORDED = sorted([*REPORTS.glob("*.json"), *BASELINES.glob("*.json")])
BENCHED = [path for path in RECORDED if json.loads(path.read_text()).keys() >= BENCH]


def test_what_bench_writes_is_what_is_read(tmp_path):
    settings = BenchSettings(
        rounds=3, iterations=2, clock="c", warmup=1, tf32=False, cudnn_benchmark=True, input_sets=4, rest_seconds=0.1,
        gpu_state=(BatchGpuState(8, GpuState(sm_mhz=5.0, throttled=()), None, ("python (7)",)),),
    )  # fmt: skip
    settings = replace(settings, evaluation=EvalSettings("a.json", 0.05, 0.5, 200, "val", value_range=(0.0, 9.5)))
    rows = (
        bench_row("eager-fp32", "fp32", case="eager-fp32", accuracy=Accuracy(0.5, None, 0.25, 0.0, 7)),
        bench_row("a.ts", "fp16", parity(), case="engine"),
    )
    for machine in (ON_CPU, ON_GPU):
        made = bench_report(
            *rows, machine=machine, settings=settings, notes=("one",), parts=(PartTime("network", 8, 1.0, 2.0),)
        )
        assert report_file.read(save(tmp_path / "a.json", made.document())) == made


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_report_that_a_shell_wrote_in_another_encoding(encoding, tmp_path):
    made = bench_report(bench_row("a.ts", "fp16", parity(), case="engine"))
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made.document()), encoding=encoding)
    assert report_file.read(path) == made


def test_rows():
    graph = row("engine-plain", 0.4, 8, "work/b1.engine.ts", build_seconds=9.0)
    found = report_file.parse(report(eager(), engine(0.5, 8), graph, row("compile", None)), "new.json")
    assert (found.machine.gpu, found.settings.rounds) == ("Some GPU", 10)
    assert [(one.case, one.file, one.precision, one.batch_size, one.median_ms, one.speedup) for one in found.rows] == [
        ("eager-fp32", None, "fp32", 1, 8.0, 1.0),
        ("engine", "work/b1.engine.ts", "fp16", 8, 0.5, 2.0),
        ("engine-plain", "work/b1.engine.ts", "fp16", 8, 0.4, 2.0),
        ("compile", None, "fp16", 1, None, None),
    ]
    assert [(one.ok, one.reason) for one in found.rows] == [(True, "")] * 3 + [(False, "out of memory")]
    assert [one.built for one in found.rows] == [False, False, True, False]


def test_older_schemas_give_the_same_report():
    host = {"median_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0, "returned_ms": None}
    plain = row("engine-plain", 0.7, 8, "work/b1.engine.ts")
    data = report(eager(), engine(0.5, 8, name="work/b1.engine.ts", host=host), row("compile", None), plain)
    today = report_file.parse(data, "new.json")
    assert (
        report_file.parse(third_schema(data), "old.json") == report_file.parse(second_schema(data), "old.json") == today
    )
    assert today.rows[1].host.max_ms == 4.0 and today.rows[1].max_ms == 0.5
    assert today.rows[1].coefficient_of_variation == 0.01
    first = report_file.parse(first_schema(report(eager(), plain)), "older.json")
    assert [(one.name, one.key, one.median_ms) for one in first.rows] == [
        (one.name, one.key, one.median_ms) for one in (today.rows[0], today.rows[3])
    ]


def test_engines_of_a_cpu_kept_their_case():
    data = report(eager(), engine(0.5), machine=CPU)
    assert [one.case for one in report_file.parse({**data, "schema": 3}, "old.json").rows] == ["eager-fp32", "engine"]


@pytest.mark.parametrize("path", BENCHED, ids=lambda path: path.name)
def test_every_recorded_report_is_read_and_compared(path):
    data = json.loads(path.read_text())
    found = report_file.read(path)
    assert [one.median_ms for one in found.rows] == [one["median_ms"] for one in data["rows"]]
    assert {one.case for one in found.rows} <= {*config.BENCH_CASES, ""}
    for one in found.rows:
        assert not one.case or one.name in (one.case, one.file, f"{one.file} graph", f"{one.file} plain")
    compared = compare_files(path, path, limit=0.25)  # Calls without a CUDA graph varied by up to 24 %.
    assert compared.verdict == "passed" and len(compared.rows) == len(data["rows"])
    assert all(one.change == 0 for one in compared.rows)


def test_recorded_reports_of_every_schema_are_drawn_together(tmp_path):
    names = "h200-static-exported.json", "h200-static.json", "h200-b1-default.json", "cpu-torch2.14.json"
    assert len({json.loads((REPORTS / name).read_text()).get("schema") for name in names}) >= 3
    found = {name: report_file.read(REPORTS / name) for name in names}
    assert plot.plot_reports(found, tmp_path / "a.svg").stat().st_size > 1000


def test_there_are_recorded_reports_of_both_older_schemas_and_of_other_kinds():
    schemas = [json.loads(path.read_text()).get("schema", 1) for path in BENCHED]
    assert set(schemas) >= {1, 2} and max(schemas) <= config.BENCH_SCHEMA
    others = set(RECORDED) - set(BENCHED)
    assert others
    for path in others:
        with pytest.raises(ReportError, match="expected a benchmark report"):
            report_file.read(path)


def test_what_was_recorded_is_read():
    found = report_file.read(REPORTS / "h200-static.json")
    assert [(one.case, one.file, one.batch_size) for one in found.rows] == [
        (case, f"b{size}.engine.ts" if case.startswith("engine") else None, size)
        for size in (1, 8, 32, 128)
        for case in ("eager-fp32", "eager-fp16-graph", "engine-plain", "engine")
    ]
    assert found.rows[14].median_ms == 11.00764799118042 and found.rows[14].agreement.passed
    assert found.rows[0].name == "eager-fp32"
    assert found.settings.gpu_state[3].after.throttled == ("power limit",)


def test_what_was_recorded_in_the_first_schema_is_read():
    found = report_file.read(REPORTS / "h200-static-exported.json")
    assert [(one.case, one.file, one.batch_size) for one in found.rows] == [
        (case, file, size)
        for size in (1, 8, 32, 128)
        for case, file in (("eager-fp32", None), ("engine-plain", f"b{size}.engine.ts"))
    ]
    assert found.rows[5].median_ms == 3.4264800548553467


def test_a_runner_of_the_callers_own_is_known_by_its_name():
    data = report(row("", 1.0, name="mine"))
    for one in (data, second_schema(data)):
        (found,) = report_file.parse(one, "a.json").rows
        assert (found.case, found.key[0], found.file, found.is_file) == ("", "mine", None, False)


def bad(**changes):
    return {**report(engine()), **changes}


def damaged(reason):
    return f"a.json is damaged ({reason}). {MAKE_IT}"


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "a.json holds no JSON object; expected a benchmark report. " + MAKE_IT),
        ({}, "a.json is another kind of report; expected a benchmark report. " + MAKE_IT),
        (bad(kind="eval"), "a.json is a report of kind 'eval'; expected a benchmark report. " + MAKE_IT),
        (bad(schema="2"), "a.json has the schema '2'; expected a number from 1. " + MAKE_IT),
        (bad(schema=0), "a.json has the schema 0; expected a number from 1. " + MAKE_IT),
        (bad(schema=True), "a.json has the schema True; expected a number from 1. " + MAKE_IT),
        (bad(schema=5), "a.json was written by a newer ssdtrt (schema 5, this one reads up to 4). Update ssdtrt."),
        (bad(rows=[]), damaged("Expected `array` of length >= 1 - at `$.rows`")),
        (bad(rows=[1]), damaged("Expected `object`, got `int` - at `$.rows[0]`")),
        (bad(rows=7), damaged("Expected `array`, got `int` - at `$.rows`")),
        (bad(schema=2, rows=7), damaged("Expected `array`, got `int` - at `$.rows`")),
        (bad(schema=1, rows=[7]), damaged("Expected `object`, got `int` - at `$.rows[0]`")),
        (bad(settings=None), damaged("Expected `object`, got `null` - at `$.settings`")),
        (bad(machine={}), damaged("Object missing required field `versions` - at `$.machine`")),
        (bad(machine={"versions": {}}), damaged("Object missing required field `torch` - at `$.machine.versions`")),
        (bad(machine={"versions": {"torch": "2"}}), damaged("its machine has neither `gpu` nor `cpu`")),
        (bad(machine={"versions": 1}), damaged("Expected `object`, got `int` - at `$.machine.versions`")),
        (
            report(engine(), engine()),
            "a.json holds more than one row of work/b1.engine.ts FP16, batch 1; expected one. Measure again.",
        ),
    ],
)
def test_data_that_is_no_benchmark(data, message):
    with pytest.raises(ReportError) as caught:
        report_file.parse(data, "a.json")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"median_ms": "fast"}, "Expected `float | null`, got `str` - at `$.rows[1].median_ms`"),
        ({"median_ms": -1.0}, "Expected `float` > 0.0 - at `$.rows[1].median_ms`"),
        ({"median_ms": True}, "Expected `float | null`, got `bool` - at `$.rows[1].median_ms`"),
        ({"speedup": 0}, "Expected `float` > 0.0 - at `$.rows[1].speedup`"),
        ({"batch_size": 0}, "Expected `int` >= 1 - at `$.rows[1].batch_size`"),
        ({"batch_size": 1.5}, "Expected `int`, got `float` - at `$.rows[1].batch_size`"),
        ({"precision": None}, "Expected `str`, got `null` - at `$.rows[1].precision`"),
        ({"case": 7}, "Expected `str`, got `int` - at `$.rows[1].case`"),
        ({"file": 7}, "Expected `str | null`, got `int` - at `$.rows[1].file`"),
        ({"reason": 7}, "Expected `str`, got `int` - at `$.rows[1].reason`"),
        ({"status": "fine"}, "Invalid enum value 'fine' - at `$.rows[1].status`"),
        ({"host": []}, "Expected `object | null`, got `array` - at `$.rows[1].host`"),
    ],
)
def test_a_row_with_a_wrong_field(changes, reason):
    data = report(eager(), {**engine(), **changes})
    for one in (data, second_schema(data)):
        with pytest.raises(ReportError) as caught:
            report_file.parse(one, "a.json")
        assert str(caught.value) == damaged(reason)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no JSON", b"\xff\xfe", b'{"rows": NaN}', b"[" * 200_000, b'{"rows": [' + b"9" * 5000 + b"]}",
        b'{"rows": 1e999}',
    ],
    ids=["empty", "text", "bytes", "NaN", "deep", "long number", "infinite"],
)  # fmt: skip
def test_a_file_that_is_not_json(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ReportError) as caught:
        report_file.read(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'} ")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(MAKE_IT)
