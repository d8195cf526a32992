"""Markdown for GitHub: a benchmark, a comparison, what a table's cell may hold, and a job's summary."""

import pytest

from saved_reports import BASELINE_ROW, ENGINE_ROW, FAILED_ROW, ON_CPU, ON_GPU, bench_report, eager, engine, report, row
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.compare import compare
from ssdtrt.benchmarking.report import PartTime
from ssdtrt.commands import markdown


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("b8.engine.ts FP16", "b8.engine.ts FP16"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("_a_*b*`c`", r"\_a\_\*b\*\`c\`"),
        ("<b> &lt; [x](y) ~~z~~ $1$", r"\<b\> \&lt; \[x\](y) \~\~z\~\~ \$1\$"),
        ("two\nlines\tand  more", "two lines and more"),
    ],
)
def test_escape(text, escaped):
    assert markdown._escape(text) == escaped


def test_table():
    assert markdown._table(("runner", "ms"), [("a|b", "1.5"), ("c", "-")]) == (
        "| runner | ms |\n| --- | --: |\n| a\\|b | 1.5 |\n| c | - |"
    )


def test_page():
    page = markdown.page("title", ["about_it", "how"], [(("a", "b"), [("1", "2")])], ["one", "two|three"])
    assert page == ("### title\n\nabout\\_it\n\nhow\n\n| a | b |\n| --- | --: |\n| 1 | 2 |\n\n- one\n- two\\|three\n")
    assert markdown.page("t", [], [(("a",), []), (("b",), [])], []) == "### t\n\n| a |\n| --- |\n\n| b |\n| --- |\n"


def test_summary_is_added_to(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert markdown.append_summary("one\n") is None and markdown.append_summary("two\n") is None
    assert path.read_text() == "before\none\n\ntwo\n\n"


def test_no_summary_outside_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert markdown.append_summary("one") is None
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "")
    assert markdown.append_summary("one") is None
    assert list(tmp_path.iterdir()) == []


def test_a_summary_that_cannot_be_written_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert markdown.append_summary("one") == f"the job's summary {tmp_path} cannot be written: Is a directory"


def test_a_benchmark():
    parts = (PartTime("network", 8, 1.5, 1.75),)
    page = markdown.bench_markdown(
        bench_report(BASELINE_ROW, ENGINE_ROW, FAILED_ROW, machine=ON_GPU, notes=("a|b",), parts=parts)
    )
    assert page == (
        "### ssdtrt bench\n"
        "\n"
        "Some GPU, torch 2.9.0, Torch-TensorRT 2.9.1, TensorRT 10.1, driver 550.54\n"
        "\n"
        "40 calls a row in 10 interleaved rounds after 3 to warm up, host monotonic clock, TF32 disabled\n"
        "\n"
        "| runner | batch | median ms | p90 | p99 | max | images/s | speed-up | 95 % of it |\n"
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |\n"
        "| eager-fp32 | 8 | 14.12 | 14.50 | 120.4 | 121.0 | 566 | 1.00x | - |\n"
        "| ssd300.engine.ts FP16 | 8 | 1.765 | 1.800 | 9.999 | 12.35 | 4,532 | 8.00x | 7.51-8.13 |\n"
        "| compile FP16 | 8 | failed | - | - | - | - | - | - |\n"
        "\n"
        "| runner | batch | CV | host ms | first ms | build s | MiB | rel. L2 | matched |\n"
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |\n"
        "| eager-fp32 | 8 | 1.2 % | 14.20 | 1234.5 | - | - | - | - |\n"
        "| ssd300.engine.ts FP16 | 8 | 1.2 % | 1.900 | 2.000 | 120 | 1,234 | 1.2e-03 | 95.0 % |\n"
        "\n"
        "| part, host time | batch | median ms | p90 |\n"
        "| --- | --: | --: | --: |\n"
        "| network | 8 | 1.500 | 1.750 |\n"
        "\n"
        "- failed: compile FP16, batch 8: no Triton\n"
        "- note: a\\|b\n"
    )


def test_tables_without_a_row_are_left_out():
    lines = markdown.bench_markdown(bench_report(FAILED_ROW, machine=ON_CPU)).splitlines()
    assert lines[2] == "Some CPU, 2 cores, torch 2.9.0"
    assert sum(line.startswith("| ---") for line in lines) == 1
    assert lines[-1] == "- failed: compile FP16, batch 8: no Triton"


def test_a_comparison():
    old = report(eager(8.0), engine(1.0), engine(2.0, 8), engine(3.0, 32), row("compile", None))
    new = report(eager(7.2), engine(1.1234), engine(None, 8), engine(4.0, 64), row("compile", None))
    reports = report_file.parse(old, "a"), report_file.parse(new, "b")
    found = compare(*reports, sources=("old.json", "new|1.json"), limit=0.05)
    lines = markdown.compare_markdown(found).splitlines()
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
