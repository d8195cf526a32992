"""Two reports compared: which rows belong together, what breaks the limit, and what is refused."""

import copy

import pytest

from conftest import ROOT
from saved_reports import (
    CPU,
    GPU,
    SETTINGS,
    VERSIONS,
    accuracy,
    eager,
    engine,
    first_schema,
    graph,
    report,
    row,
    save,
    second_schema,
    third_schema,
)
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
        ("eager-fp32", 1, "not judged"), ("b1.engine.ts FP16", 1, "not judged"), ("b1.engine.ts FP16", 8, "not judged"),
        ("b1.engine.ts FP16, engine-plain", 1, "missing"), ("b1.engine.ts FP32", 1, "new"),
    ]  # fmt: skip
    assert [row.change for row in found.rows] == pytest.approx([-0.5, -0.1, 0.1, None, None])
    assert [(row.old_ms, row.new_ms) for row in found.rows][2:] == [(2.0, 2.2), (0.5, None), (None, 1.0)]
    assert found.passed and found.verdict is None and found.failures == found.not_comparable == ()  # There is no limit.


def test_reports_of_every_schema_are_compared():
    data = report(eager(8.0), engine(1.0))
    for old in (second_schema(data), third_schema(data)):
        assert verdicts(compared(old, data, 0.05)) == [
            ("eager-fp32", 1, "not judged"),
            ("b1.engine.ts FP16", 1, "same"),
        ]
    plain = report(eager(8.0), row("engine-plain", 1.0, file="work/b1.engine.ts"))
    expected = [("eager-fp32", 1, "not judged"), ("b1.engine.ts FP16, engine-plain", 1, "same")]
    assert verdicts(compared(first_schema(plain), plain, 0.05)) == expected


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
        "b1.engine.ts FP16, batch 32 is not in new.json; expected every row of a file in the old report. Measure it too.",
    )
    assert not found.passed
    assert [row.verdict for row in found.rows] == ["not judged", "slower", "failed", "missing", "new"]


def test_a_row_that_never_ran_breaks_nothing():
    old, new = report(engine(1.0), row("compile", None)), report(engine(1.0), row("compile", None))
    assert compared(old, new, 0.05).passed
    new["rows"][1] = row("compile", 3.0)
    assert compared(old, new, 0.05).passed


def test_baselines_are_not_held_to_the_limit():
    """FP32 eager, the module and the engine without its CUDA graph got slower: the processor is busy."""
    module, plain = row("torchscript", 5.0, file="ssd300.ts"), row("engine-plain", 2.0, file="work/b1.engine.ts")
    old = report(eager(8.0), graph(4.0), module, engine(1.0), plain, eager(9.0, 8))
    slow = [{**one, "median_ms": 16.0, "coefficient_of_variation": 0.3} for one in (eager(), module, plain)]
    found = compared(old, report(slow[0], graph(4.0), slow[1], engine(1.0), slow[2]), 0.05)
    assert (found.verdict, found.passed, found.notes) == ("passed", True, ())
    assert [(row.judged, row.verdict) for row in found.rows] == [
        (False, "not judged"), (False, "not judged"), (False, "not judged"), (True, "same"), (False, "not judged"),
        (False, "missing"),
    ]  # fmt: skip
    alone = compared(report(eager(), graph(), module), report(eager(), graph(), {**module, "median_ms": 6.0}), 0.05)
    assert alone.failures == ("ssd300.ts FP16, torchscript, batch 1 takes 6.000 ms, +20.0 %; "
                              "expected at most 5 % over 5.000 ms.",)  # fmt: skip


@pytest.mark.parametrize(
    "reference, median, variation, verdict",
    [
        (4.0, 1.2, 0.01, "failed"),  # slower on the same machine
        (4.2, 1.2, 0.05, "failed"),  # the limit itself is the same machine
        (4.3, 1.2, 0.01, "not comparable"),  # slower, and so is the machine
        (4.3, 1.0, 0.01, "not comparable"),
        (3.7, 1.0, 0.01, "not comparable"),  # A faster machine would hide that the engine is slower.
        (4.0, 1.2, 0.06, "not comparable"),
        (4.0, 0.8, 0.06, "not comparable"),
        (4.0, 0.8, 0.01, "passed"),
        (3.8, 0.8, 0.01, "passed"),
    ],
)
@pytest.mark.parametrize("machine, baseline", [(GPU, graph), (CPU, eager)], ids=["GPU", "CPU"])
def test_a_slower_engine_is_told_from_a_slower_machine(machine, baseline, reference, median, variation, verdict):
    old = report(baseline(4.0), engine(1.0), machine=machine)
    new = report(baseline(reference), engine(median, coefficient_of_variation=variation), machine=machine)
    found = compared(old, new, 0.05)
    assert (found.verdict, found.passed) == (verdict, verdict == "passed")
    row = {"failed": "slower", "passed": "same"}.get(verdict, verdict)
    assert [one.verdict for one in found.rows] == ["not judged", row]
    assert (len(found.failures), len(found.not_comparable)) == (verdict == "failed", verdict == "not comparable")
    assert found.notes == ()


def test_each_reason_not_to_compare_is_a_sentence_once():
    old = report(graph(4.0), engine(1.0), engine(1.0, file="b.ts", coefficient_of_variation=0.125))
    new = report(graph(5.0, coefficient_of_variation=0.06), engine(1.0), engine(1.0, file="b.ts"))
    end = "; expected at most the limit, 5 %. Measure again where nothing else runs, or allow more."
    found = compared(old, new, 0.05)
    assert set(found.not_comparable) == {
        f"eager-fp16-graph, batch 1 varies by 6.0 % in new.json{end}",
        f"b.ts FP16, batch 1 varies by 12.5 % in old.json{end}",
        "The machine changed: eager-fp16-graph, batch 1 took 4.000 ms and takes 5.000 ms, +25.0 %; expected at most 5 % "
        "to either side. Measure again where nothing else runs; if it stays so, record old.json again.",
    }
    assert len(found.not_comparable) == 3 and found.failures == ()


def test_each_batch_size_is_judged_by_its_own_baseline():
    old = report(graph(4.0), engine(1.0), graph(9.0, 8), engine(2.0, 8), engine(3.0, 32))
    new = report(graph(4.0), engine(1.2), graph(18.0, 8), engine(4.0, 8))
    found = compared(old, new, 0.1)
    assert [one.verdict for one in found.rows if one.judged] == ["slower", "not comparable", "missing"]
    assert found.verdict == "failed" and len(found.failures) == 2 and len(found.not_comparable) == 1


def test_files_are_judged_where_an_older_report_does_not_tell_of_the_machine():
    """With a note, which names what is lacking and in which report."""
    unknown = "whether the machine changed is not known: {} has no measured eager-fp16-graph at batch 1, 8"
    older = report(eager(), engine(1.0), eager(9.0, 8), engine(2.0, 8))
    today = report(eager(), graph(), engine(1.2), eager(9.0, 8), graph(6.0, 8), engine(2.0, 8))
    found = compared(older, today, 0.05)
    assert (found.verdict, len(found.failures), found.notes) == ("failed", 1, (unknown.format("old.json"),))
    failed = report(eager(), graph(None), engine(1.0), eager(9.0, 8), engine(2.0, 8))
    found = compared(today, failed, 0.05)
    assert (found.verdict, found.notes) == ("passed", (unknown.format("new.json"),))
    assert compared(older, older).notes == ()  # Nothing is judged without a limit.
    unsteady = report(graph(), engine(1.0, coefficient_of_variation=None))
    found = compared(unsteady, unsteady, 0.05)
    assert (found.verdict, found.notes[0]) == ("passed", "old.json does not record how much times vary at batch 1")


def test_runners_of_the_callers_own_are_judged():
    found = compared(report(row("", 1.0, name="mine")), report(row("", 1.1, name="mine")), 0.05)
    assert found.verdict == "failed" and found.failures[0].startswith("mine FP16, batch 1 takes 1.100 ms, +10.0 %; ")


def test_recorded_reports_of_two_states_on_two_machines():
    """The engine without a CUDA graph took 37 % longer, which was the processor; the engines did not."""
    reports = ROOT / "benchmarks" / "reports"
    found = compare_files(reports / "h200-static-front-end.json", reports / "h200-static.json", limit=0.05)
    assert (found.verdict, found.notes) == ("passed", ())
    assert [row.batch_size for row in found.rows if row.judged] == [1, 8, 32, 128]
    shared = reports / "cpu-torch2.14.json"  # Two cores of a machine that others used.
    assert compare_files(shared, shared, limit=0.1).verdict == "not comparable"
    assert compare_files(shared, shared, limit=0.25).verdict == "passed"


@pytest.mark.parametrize(
    "old, new",
    [
        (report(engine(1.0)), report(engine(1.0, 8))),
        (report(engine(1.0)), report(engine(None))),
    ],
    ids=["other sizes", "failed"],
)
def test_a_comparison_of_nothing_is_an_error(old, new):
    for limit in (None, 0.05):
        with pytest.raises(ReportError, match=r"^old\.json and new\.json have no measured row( of a file)? in "):
            compared(old, new, limit)


def test_a_limit_for_no_file_is_an_error():
    old, new = report(eager(1.0)), report(eager(1.0), engine(1.0))
    assert compared(old, new).rows[0].change == 0
    assert compared(new, old, 0.05).failures[0].startswith("b1.engine.ts FP16, batch 1 is not in new.json; ")
    with pytest.raises(ReportError, match=r"^old\.json and new\.json have no measured row of a file in common: "):
        compared(old, new, 0.05)


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
    old, new = report(graph(), engine(1.0)), report(graph(), engine(1.5))
    old, new = save(tmp_path / "a.json", old), save(tmp_path / "b.json", new)
    found = compare_files(old, new, limit=0.1)
    assert (found.old, found.new, found.limit) == (str(old), str(new), 0.1)
    assert found.document() == {
        "schema": 2, "kind": "compare", "passed": False, "verdict": "failed", "old": str(old), "new": str(new),
        "machine": GPU, "limit": 0.1,
        "rows": [{
            "runner": "eager-fp16-graph", "batch_size": 1, "judged": False, "old_ms": 4.0, "new_ms": 4.0,
            "verdict": "not judged", "reason": None, "change": 0.0,
        }, {
            "runner": "b1.engine.ts FP16", "batch_size": 1, "judged": True, "old_ms": 1.0, "new_ms": 1.5,
            "verdict": "slower", "reason": None, "change": 0.5,
        }],
        "failures": list(found.failures), "not_comparable": [], "notes": [],
    }  # fmt: skip


PICTURES = {"annotations": "val.json", "min_score": 0.05, "nms_iou": 0.5, "max_detections": 200, "images": "val"}


def evaluated(ap, images=1000, **changes):
    settings = {**SETTINGS, "evaluation": {**PICTURES, "annotations_sha256": "0" * 64, **changes}}
    rows = (eager(accuracy=accuracy(0.78, images=images)), engine(1.0, accuracy=accuracy(ap, images=images)))
    return report(*rows, engine(2.0, 8, accuracy=accuracy(ap, images=images)), settings=settings)


@pytest.mark.parametrize(
    "old, new, notes",
    [
        (evaluated(0.78), evaluated(0.7689, images=1000, annotations="moved.json"),
         ("AP of b1.engine.ts FP16 was 0.7800, is 0.7689",)),
        (evaluated(0.78), evaluated(0.78), ()),
        (evaluated(0.78), evaluated(0.7689, orient=True), ("AP is not compared: EXIF orientation was off, is on",)),
        (evaluated(0.78), evaluated(0.7689, 900), ("AP is not compared: number of pictures was 1000, is 900",)),
        (report(eager(), engine(1.0)), evaluated(0.7689), ()),
    ],
    ids=["changed", "same", "other settings", "a subset", "not known before"],
)  # fmt: skip
def test_how_ap_changed_is_a_note_for_each_runner(old, new, notes):
    assert compared(old, new).notes == notes


def test_nothing_is_changed_in_what_was_given():
    old, new = report(eager(), engine(1.0)), report(eager(), engine(2.0))
    before = copy.deepcopy((old, new))
    compared(old, new, 0.05)
    assert (old, new) == before and VERSIONS["torch"] == "2.14.0+cu130"
