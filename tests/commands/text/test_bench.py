"""A benchmark and a comparison as text: tables, one list where there is no room, and words where there is no number."""

import pytest
from msgspec.structs import replace

from saved_reports import (
    BASELINE_ROW,
    BRIEF,
    ENGINE_ROW,
    FAILED_ROW,
    ON_CPU,
    ON_GPU,
    bench_report,
    bench_row,
    eager,
    engine,
    parity,
    report,
)
from saved_reports import row as json_row
from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.compare import compare
from ssdtrt.benchmarking.report import Accuracy, BatchGpuState, PartTime
from ssdtrt.commands.text import bench as text
from ssdtrt.evaluation.report import EvalSettings
from ssdtrt.system.gpu_state import GpuState


def cells(benchmarked):
    made = (*text._name_cells(benchmarked), *text._speed_cells(benchmarked), *text._detail_cells(benchmarked))
    return dict(zip(text._NAME + text._SPEED + text._DETAILS, made))


def test_cells():
    assert cells(ENGINE_ROW) == {
        "runner": "ssd300.engine.ts FP16", "batch": "8", "median ms": "1.765", "p90": "1.800", "p99": "9.999",
        "max": "12.35", "images/s": "4,532", "speed-up": "8.00x", "95 % of it": "7.51-8.13", "CV": "1.2 %",
        "host ms": "1.900", "first ms": "2.000", "compile s": "-", "build s": "120", "MiB": "1,234",
        "rel. L2": "1.2e-03", "matched": "95.0 %",
    }  # fmt: skip


def test_eager_cells():
    found = cells(BASELINE_ROW)
    assert found["runner"] == "eager-fp32"
    assert (found["median ms"], found["p90"], found["p99"]) == ("14.12", "14.50", "120.4")
    assert (found["images/s"], found["speed-up"], found["MiB"], found["build s"]) == ("566", "1.00x", "-", "-")
    assert (found["rel. L2"], found["matched"], found["95 % of it"]) == ("-", "-", "-")


def test_cells_of_a_failure():
    assert text._speed_cells(FAILED_ROW) == ("failed", "-", "-", "-", "-", "-", "-")
    assert set(text._detail_cells(FAILED_ROW)) == {"-"}


def test_slow_runner_keeps_a_decimal():
    assert cells(bench_row("a", "fp32", images_per_second=3.14159))["images/s"] == "3.1"
    assert cells(bench_row("a", "fp32", speedup=None))["speed-up"] == "-"
    assert cells(bench_row("a", "fp32", compile_seconds=61.26))["compile s"] == "61.3"


def test_precision_is_named_once():
    assert cells(bench_row("fp16.engine.ts", "fp16"))["runner"] == "fp16.engine.ts"
    assert cells(bench_row("engine.ts", "bf16"))["runner"] == "engine.ts BF16"
    assert cells(bench_row("mine", ""))["runner"] == "mine"


def test_not_compared():
    for precision in ("fp16", "fp32"):
        found = cells(bench_row("ssd300.engine.ts", precision, build_seconds=3.0))
        assert (found["rel. L2"], found["matched"]) == ("not compared", "-")


def test_none_to_compare():
    nothing = parity(0, 0, 0, None)
    found = cells(bench_row("ssd300.engine.ts", "fp16", nothing, build_seconds=3.0))
    assert (found["rel. L2"], found["matched"]) == ("1.2e-03", "none to compare")


@pytest.mark.parametrize("loc, conf", [(None, 1e-3), (1e-3, None)])
def test_outputs_that_are_not_finite_have_no_distance(loc, conf):
    assert cells(bench_row("a", "fp16", parity(loc=loc, conf=conf)))["rel. L2"] == "not finite"


def test_whole_text():
    parts = (PartTime("network", 8, 1.8, 2.0),)
    made = bench_report(BASELINE_ROW, ENGINE_ROW, FAILED_ROW, notes=("untrained", "unsteady"), parts=parts)
    assert (
        text.bench_text(made, 100)
        == """\
Some CPU, 2 cores, torch 2.9.0
40 calls a row in 10 interleaved rounds after 3 to warm up, host monotonic clock, TF32 disabled

runner                 batch  median ms    p90    p99    max  images/s  speed-up  95 % of it
eager-fp32                 8      14.12  14.50  120.4  121.0       566     1.00x           -
ssd300.engine.ts FP16      8      1.765  1.800  9.999  12.35     4,532     8.00x   7.51-8.13
compile FP16               8     failed      -      -      -         -         -           -

runner                 batch     CV  host ms  first ms  build s    MiB  rel. L2  matched
eager-fp32                 8  1.2 %    14.20    1234.5        -      -        -        -
ssd300.engine.ts FP16      8  1.2 %    1.900     2.000      120  1,234  1.2e-03   95.0 %

part, host time  batch  median ms    p90
network              8      1.800  2.000

failed: compile FP16, batch 8: no Triton
note: untrained
note: unsteady"""
    )


ACCURATE = bench_report(
    replace(BASELINE_ROW, accuracy=Accuracy(0.7801, 0.9675, 0.9222, 0.0, 1000)),
    replace(ENGINE_ROW, accuracy=Accuracy(0.7689, 0.9601, None, -0.0112, 1000)),
    FAILED_ROW,
    settings=replace(BRIEF, evaluation=EvalSettings("val.json", 0.05, 0.5, 200)),
)


@pytest.mark.parametrize("width, names", [(100, 21), (60, 13)])
def test_accuracy_stands_beside_the_speed_in_a_table_of_its_own_also_where_it_is_narrow(width, names):
    blocks = text.bench_text(ACCURATE, width).split("\n\n")
    name = ENGINE_ROW.name + " FP16"
    assert blocks[-2].splitlines() == [
        f"{'runner':{names}}  batch  images/s     AP  vs FP32   AP50   AP75",
        f"{'eager-fp32':{names}}      8       566  0.780  +0.0000  0.968  0.922",
        f"{name if width == 100 else '...ne.ts FP16':{names}}      8     4,532  0.769  -0.0112  0.960      -",
    ]
    assert blocks[0].splitlines()[-1] == "AP on 1,000 pictures of val.json"
    page = text.bench_markdown(ACCURATE)
    assert "\n| runner | batch | images/s | AP | vs FP32 | AP50 | AP75 |\n" in page
    assert "\n| ssd300.engine.ts FP16 | 8 | 4,532 | 0.769 | -0.0112 | 0.960 | - |\n" in page


def test_long_names_lose_their_front():
    path = "engines/of/last/week/b8.engine.ts"
    lines = text.bench_text(bench_report(BASELINE_ROW, replace(ENGINE_ROW, name=path)), 96).splitlines()
    assert [len(line) for line in lines if line.startswith("...")] == [96, 96]
    assert all("b8.engine.ts FP16" in line for line in lines if line.startswith("..."))


@pytest.mark.parametrize("machine", [ON_CPU, ON_GPU])
def test_a_narrow_terminal_gets_one_list(machine):
    made = bench_report(
        BASELINE_ROW,
        ENGINE_ROW,
        FAILED_ROW,
        machine=machine,
        notes=("word " * 30,),
        parts=(PartTime("network", 8, 1.8, 2),),
    )
    shown = text.bench_text(made, 40)
    assert all(len(line) <= 40 for line in shown.split("\n\n", 1)[1].splitlines())
    assert "\n\nssd300.engine.ts FP16\n  batch: 8\n  median ms: 1.765\n  p90: 1.800\n" in shown
    assert "\n  95 % of it: 7.51-8.13\n  CV: 1.2 %\n  host ms: 1.900\n" in shown
    assert "\n\ncompile FP16\n  batch: 8\n  median ms: failed\n\n" in shown


def test_only_failures():
    lines = text.bench_text(bench_report(FAILED_ROW), 100).splitlines()
    assert lines[3:] == [
        "runner        batch  median ms  p90  p99  max  images/s  speed-up  95 % of it",
        "compile FP16      8     failed    -    -    -         -         -           -",
        "",
        "failed: compile FP16, batch 8: no Triton",
    ]


def test_the_gpus_state():
    state = GpuState(sm_mhz=1980.0, memory_mhz=2619.0, temperature_c=45.0, power_w=310.6, throttled=())
    settings = replace(BRIEF, gpu_state=(BatchGpuState(1), BatchGpuState(8, None, state)))
    lines = text.bench_text(bench_report(BASELINE_ROW, machine=ON_GPU, settings=settings), 100).splitlines()
    assert lines[2] == "the GPU at the end: SM 1,980 MHz, memory 2,619 MHz, 45 C, 311 W"
    assert text._state_line(GpuState(power_w=12.0)) == "the GPU at the end: 12 W"
    assert text._state_line(GpuState()).endswith("temperature and power are not known")


def test_versions_are_those_of_the_machine():
    assert text.bench_text(bench_report(BASELINE_ROW, machine=ON_GPU), 100).startswith(
        "Some GPU, torch 2.9.0, Torch-TensorRT 2.9.1, "
    )


OLD = report(eager(8.0), engine(1.0), engine(2.0, 8), engine(3.0, 32), json_row("compile", None))
NEW = report(eager(7.2), engine(1.1234), engine(None, 8), engine(4.0, 64), json_row("compile", None))


def compared(limit=None, **options):
    reports = report_file.parse(OLD, "a"), report_file.parse(NEW, "b")
    return compare(*reports, sources=("old.json", "new|1.json"), limit=limit, **options)


def test_compared():
    assert text.compare_text(compared(), 200) == (
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
    lines = text.compare_text(compared(0.125), 200).splitlines()
    assert lines[5].endswith("+12.3 %") and lines[-1] == "FAILED: 2 of 3 judged rows broke the limit of 12.5 %"
    lines = text.compare_text(compared(0.1), 200).splitlines()
    assert lines[5].endswith("+12.3 % SLOWER") and lines[-1] == "FAILED: 3 of 3 judged rows broke the limit of 10 %"
    lines = text.compare_text(compared(0.005), 200).splitlines()  # All times vary by 1 %.
    assert lines[4].endswith("-10.0 %") and lines[5].endswith("+12.3 % NOT COMPARABLE")
    assert lines[-2:] == [
        "FAILED: 2 of 3 judged rows broke the limit of 0.5 %",
        "NOT COMPARABLE: 1 of 3 judged rows: the machine changed, or times vary, by more than 0.5 %",
    ]
    same = compare(report_file.parse(OLD, "a"), report_file.parse(OLD, "b"), limit=0.05)
    assert text.compare_text(same, 200).endswith("\npassed: 3 of 3 judged rows kept the limit of 5 %")


def test_a_narrow_comparison_is_stacked():
    shown = text.compare_text(compared(), 40)
    assert "\nb1.engine.ts FP16\n  batch: 8\n  old ms: 2.000\n  new ms: -\n  change: failed in new\n" in shown


def test_a_benchmark_as_markdown():
    parts = (PartTime("network", 8, 1.5, 1.75),)
    page = text.bench_markdown(
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


def test_tables_without_a_row_are_left_out_of_markdown():
    lines = text.bench_markdown(bench_report(FAILED_ROW, machine=ON_CPU)).splitlines()
    assert lines[2] == "Some CPU, 2 cores, torch 2.9.0"
    assert sum(line.startswith("| ---") for line in lines) == 1
    assert lines[-1] == "- failed: compile FP16, batch 8: no Triton"


def test_a_comparison_as_markdown():
    old = report(eager(8.0), engine(1.0), engine(2.0, 8), engine(3.0, 32), json_row("compile", None))
    new = report(eager(7.2), engine(1.1234), engine(None, 8), engine(4.0, 64), json_row("compile", None))
    reports = report_file.parse(old, "a"), report_file.parse(new, "b")
    found = compare(*reports, sources=("old.json", "new|1.json"), limit=0.05)
    lines = text.compare_markdown(found).splitlines()
    assert lines[0] == "### ssdtrt compare" and lines[4] == r"old.json to new\|1.json, median ms of a batch"
    assert lines[6:10] == [
        "| runner | batch | old ms | new ms | change |",
        "| --- | --: | --: | --: | --: |",
        "| eager-fp32 | 1 | 8.000 | 7.200 | -10.0 % |",
        "| b1.engine.ts FP16 | 1 | 1.000 | 1.123 | +12.3 % SLOWER |",
    ]
    assert lines[-4] == "- FAILED: 3 of 3 judged rows broke the limit of 5 %"
    assert lines[-1] == (
        r"- b1.engine.ts FP16, batch 32 is not in new\|1.json; expected every row of a file in the old report. "
        "Measure it too."
    )
