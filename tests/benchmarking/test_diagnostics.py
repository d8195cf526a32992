"""The notes of a benchmark."""

from ssdtrt.benchmarking.diagnostics import gpu_notes, row_notes
from ssdtrt.benchmarking.report import BatchGpuState, BenchRow, HostTimes
from ssdtrt.system.gpu_state import GpuState


def row(median, host, returned, variation=0.01, samples=100, name="a"):
    times = HostTimes(host, host, host, host, returned)
    return BenchRow(name, "fp16", 8, samples=samples, median_ms=median, host=times, coefficient_of_variation=variation)


def test_steady_rows_of_a_busy_gpu_give_no_note():
    assert row_notes([row(11.7, 11.8, 0.2), row(0.5, 0.515, 0.1), BenchRow("b", "fp16", 8, status="failed")]) == []


def test_launching_that_takes_as_long_as_the_gpu():
    assert row_notes([row(3.9, 4.0, 3.8), row(11.7, 11.8, 0.2, name="b")]) == [
        "the host is the bottleneck, a CUDA graph shows what the GPU can do: "
        "a batch 8 (3.800 ms to launch, 3.900 ms between GPU events, 4.000 ms in all)"
    ]


def test_a_host_that_takes_far_longer():
    assert len(row_notes([row(0.5, 0.7, 0.1)])) == 1
    assert row_notes([row(0.05, 0.065, 0.01)]) == []  # 15 us are the wait itself


def test_on_a_cpu_the_host_is_no_bottleneck():
    assert row_notes([row(200.0, 200.0, None)]) == []


def test_unsteady_rows():
    rows = [row(2.0, 2.0, None, 0.0251), row(2.0, 2.0, None, 0.025, name="b"), row(2.0, 2.0, None, 0.5, 9, "c")]
    rows.append(row(2.0, 2.0, None, None, name="d"))
    assert row_notes(rows) == ["times vary by more than 2.5 %: a batch 8 (2.5 %)"]


def state(batch_size, before, after, others=()):
    states = [None if reasons is None else GpuState(throttled=tuple(reasons)) for reasons in (before, after)]
    return BatchGpuState(batch_size, *states, tuple(others))


def test_throttling_and_company():
    states = [state(1, [], []), state(8, [], ["power limit"], ["python (12)"]), state(32, None, None, ["python (12)"])]
    assert gpu_notes(states) == [
        "the GPU was throttled at batch 8: power limit", "other processes use the GPU: python (12)"
    ]  # fmt: skip
    assert gpu_notes([BatchGpuState(1, GpuState(), GpuState())]) == gpu_notes(None) == []
