"""Measuring at one batch size: the settings, the order of the rounds, and the GPU's state around them."""

import pytest
import torch

from saved_reports import ON_GPU
from ssdtrt.benchmarking import rounds
from ssdtrt.benchmarking.case import BenchmarkCase, CaseRun
from ssdtrt.benchmarking.report import BatchGpuState, BenchSettings
from ssdtrt.system.gpu_state import GpuState


def test_the_order_of_the_rounds_is_the_same_in_every_benchmark():
    assert rounds.orders(5, 10) == rounds.orders(5, 10)
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds.orders(5, 10))
    assert len({tuple(order) for order in rounds.orders(5, 10)}) > 5


@pytest.mark.parametrize(
    "device, expected",
    [("cpu", (5, 4, "host monotonic clock", 0.0)), ("cuda", (10, 10, "CUDA events, calls back to back", 0.1))],
)
def test_settings_of_a_device(device, expected):
    found = rounds.settings_for(torch.device(device), None, None, 7)
    assert (found.rounds, found.iterations, found.clock, found.rest_seconds) == expected
    assert (found.warmup, found.tf32, found.cudnn_benchmark, found.input_sets) == (7, False, True, 4)
    asked = rounds.settings_for(torch.device(device), 2, 3, 0)
    assert (asked.rounds, asked.iterations, asked.warmup) == (2, 3, 0)


def test_every_case_gets_the_same_sets_of_images():
    images = torch.rand(2, 3, 4, 4)
    runs = rounds.case_runs([BenchmarkCase(name, "fp32", lambda: None) for name in "ab"], images)
    assert [run.case.name for run in runs] == ["a", "b"] and runs[0].inputs is runs[1].inputs
    assert len(runs[0].inputs) == 4 and runs[0].inputs[0] is images
    assert len({float(part[0, 0, 0, 0]) for part in runs[0].inputs}) == 4


class GpuImages:
    """Images of a GPU that is not here."""

    device = torch.device("cuda")

    def __len__(self):
        return 8


def test_the_gpus_state_is_read_before_the_rounds_and_after_them_while_it_is_busy(monkeypatch):
    calls = []

    def read_state(device, busy=None):
        calls.append("state")
        if busy:
            busy()
        return GpuState(sm_mhz=100.0 if busy else 50.0)

    class Run(CaseRun):
        def prepare(self, warmup):
            calls.append(f"prepare {self.case.name}")
            self.runner = lambda images: calls.append(f"call {self.case.name}")

        def measure(self, iterations):
            calls.append("measure")

    monkeypatch.setattr(rounds, "read_state", read_state)
    monkeypatch.setattr(rounds, "other_processes", lambda device: ["python (7)"])
    monkeypatch.setattr(rounds, "current_device", lambda device: rounds.contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("wait"))
    runs = [Run(BenchmarkCase(name, "fp32", lambda: None), [GpuImages()]) for name in "ab"]
    settings = BenchSettings(rounds=2, iterations=3, clock="CUDA events", warmup=1)
    found = rounds.measure(runs, settings, lambda text: None)
    state = BatchGpuState(8, GpuState(sm_mhz=50.0), GpuState(sm_mhz=100.0), ("python (7)",))
    assert found == BenchSettings(rounds=2, iterations=3, clock="CUDA events", warmup=1, gpu_state=(state,))
    assert calls == ["prepare a", "prepare b", "state", *["measure"] * 4, "state", "call b", "wait"]


def test_a_report_of_cases_whose_baseline_failed_has_no_speed_ups(monkeypatch):
    monkeypatch.setattr(rounds, "measured_on", lambda device: ON_GPU)
    images = torch.zeros(1, 3, 4, 4)
    runs = rounds.case_runs([BenchmarkCase(name, "fp32", lambda: torch.neg) for name in "ab"], images)
    settings = rounds.settings_for(images.device, 3, 2, 1)
    rounds.measure(runs, settings, lambda text: None)
    assert [row.speedup for row in rounds.report_of(runs, settings, images.device).rows] != [None, None]
    runs[0].reason = "lost"
    found = rounds.report_of(runs, settings, images.device)
    assert [row.speedup for row in found.rows] == [None, None] and [row.ok for row in found.rows] == [False, True]
    assert found.machine is ON_GPU
