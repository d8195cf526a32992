"""A comparison as text and as Markdown."""

from saved_reports import eager, engine, report, row
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.compare import compare
from ssdtrt.commands.compare_text import compare_markdown, compare_text

OLD = report(eager(8.0), engine(1.0), engine(2.0, 8), engine(3.0, 32), row("compile", None))
NEW = report(eager(7.2), engine(1.1234), engine(None, 8), engine(4.0, 64), row("compile", None))


def compared(limit=None, **options):
    return compare(report_file.parse(OLD, "old.json"), report_file.parse(NEW, "new|1.json"), limit, **options)


def test_text():
    assert compare_text(compared(), 200) == (
        "Some GPU, torch 2.14.0+cu130, Torch-TensorRT 2.14.0, TensorRT 11.1.0, driver 580.1\n"
        "old.json -> new|1.json, median ms of a batch\n"
        "\n"
        "runner             batch  old ms  new ms         change\n"
        "eager-fp32             1   8.000   7.200        -10.0 %\n"
        "b1.engine.ts FP16      1   1.000   1.123        +12.3 %\n"
        "b1.engine.ts FP16      8   2.000       -  failed in new\n"
        "b1.engine.ts FP16     32   3.000       -    only in old\n"
        "compile FP16           1       -       -   not measured\n"
        "b1.engine.ts FP16     64       -   4.000    only in new"
    )


def test_verdict():
    lines = compare_text(compared(0.125), 200).splitlines()
    assert lines[5].endswith("+12.3 %") and lines[-1] == "FAILED: 2 of the rows broke the limit of 12.5 %"
    lines = compare_text(compared(0.1, files_only=True), 200).splitlines()
    assert lines[5].endswith("+12.3 % SLOWER") and lines[-1] == "FAILED: 3 of the rows broke the limit of 10 %"
    same = compare(report_file.parse(OLD, "a"), report_file.parse(OLD, "b"), 0.05, files_only=True)
    assert compare_text(same, 200).endswith("\npassed: no row of a file is slower by more than 5 %")


def test_narrow_text_is_stacked():
    text = compare_text(compared(), 40)
    assert "\nb1.engine.ts FP16\n  batch: 8\n  old ms: 2.000\n  new ms: -\n  change: failed in new\n" in text


def test_markdown():
    lines = compare_markdown(compared(0.05)).splitlines()
    assert lines[0] == "### ssdtrt compare" and lines[4] == r"old.json to new\|1.json, median ms of a batch"
    assert lines[6:10] == [
        "| runner | batch | old ms | new ms | change |",
        "| --- | --: | --: | --: | --: |",
        "| eager-fp32 | 1 | 8.000 | 7.200 | -10.0 % |",
        "| b1.engine.ts FP16 | 1 | 1.000 | 1.123 | +12.3 % SLOWER |",
    ]
    assert lines[-4] == "- FAILED: 3 of the rows broke the limit of 5 %"
    assert lines[-1] == (
        r"- b1.engine.ts FP16, batch 32 is not in new\|1.json; expected every row of the old report. Measure it too."
    )
