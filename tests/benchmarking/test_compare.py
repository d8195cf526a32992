"""Two reports compared: which rows belong together, what breaks the limit, and what is refused."""

import copy

import pytest

from saved_reports import CPU, GPU, SETTINGS, VERSIONS, eager, engine, first_schema, report, row, save, second_schema
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.compare import compare, compare_files
from ssdtrt.errors import ReportError


def compared(old, new, limit=None, **options):
    reports = report_file.parse(old, "old.json"), report_file.parse(new, "new.json")
    return compare(*reports, sources=("old.json", "new.json"), limit=limit, **options)


def verdicts(found):
    return [(row.runner, row.batch_size, row.verdict) for row in found.rows]


def test_rows_belong_together_by_case_file_precision_and_batch_size():
    old = report(eager(8.0), engine(1.0), engine(2.0, 8), row("engine-plain", 0.5, 1, "work/b1.engine.ts"))
    moved = {"file": "elsewhere/b1.engine.ts"}
    new = report(engine(2.2, 8, **moved), engine(0.9, **moved), eager(4.0), engine(1.0, precision="fp32", **moved))
    found = compared(old, new)
    assert verdicts(found) == [
        ("eager-fp32", 1, "same"), ("b1.engine.ts FP16", 1, "same"), ("b1.engine.ts FP16", 8, "same"),
        ("b1.engine.ts FP16, engine-plain", 1, "missing"), ("b1.engine.ts FP32", 1, "new"),
    ]  # fmt: skip
    assert [row.change for row in found.rows] == pytest.approx([-0.5, -0.1, 0.1, None, None])
    assert [(row.old_ms, row.new_ms) for row in found.rows][2:] == [(2.0, 2.2), (0.5, None), (None, 1.0)]
    assert found.passed and found.failures == ()  # There is no limit.


def test_reports_of_every_schema_are_compared():
    data = report(eager(8.0), engine(1.0))
    assert verdicts(compared(second_schema(data), data)) == [
        ("eager-fp32", 1, "same"),
        ("b1.engine.ts FP16", 1, "same"),
    ]
    plain = report(eager(8.0), row("engine-plain", 1.0, file="work/b1.engine.ts"))
    expected = [("eager-fp32", 1, "same"), ("b1.engine.ts FP16, engine-plain", 1, "same")]
    assert verdicts(compared(first_schema(plain), plain)) == expected


def test_a_row_that_failed_has_no_figures_though_it_holds_some():
    old = report(eager(), engine(1.0))
    found = compared(old, report(eager(), engine(0.5, status="failed", reason="lost")), 0.05)
    assert (found.rows[1].new_ms, found.rows[1].verdict, found.rows[1].reason) == (None, "failed", "lost")
    assert found.failures == ("b1.engine.ts FP16, batch 1 failed (lost); expected at most 5 % over 1.000 ms.",)


@pytest.mark.parametrize(
    "old, new, slower", [(100.0, 105.0, False), (100.0, 105.01, True), (0.57, 0.5985, False), (8.0, 4.0, False)]
)
def test_the_limit_itself_is_allowed(old, new, slower):
    found = compared(report(engine(old)), report(engine(new)), 0.05)
    assert found.passed is not slower
    assert [row.verdict for row in found.rows] == ["slower" if slower else "same"]


def test_each_row_that_broke_the_limit_is_a_sentence():
    old = report(eager(8.0), engine(1.0), engine(2.0, 8), engine(3.0, 32))
    new = report(eager(8.1), engine(1.2), engine(None, 8), engine(9.0, 64))
    found = compared(old, new, 0.05)
    assert found.failures == (
        "b1.engine.ts FP16, batch 1 takes 1.200 ms, +20.0 %; expected at most 5 % over 1.000 ms.",
        "b1.engine.ts FP16, batch 8 failed (out of memory); expected at most 5 % over 2.000 ms.",
        "b1.engine.ts FP16, batch 32 is not in new.json; expected every row of the old report. Measure it too.",
    )
    assert not found.passed
    assert [row.verdict for row in found.rows] == ["same", "slower", "failed", "missing", "new"]


def test_a_row_that_never_ran_breaks_nothing():
    old, new = report(engine(1.0), row("compile", None)), report(engine(1.0), row("compile", None))
    assert compared(old, new, 0.05).passed
    new["rows"][1] = row("compile", 3.0)
    assert compared(old, new, 0.05).passed


def test_only_the_rows_of_files_are_held_to_the_limit():
    old, new = report(eager(8.0), eager(9.0, 8), engine(1.0)), report(eager(16.0), engine(1.0))
    assert len(compared(old, new, 0.05).failures) == 2
    found = compared(old, new, 0.05, files_only=True)
    assert found.passed and [row.verdict for row in found.rows] == ["same", "missing", "same"]
    new["rows"][1] = engine(1.2)
    assert len(compared(old, new, 0.05, files_only=True).failures) == 1


@pytest.mark.parametrize(
    "old, new, options",
    [
        (report(engine(1.0)), report(engine(1.0, 8)), {}),
        (report(engine(1.0)), report(engine(None)), {}),
        (report(eager(1.0), engine(1.0)), report(eager(1.0)), {"files_only": True}),
    ],
    ids=["other sizes", "failed", "no file"],
)
def test_a_comparison_of_nothing_is_an_error(old, new, options):
    for limit in (None, 0.05):
        with pytest.raises(ReportError, match=r"^old\.json and new\.json have no measured row( of a file)? in "):
            compared(old, new, limit, **options)


def changed(machine=None, versions=None, settings=None, base=GPU):
    machine = {**base, "versions": {**base["versions"], **(versions or {})}, **(machine or {})}
    return report(engine(1.0), machine=machine, settings={**SETTINGS, **(settings or {})})


@pytest.mark.parametrize(
    "base, changes, words",
    [
        (GPU, {"machine": {"gpu": "Other GPU"}}, "GPU was Some GPU, is Other GPU"),
        (GPU, {"machine": {"gpu": None, "sm": None}}, "GPU was Some GPU, is none; compute capability was 9.0, is none"),
        (GPU, {"versions": {"torch": "2.13.0"}}, "torch was 2.14.0+cu130, is 2.13.0"),
        (GPU, {"versions": {"tensorrt": "11.0"}}, "TensorRT was 11.1.0, is 11.0"),
        (GPU, {"versions": {"torch_tensorrt": None}}, "Torch-TensorRT was 2.14.0, is none"),
        (GPU, {"versions": {"cuda": "12.1"}}, "CUDA was 13.0, is 12.1"),
        (GPU, {"settings": {"clock": "host monotonic clock"}}, "clock was CUDA events, is host monotonic clock"),
        (GPU, {"settings": {"tf32": True}}, "TF32 was off, is on"),
        (CPU, {"machine": {"cpu": "Other CPU"}}, "processor was Some CPU, is Other CPU"),
        (CPU, {"machine": {"cores": 2}}, "cores was 16, is 2"),
        (CPU, {"versions": {"torch": "2.13.0"}}, "torch was 2.14.0+cu130, is 2.13.0"),
    ],
)
def test_what_differs_too_much_is_refused_unless_forced(base, changes, words):
    old, new = changed(base=base), changed(base=base, **changes)
    with pytest.raises(ReportError) as caught:
        compared(old, new)
    assert str(caught.value) == (
        f"old.json and new.json cannot be compared: {words}. "
        "Measure both on one kind of machine with the same versions and settings, or give --force."
    )
    found = compared(old, new, 0.05, force=True)
    assert found.passed
    expected = tuple(f"compared although they differ: {part}" for part in words.split("; "))
    assert found.notes[: len(expected)] == expected


@pytest.mark.parametrize(
    "base, changes, notes",
    [
        (GPU, {"versions": {"driver": "590.2"}}, ("driver was 580.1, is 590.2",)),
        (GPU, {"machine": {"cpu": "Other CPU"}}, ("processor was Some CPU, is Other CPU",)),
        (GPU, {"versions": {"ssdtrt": "0.2.0"}, "settings": {"rounds": 3}}, ()),
        (CPU, {"versions": {"torch_tensorrt": "2.14.0", "cuda": None}}, ()),
        (CPU, {"versions": {"python": "3.12.1"}}, ("Python was 3.11.7, is 3.12.1",)),
    ],
)
def test_what_differs_a_little_is_noted(base, changes, notes):
    assert compared(changed(base=base), changed(base=base, **changes)).notes == notes


def test_a_setting_that_only_one_report_has_does_not_refuse_it():
    old, new = changed(), changed()
    del old["settings"]["input_sets"]
    assert compared(old, new).passed


def test_files_are_compared_and_named(tmp_path):
    old, new = save(tmp_path / "a.json", report(engine(1.0))), save(tmp_path / "b.json", report(engine(1.5)))
    found = compare_files(old, new, limit=0.1)
    assert (found.old, found.new, found.limit) == (str(old), str(new), 0.1)
    assert found.document() == {
        "schema": 1, "kind": "compare", "passed": False, "old": str(old), "new": str(new), "machine": GPU, "limit": 0.1,
        "files_only": False,
        "rows": [{
            "runner": "b1.engine.ts FP16", "batch_size": 1, "is_file": True, "old_ms": 1.0, "new_ms": 1.5,
            "verdict": "slower", "reason": None, "change": 0.5,
        }],
        "failures": list(found.failures), "notes": [],
    }  # fmt: skip


def test_nothing_is_changed_in_what_was_given():
    old, new = report(eager(), engine(1.0)), report(eager(), engine(2.0))
    before = copy.deepcopy((old, new))
    compared(old, new, 0.05)
    assert (old, new) == before and VERSIONS["torch"] == "2.14.0+cu130"
