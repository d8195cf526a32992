"""A benchmark's report as Markdown: every table and every word that the terminal shows."""

from test_bench_text import EAGER, ENGINE, FAILED, GPU, bench
from test_report import CPU

from ssdtrt.benchmarking.report import PartTime
from ssdtrt.commands.bench_markdown import bench_markdown


def test_all_that_there_is():
    parts = (PartTime("network", 8, 1.5, 1.75),)
    page = bench_markdown(bench(EAGER, ENGINE, FAILED, machine=GPU, notes=("a|b",), parts=parts))
    assert page == (
        "### ssdtrt bench\n"
        "\n"
        "Some GPU, torch 2.9.0, Torch-TensorRT 2.9.1, TensorRT 10.1, driver 550.54\n"
        "\n"
        "40 calls a row in 10 interleaved rounds after 3 to warm up, host monotonic clock, TF32 off\n"
        "\n"
        "| runner | batch | median ms | p90 | p99 | worst | images/s | speed-up | 95 % of it |\n"
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |\n"
        "| eager FP32 | 8 | 14.12 | 14.50 | 120.4 | 121.0 | 566 | 1.00x | - |\n"
        "| ssd300.engine.ts FP16 | 8 | 1.765 | 1.800 | 9.999 | 12.35 | 4,532 | 8.00x | 7.51-8.13 |\n"
        "| torch.compile FP16 | 8 | failed | - | - | - | - | - | - |\n"
        "\n"
        "| runner | batch | varies | host ms | first ms | build s | MiB | rel. L2 | matched |\n"
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |\n"
        "| eager FP32 | 8 | 1.2 % | 14.20 | 1234.5 | - | - | - | - |\n"
        "| ssd300.engine.ts FP16 | 8 | 1.2 % | 1.900 | 2.000 | 120 | 1,234 | 1.2e-03 | 95.0 % |\n"
        "\n"
        "| part, host time | batch | median ms | p90 |\n"
        "| --- | --: | --: | --: |\n"
        "| network | 8 | 1.500 | 1.750 |\n"
        "\n"
        "- failed: torch.compile FP16, batch 8: no Triton\n"
        "- note: a\\|b\n"
    )


def test_what_there_is_not_is_left_out():
    lines = bench_markdown(bench(FAILED, machine=CPU)).splitlines()
    assert lines[2] == "Some CPU, 2 cores, torch 2.9.0"
    assert sum(line.startswith("| ---") for line in lines) == 1
    assert lines[-1] == "- failed: torch.compile FP16, batch 8: no Triton"
