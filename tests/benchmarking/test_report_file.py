"""Saved benchmark reports of both schemas, and what is said of files that are none."""

import json

import pytest

from conftest import ROOT
from saved_reports import GPU, eager, engine, first_schema, report, row, save
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.report_file import Row
from ssdtrt.errors import ReportError

MAKE_IT = "Make one with: ssdtrt bench --json FILE"


def test_rows_of_the_second_schema():
    graph = row("engine-graph", 0.4, 8, "work/b1.engine.ts", build_seconds=9.0)
    data = report(eager(), engine(0.5, 8), graph, row("compile", None))
    record = report_file.parse(data, "new.json")
    assert (record.source, record.machine["gpu"], record.settings["rounds"]) == ("new.json", "Some GPU", 10)
    assert record.rows == (
        Row("eager-fp32", None, "fp32", 1, 8.0, 125.0, 1.0),
        Row("engine", "b1.engine.ts", "fp16", 8, 0.5, 16000.0, 2.0),
        Row("engine-graph", "b1.engine.ts", "fp16", 8, 0.4, 20000.0, 2.0, built=True),
        Row("compile", None, "fp16", 1, None, None, None, "out of memory"),
    )
    assert [found.is_file for found in record.rows] == [False, True, True, False]
    assert [found.label for found in record.rows] == [
        "eager-fp32, batch 1", "b1.engine.ts FP16, batch 8", "b1.engine.ts FP16, engine-graph, batch 8",
        "compile FP16, batch 1",
    ]  # fmt: skip


def test_the_first_schema_gives_the_same_rows():
    data = report(eager(), engine(0.5, 8))
    assert report_file.parse(first_schema(data), "old.json").rows == report_file.parse(data, "new.json").rows


def test_what_was_recorded_is_read():
    record = report_file.read(ROOT / "benchmarks" / "reports" / "h200-static.json")
    assert [(found.peer, found.file, found.batch_size) for found in record.rows] == [
        (peer, f"b{size}.engine.ts" if peer.startswith("engine") else None, size)
        for size in (1, 8, 32, 128)
        for peer in ("eager-fp32", "eager-fp16-graph", "engine", "engine-graph")
    ]
    assert record.rows[14].median_ms == 11.00764799118042


def test_what_was_recorded_in_the_first_schema_is_read():
    record = report_file.read(ROOT / "benchmarks" / "reports" / "h200-static-exported.json")
    assert [(found.peer, found.file, found.batch_size) for found in record.rows] == [
        (peer, file, size)
        for size in (1, 8, 32, 128)
        for peer, file in (("eager-fp32", None), ("engine", f"b{size}.engine.ts"))
    ]
    assert record.rows[5].median_ms == 3.4264800548553467


def test_a_runner_of_the_callers_own_is_known_by_its_name():
    (found,) = report_file.parse(report(row("", 1.0, name="mine")), "a.json").rows
    assert (found.peer, found.file, found.is_file) == ("mine", None, False)


def test_files_that_are_named_alike_keep_their_folders():
    rows = report_file.parse(report(engine(file="a/x.ts"), engine(file="b/x.ts"), engine(file="b/y.ts")), "a.json").rows
    assert [found.file for found in rows] == ["a/x.ts", "b/x.ts", "y.ts"]


def test_a_row_that_failed_gives_no_figures_though_it_holds_some():
    odd = engine(1.0, status="failed", reason="")
    (found,) = report_file.parse(report(odd), "a.json").rows
    assert (found.median_ms, found.speedup, found.reason) == (None, None, "it gives no reason")


def bad(**changes):
    return {**report(engine()), **changes}


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "a.json holds []; expected a benchmark's report. " + MAKE_IT),
        ({}, "a.json is another kind of report; expected a benchmark's. " + MAKE_IT),
        (bad(kind="eval"), "a.json is a report of kind 'eval'; expected a benchmark's. " + MAKE_IT),
        (bad(schema="2"), "a.json has the schema '2'; expected a number from 1. " + MAKE_IT),
        (bad(schema=0), "a.json has the schema 0; expected a number from 1. " + MAKE_IT),
        (bad(schema=True), "a.json has the schema True; expected a number from 1. " + MAKE_IT),
        (bad(schema=3), "a.json was written by a newer ssdtrt (schema 3, this one reads up to 2). Update ssdtrt."),
        (bad(rows=[]), "a.json has no rows; expected those of a benchmark. " + MAKE_IT),
        (bad(rows=[1]), "a.json has no rows; expected those of a benchmark. " + MAKE_IT),
        (bad(settings=None), "a.json is damaged or not whole: settings is None; expected an object. " + MAKE_IT),
        (bad(machine={}), "a.json is damaged or not whole: machine.gpu is missing. " + MAKE_IT),
        (
            bad(machine={**GPU, "versions": 1}),
            "a.json is damaged or not whole: machine.versions is 1; expected an object. " + MAKE_IT,
        ),
        (
            report(engine(), engine()),
            "a.json holds more than one row of b1.engine.ts FP16, batch 1; expected one. Measure again.",
        ),
    ],
)
def test_data_that_is_no_benchmark(data, message):
    with pytest.raises(ReportError) as caught:
        report_file.parse(data, "a.json")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"median_ms": "fast"}, "median_ms is 'fast'"),
        ({"median_ms": -1.0}, "median_ms is -1.0"),
        ({"median_ms": True}, "median_ms is True"),
        ({"speedup": float("inf")}, "speedup is inf"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"precision": None}, "precision is None"),
        ({"peer": 7}, "peer is 7"),
        ({"file": 7}, "file is 7"),
        ({"reason": 7}, "reason is 7"),
    ],
)
def test_a_row_with_a_wrong_field(changes, message):
    with pytest.raises(ReportError) as caught:
        report_file.parse(report(eager(), {**engine(), **changes}), "a.json")
    assert str(caught.value) == f"row 2 of a.json is damaged or not whole: {message}. {MAKE_IT}"


@pytest.mark.parametrize(
    "content",
    [b"", b"no JSON", b"\xff\xfe", b'{"rows": NaN}', b"[" * 200_000, b'{"rows": [' + b"9" * 5000 + b"]}"],
    ids=["empty", "text", "bytes", "NaN", "deep", "long number"],
)
def test_a_file_that_is_not_json(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ReportError) as caught:
        report_file.read(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'} ")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(MAKE_IT)


def test_a_saved_report_is_read(tmp_path):
    path = save(tmp_path / "a.json", report(eager(), engine(0.25)))
    assert [found.median_ms for found in report_file.read(path).rows] == [8.0, 0.25]
    assert json.loads(path.read_text())["schema"] == 2
