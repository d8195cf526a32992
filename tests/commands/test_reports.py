"""The commands on saved reports: exit codes, where things are written, and what is refused."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
from saved_evaluations import evaluation

from conftest import ROOT
from saved_reports import GPU, ON_GPU, VERSIONS, bench_report, bench_row, eager, graph, report, save
from saved_reports import engine as engine_row
from ssdtrt.commands.reports import finish_bench


@pytest.fixture
def reports(tmp_path):
    """Writes OLD and NEW beside each other: `reports(old, new)`."""

    def write(old, new):
        save(tmp_path / "old.json", old)
        save(tmp_path / "new.json", new)

    return write


OLD = report(eager(8.0), graph(4.0), engine_row(1.0), graph(6.0, 8), engine_row(2.0, 8))
SLOW = report(eager(8.0), graph(4.0), engine_row(1.0), graph(6.0, 8), engine_row(2.2, 8))
BUSY = report(eager(8.0), graph(4.0), engine_row(1.0), graph(7.2, 8), engine_row(2.2, 8))
NOISY = report(eager(8.0), graph(4.0), engine_row(1.0), graph(6.0, 8), engine_row(1.9, 8, coefficient_of_variation=0.3))
FAST = report(eager(8.0), graph(4.0), engine_row(0.9), graph(6.0, 8), engine_row(1.9, 8))
HOST = report(eager(16.0), graph(4.0), engine_row(1.0), graph(6.0, 8), engine_row(2.0, 8))


def test_compare_ends_with_0_without_a_limit(reports, ssdtrt):
    reports(OLD, SLOW)
    done = ssdtrt("compare", "old.json", "new.json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].split() == ["b1.engine.ts", "FP16", "8", "2.000", "2.200", "+10.0", "%"]


@pytest.mark.parametrize("limit, code", [("5%", 1), ("5", 1), ("9.9 %", 1), ("10%", 0), ("10", 0)])
def test_compare_ends_with_1_and_the_row_that_broke(limit, code, reports, ssdtrt):
    reports(OLD, SLOW)
    done = ssdtrt("compare", "old.json", "new.json", "--fail-if-slower", limit)
    assert done.exit_code == code
    number = limit.rstrip(" %")
    error = f"Error: b1.engine.ts FP16, batch 8 takes 2.200 ms, +10.0 %; expected at most {number} % over 2.000 ms.\n"
    assert done.stderr == (error if code else "")


@pytest.mark.parametrize(
    "new, code, errors, verdict",
    [
        (SLOW, 1, 1, "FAILED: 1 of 2 judged rows broke the limit of 5 %"),
        (BUSY, 3, 1, "NOT COMPARABLE: 1 of 2 judged rows: the machine changed, or times vary, by more than 5 %"),
        (NOISY, 3, 1, "NOT COMPARABLE: 1 of 2 judged rows: the machine changed, or times vary, by more than 5 %"),
        (FAST, 0, 0, "passed: 2 of 2 judged rows kept the limit of 5 %"),
        (HOST, 0, 0, "passed: 2 of 2 judged rows kept the limit of 5 %"),
    ],
    ids=["slower", "machine slower", "noisy", "faster", "baseline slower"],
)
def test_the_exit_code_tells_a_slower_engine_from_a_busy_machine(new, code, errors, verdict, reports, ssdtrt, tmp_path):
    reports(OLD, new)
    done = ssdtrt("compare", "old.json", "new.json", "--fail-if-slower", "5", "--json", "c.json", "--markdown", "c.md")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (code, verdict)
    assert len(done.stderr.splitlines()) == errors and done.stderr.count("Error: ") == errors
    page, found = (tmp_path / "c.md").read_text(), json.loads((tmp_path / "c.json").read_text())
    assert f"- {verdict}\n" in page
    assert found["verdict"] == {0: "passed", 1: "failed", 3: "not comparable"}[code]
    assert page.count(" NOT COMPARABLE |") == (code == 3)
    if code == 3:
        assert done.stderr == f"Error: {found['not_comparable'][0]}\n"


def test_a_proven_slowdown_counts_though_others_cannot_be_compared(reports, ssdtrt):
    reports(OLD, report(*BUSY["rows"][:2], engine_row(1.5), *BUSY["rows"][3:]))
    done = ssdtrt("compare", "old.json", "new.json", "--fail-if-slower", "5")
    assert done.exit_code == 1
    assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
        "Error: b1.engine.ts FP16", "Error: The machine changed: eager-fp16-graph"
    ]  # fmt: skip
    assert [line.split(":")[0] for line in done.stdout.splitlines()[-2:]] == ["FAILED", "NOT COMPARABLE"]


NO_PERCENTAGES = ["-5%", "five%", "%", "5%%", "nan%", "1e1%", "\u0665%", " 5%", "5  %", "", "99999%"]


@pytest.mark.parametrize("limit", NO_PERCENTAGES)
def test_a_percentage_is_read_strictly(limit, reports, ssdtrt):
    reports(OLD, OLD)
    done = ssdtrt("compare", "old.json", "new.json", f"--fail-if-slower={limit}")
    assert done.exit_code == 2 and done.stdout == ""
    assert "is not a percentage, such as 5, 5% or 2.5%." in done.stderr


def test_compare_writes_what_was_asked_for_before_it_fails(reports, ssdtrt, tmp_path):
    reports(OLD, SLOW)
    arguments = ("compare", "old.json", "new.json", "--fail-if-slower", "5%", "--json", "c.json", "--markdown", "c.md")
    assert ssdtrt(*arguments).exit_code == 1
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["schema"], found["kind"], found["passed"], len(found["failures"])) == (2, "compare", False, 1)
    assert "| b1.engine.ts FP16 | 8 | 2.000 | 2.200 | +10.0 % SLOWER |\n" in (tmp_path / "c.md").read_text()


def test_stdout_holds_one_of_json_and_markdown(reports, ssdtrt, tmp_path):
    reports(OLD, SLOW)
    done = ssdtrt("compare", "old.json", "new.json", "--json", "-")
    assert json.loads(done.stdout)["rows"][4]["new_ms"] == 2.2
    done = ssdtrt("compare", "old.json", "new.json", "--markdown", "-")
    assert done.stdout.startswith("### ssdtrt compare\n\n") and done.stdout.endswith("+10.0 % |\n")
    done = ssdtrt("compare", "old.json", "new.json", "--markdown", "-", "--json", "-")
    assert done.exit_code == 2 and done.stderr.endswith("Only one of --json and --markdown can go to stdout.\n")
    assert sorted(os.listdir(tmp_path)) == ["new.json", "old.json"]


def test_the_summary_of_a_job_holds_the_comparison(reports, ssdtrt, tmp_path, monkeypatch):
    reports(OLD, SLOW)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert ssdtrt("compare", "old.json", "new.json", "--fail-if-slower", "5%").exit_code == 1
    assert (tmp_path / "summary.md").read_text().startswith("### ssdtrt compare\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
    done = ssdtrt("compare", "old.json", "new.json")
    assert done.exit_code == 0 and done.stderr.startswith("note: the job's summary ")


def test_other_versions_are_refused_unless_forced(reports, ssdtrt):
    reports(OLD, report(*SLOW["rows"], machine={**GPU, "versions": {**VERSIONS, "tensorrt": "10.0"}}))
    done = ssdtrt("compare", "old.json", "new.json", "--fail-if-slower", "50%")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: old.json and new.json cannot be compared: TensorRT was 11.1.0, is 10.0. "
        "Measure both on one kind of machine with the same versions and settings, or give --force.\n"
    )
    done = ssdtrt("compare", "old.json", "new.json", "--fail-if-slower", "50%", "--force")
    assert done.exit_code == 0
    assert "\nnote: compared although they differ: TensorRT was 11.1.0, is 10.0\n" in done.stdout


def test_files_that_cannot_be_compared(reports, ssdtrt, tmp_path):
    reports(OLD, OLD)
    other = ROOT / "benchmarks" / "reports" / "h200-accuracy.json"
    (tmp_path / "text.json").write_text("text")
    for name, message in (
        ("none.json", "none.json: No such file or directory"),
        ("text.json", "text.json is not JSON (JSON is malformed: invalid character (byte 4)). "
         "Make one with: ssdtrt bench --json FILE"),
        (other, f"{other} is another kind of report; expected a benchmark report. "
         "Make one with: ssdtrt bench --json FILE"),
    ):  # fmt: skip
        done = ssdtrt("compare", "old.json", name)
        assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"Error: {message}\n")


def test_evaluations_are_compared(ssdtrt, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    save(tmp_path / "old.json", evaluation(0.25).document())
    save(tmp_path / "new.json", evaluation(0.2).document())
    arguments = ("compare", "old.json", "new.json", "--json", "c.json", "--markdown", "c.md")
    done = ssdtrt(*arguments, "--max-ap-drop", "0.01")
    assert done.exit_code == 1
    assert done.stderr == "Error: AP fell from 0.25 to 0.2, by 0.05; expected at most 0.01.\n"
    assert done.stdout.splitlines()[-1] == "FAILED: AP broke the limit of 0.01"
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["kind"], found["passed"], found["limit"]) == ("compare-evaluation", False, 0.01)
    page = (tmp_path / "c.md").read_text()
    assert page.startswith("### ssdtrt compare\n") and "\n| AP | 0.250 | 0.200 | -0.0500 |\n" in page
    assert (tmp_path / "summary.md").read_text() == page + "\n"
    done = ssdtrt(*arguments, "--max-ap-drop", "0.05")
    assert (done.exit_code, done.stderr) == (0, "")
    assert ssdtrt(*arguments).exit_code == 0


def test_a_benchmark_and_an_evaluation_are_not_compared(reports, ssdtrt, tmp_path):
    reports(OLD, OLD)
    save(tmp_path / "e.json", evaluation().document())
    for arguments, code, message in (
        (("old.json", "e.json"), 1, "Error: e.json is a report of kind 'evaluation'; expected a benchmark report."),
        (("e.json", "old.json"), 1, "Error: old.json is a report of kind 'bench'; expected an evaluation."),
        (("e.json", "none.json"), 1, "Error: none.json: No such file or directory"),
        (("e.json", "e.json", "--fail-if-slower", "5%"), 2, "e.json is an evaluation, whose limit is --max-ap-drop."),
        (("old.json", "new.json", "--max-ap-drop", "0.1"), 2, "old.json is no evaluation, which --max-ap-drop is for."),
        (("e.json", "e.json", "--max-ap-drop", "5"), 2, "5.0 is not in the range 0<=x<=1."),
    ):
        done = ssdtrt("compare", *arguments)
        assert (done.exit_code, done.stdout) == (code, "") and message in done.stderr


@pytest.mark.parametrize("limit", ["--fail-if-slower 5%", "--max-ap-drop 0.1"])
def test_compare_imports_no_torch(limit, tmp_path):
    save(tmp_path / "a.json", OLD if limit.endswith("%") else evaluation().document())
    code = (
        "import sys; from ssdtrt.cli import main\n"
        f"try: main('compare a.json a.json {limit} --json c.json --markdown c.md'.split())\n"
        "finally: print(sorted({'torch', 'torchvision', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_plot_draws_saved_reports(reports, ssdtrt, tmp_path):
    reports(OLD, SLOW)
    done = ssdtrt("plot", "old.json", "new.json", "-o", "speed.svg")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "speed.svg\n", "")
    text = (tmp_path / "speed.svg").read_text()
    assert "<!-- module FP16, old -->" in text
    assert ssdtrt("plot", "old.json").stdout == "bench.svg\n" and (tmp_path / "bench.svg").exists()
    assert ssdtrt("plot").exit_code == 2
    done = ssdtrt("plot", "old.json", "new.json", "-o", "speed.svg", "--json", "-")
    found = json.loads(done.stdout)
    assert list(found) == ["schema", "kind", "file", "reports", "lines"] and found["kind"] == "plot"
    assert (found["file"], found["reports"]) == ("speed.svg", ["old.json", "new.json"])
    times = {line["name"]: (line["batch_sizes"], line["median_ms"]) for line in found["lines"]}
    assert {tuple(line["ap"]) for line in found["lines"]} == {(None,), (None, None)}
    assert times["eager FP32, old"] == ([1], [OLD["rows"][0]["median_ms"]])
    assert ssdtrt("plot", "old.json", "--json", "old.json").exit_code == 2
    done = ssdtrt("plot", "old.json", "-o", "speed.gif")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: speed.gif names no kind of picture; expected a name that ends with .png or .svg.\n"


@pytest.mark.parametrize(
    "option, message",
    [
        (("--plot", "speed.gif"), "speed.gif names no kind of picture; expected a name that ends with .png or .svg."),
        (("--plot", "none/a.svg"), "none/a.svg cannot be written: there is no directory none. Give another path."),
        (("--plot", "a.svg"), "Drawing needs matplotlib, which is not installed: pip install 'ssdtrt[plot]'"),
        (
            ("--markdown", "none/a.md"),
            "none/a.md cannot be written: there is no directory none. Give another path.",
        ),
    ],
)
def test_bench_refuses_before_it_measures(option, message, ssdtrt, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # As where it is not installed.
    done = ssdtrt("bench", "there-is-no-such-file.ts", *option)  # An error of its own, once it is loaded.
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"Error: {message}\n")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "fast"])
@pytest.mark.parametrize("option", ["--min-speedup", "--max-latency-ms"])
def test_a_threshold_is_a_number_above_0(option, value, ssdtrt):
    done = ssdtrt("bench", "a.ts", option, value)
    assert done.exit_code == 2 and f"{value!r} is not a number above 0." in done.stderr


def test_bench_refuses_pictures_before_it_measures(ssdtrt, monkeypatch):
    for given in (("--images", "x"), ("--annotations", "x"), ("--orient",), ("--match-classes", "position")):
        done = ssdtrt("bench", "there-is-no-such-file.ts", *given)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.endswith("Error: The AP takes both --images DIR and --annotations FILE.\n")
    both = ("--images", "x", "--annotations", "a.json")
    done = ssdtrt("bench", "there-is-no-such-file.ts", *both, "--json", "a.json")
    assert done.exit_code == 2 and "a.json is an input; give another path for --json." in done.stderr
    done = ssdtrt("-q", "bench", "there-is-no-such-file.ts", *both)
    assert (done.exit_code, done.stderr) == (
        1, "Error: a.json: no such file. Give an annotation file in COCO's format.\n"
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    done = ssdtrt("-q", "bench", "there-is-no-such-file.ts", *both)
    assert done.exit_code == 1 and done.stderr.endswith(": pip install 'ssdtrt[eval]'\n")
    assert done.stderr.startswith("Error: Evaluation needs faster-coco-eval (")


QUICK = ("--rounds", "1", "--iterations", "1", "--warmup", "1")


def test_bench_writes_everything_before_it_fails(engine, ssdtrt, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    thresholds = ("--min-speedup", "1000", "--max-latency-ms", "0.001")
    files = ("--json", "bench.json", "--markdown", "bench.md", "--plot", "bench.svg")
    twice = (engine, f"{engine.parent}/./{engine.name}", "--batch-size", "1,1")  # Each is measured once.
    done = ssdtrt("-q", "bench", *twice, *QUICK, *thresholds, *files)
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("Error: ssd300.engine.ts FP32, batch 1 is ")
    assert first.endswith("x as fast as FP32 eager; expected at least 1000x.")
    assert second.startswith("Error: ssd300.engine.ts FP32, batch 1 takes ")
    assert second.endswith(" ms; expected at most 0.001 ms.")
    page = (tmp_path / "bench.md").read_text()
    assert page.startswith("### ssdtrt bench\n") and "ssd300.engine.ts FP32 | 1 | " in page
    assert (tmp_path / "summary.md").read_text() == page + "\n"
    assert "<!-- engine FP32 -->" in (tmp_path / "bench.svg").read_text()
    assert done.stdout.splitlines()[3].startswith("runner ")
    done = ssdtrt("compare", "bench.json", "bench.json", "--fail-if-slower", "0%")  # What bench writes can be compared.
    assert (done.exit_code, done.stderr) == (0, "")  # A single call each: how much times vary is not known.
    *_, note, verdict = done.stdout.splitlines()
    assert note == "note: bench.json does not record how much times vary at batch 1"
    assert verdict == "passed: 1 of 1 judged row kept the limit of 0 %"


MEASURED = bench_report(
    bench_row("eager-fp32", "fp32", batch_size=1, median_ms=8.0, case="eager-fp32"),
    bench_row("x/a.ts", "fp16", batch_size=1, median_ms=2.0, speedup=4.0, case="engine", file="x/a.ts"),
    machine=ON_GPU,
)


@pytest.mark.parametrize(
    "speedup, latency, errors",
    [
        (None, None, ""),
        (4.0, 2.0, ""),
        (4.1, None, "Error: a.ts FP16, batch 1 is 4x as fast as FP32 eager; expected at least 4.1x.\n"),
        (None, 1.9, "Error: a.ts FP16, batch 1 takes 2 ms; expected at most 1.9 ms.\n"),
    ],
)
def test_bench_ends_with_1_where_a_threshold_is_violated(speedup, latency, errors, capsys):
    options = {"markdown_file": "-", "plot_file": None, "min_speedup": speedup, "max_latency_ms": latency}
    with pytest.raises(SystemExit) if errors else contextlib.nullcontext() as ended:
        finish_bench(MEASURED, None, **options)
    assert ended is None or ended.value.code == 1
    out, err = capsys.readouterr()
    assert err == errors and out.startswith("### ssdtrt bench\n")
