"""A benchmark as text: two tables, one list where there is no room, and words where there is no number."""

from dataclasses import replace

import pytest
from test_report import CPU, GPU, NAN, VERSIONS, parity

from ssdtrt.benchmarking.report import BenchReport, BenchRow, HostTimes, PartTime
from ssdtrt.commands import bench_text as text

SETTINGS = {"rounds": 10, "iterations": 4, "warmup": 3, "clock": "host monotonic clock", "gpu_state": None}


def row(name, precision, agreement=None, **changes):
    values = {
        "batch_size": 8, "samples": 40, "median_ms": 14.123, "p90_ms": 14.5, "p99_ms": 120.44, "worst_ms": 121.0,
        "images_per_second": 566.4, "speedup": 1.0, "memory_mib": None, "variation": 0.0123,
        "host": HostTimes(14.2, 14.6, 121.0, 122.0),
    }  # fmt: skip
    return BenchRow(name=name, precision=precision, agreement=agreement, **{**values, **changes})


EAGER = row("eager FP32", "fp32", first_call_ms=1234.5)
ENGINE = row(
    "ssd300.engine.ts", "fp16", parity(), median_ms=1.7654, p90_ms=1.8, p99_ms=9.9994, worst_ms=12.345,
    images_per_second=4531.6, speedup=8.004, speedup_low=7.514, speedup_high=8.126, memory_mib=1234.5,
    build_seconds=119.6, host=HostTimes(1.9, 2.0, 10.1, 13.0, 0.2), first_call_ms=2.0,
)  # fmt: skip
FAILED = BenchRow("torch.compile", "fp16", 8, peer="compile", status="failed", reason="no Triton")


def bench(*rows, machine=CPU, notes=(), parts=(), settings=SETTINGS):
    return BenchReport(machine, settings, rows, notes, parts)


def cells(benchmarked):
    made = (*text.name_cells(benchmarked), *text.speed_cells(benchmarked), *text.behind_cells(benchmarked))
    return dict(zip(text.NAME + text.SPEED + text.BEHIND, made))


def test_cells():
    assert cells(ENGINE) == {
        "runner": "ssd300.engine.ts FP16", "batch": "8", "median ms": "1.765", "p90": "1.800", "p99": "9.999",
        "worst": "12.35", "images/s": "4,532", "speed-up": "8.00x", "95 % of it": "7.51-8.13", "varies": "1.2 %",
        "host ms": "1.900", "first ms": "2.000", "compile s": "-", "build s": "120", "MiB": "1,234",
        "rel. L2": "1.2e-03", "matched": "95.0 %",
    }  # fmt: skip


def test_eager_cells():
    found = cells(EAGER)
    assert found["runner"] == "eager FP32"
    assert (found["median ms"], found["p90"], found["p99"]) == ("14.12", "14.50", "120.4")
    assert (found["images/s"], found["speed-up"], found["MiB"], found["build s"]) == ("566", "1.00x", "-", "-")
    assert (found["rel. L2"], found["matched"], found["95 % of it"]) == ("-", "-", "-")


def test_cells_of_a_failure():
    assert text.speed_cells(FAILED) == ("failed", "-", "-", "-", "-", "-", "-")
    assert set(text.behind_cells(FAILED)) == {"-"}


def test_slow_runner_keeps_a_decimal():
    assert cells(row("a", "fp32", images_per_second=3.14159))["images/s"] == "3.1"
    assert cells(row("a", "fp32", speedup=None))["speed-up"] == "-"
    assert cells(row("a", "fp32", compile_seconds=61.26))["compile s"] == "61.3"


def test_precision_is_named_once():
    assert cells(row("fp16.engine.ts", "fp16"))["runner"] == "fp16.engine.ts"
    assert cells(row("engine.ts", "bf16"))["runner"] == "engine.ts BF16"
    assert cells(row("mine", ""))["runner"] == "mine"


def test_not_compared():
    for precision in ("fp16", "fp32"):
        found = cells(row("ssd300.engine.ts", precision, build_seconds=3.0))
        assert (found["rel. L2"], found["matched"]) == ("not compared", "-")


def test_none_to_compare():
    nothing = parity(0, 0, 0, None)
    found = cells(row("ssd300.engine.ts", "fp16", nothing, build_seconds=3.0))
    assert (found["rel. L2"], found["matched"]) == ("1.2e-03", "none to compare")


@pytest.mark.parametrize("loc, conf", [(NAN, 1e-3), (1e-3, NAN)])
def test_nan_is_not_shown_as_a_distance(loc, conf):
    assert cells(row("a", "fp16", parity(loc=loc, conf=conf)))["rel. L2"] == "nan"


def test_whole_text():
    parts = (PartTime("network", 8, 1.8, 2.0),)
    made = bench(EAGER, ENGINE, FAILED, notes=("untrained", "unsteady"), parts=parts)
    assert (
        text.bench_text(made, 100)
        == """\
Some CPU, 2 cores, torch 2.9.0
40 calls a row in 10 interleaved rounds after 3 to warm up, host monotonic clock, TF32 off

runner                 batch  median ms    p90    p99  worst  images/s  speed-up  95 % of it
eager FP32                 8      14.12  14.50  120.4  121.0       566     1.00x           -
ssd300.engine.ts FP16      8      1.765  1.800  9.999  12.35     4,532     8.00x   7.51-8.13
torch.compile FP16         8     failed      -      -      -         -         -           -

runner                 batch  varies  host ms  first ms  build s    MiB  rel. L2  matched
eager FP32                 8   1.2 %    14.20    1234.5        -      -        -        -
ssd300.engine.ts FP16      8   1.2 %    1.900     2.000      120  1,234  1.2e-03   95.0 %

part, host time  batch  median ms    p90
network              8      1.800  2.000

failed: torch.compile FP16, batch 8: no Triton
note: untrained
note: unsteady"""
    )


def test_long_names_lose_their_front():
    path = "engines/of/last/week/b8.engine.ts"
    lines = text.bench_text(bench(EAGER, replace(ENGINE, name=path)), 96).splitlines()
    assert [len(line) for line in lines if line.startswith("...")] == [96, 96]
    assert all("b8.engine.ts FP16" in line for line in lines if line.startswith("..."))


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_a_narrow_terminal_gets_one_list(machine):
    made = bench(EAGER, ENGINE, FAILED, machine=machine, notes=("word " * 30,), parts=(PartTime("network", 8, 1.8, 2),))
    shown = text.bench_text(made, 40)
    assert all(len(line) <= 40 for line in shown.split("\n\n", 1)[1].splitlines())
    assert "\n\nssd300.engine.ts FP16\n  batch: 8\n  median ms: 1.765\n  p90: 1.800\n" in shown
    assert "\n  95 % of it: 7.51-8.13\n  varies: 1.2 %\n  host ms: 1.900\n" in shown
    assert "\n\ntorch.compile FP16\n  batch: 8\n  median ms: failed\n\n" in shown


def test_only_failures():
    lines = text.bench_text(bench(FAILED), 100).splitlines()
    assert lines[3:] == [
        "runner              batch  median ms  p90  p99  worst  images/s  speed-up  95 % of it",
        "torch.compile FP16      8     failed    -    -      -         -         -           -",
        "",
        "failed: torch.compile FP16, batch 8: no Triton",
    ]


def test_what_the_gpu_said():
    state = {"sm_mhz": 1980.0, "memory_mhz": 2619.0, "temperature_c": 45.0, "power_w": 310.6, "throttled": []}
    settings = {**SETTINGS, "gpu_state": [{"before": None, "after": None}, {"before": None, "after": state}]}
    lines = text.bench_text(bench(EAGER, machine=GPU, settings=settings), 100).splitlines()
    assert lines[2] == "the GPU at the end: SM 1,980 MHz, memory 2,619 MHz, 45 C, 311 W"
    assert text.state_line({**dict.fromkeys(state), "power_w": 12.0}) == "the GPU at the end: 12 W"
    assert text.state_line(dict.fromkeys(state)).endswith("temperature and power are not known")


def test_versions_are_those_of_the_machine():
    assert text.bench_text(bench(EAGER, machine=GPU), 100).startswith(f"Some GPU, torch {VERSIONS['torch']}, Torch-")
