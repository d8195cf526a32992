"""Measure benchmark cases at one batch size: warm-up, then interleaved rounds, then the comparison with FP32."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from ssdtrt import config
from ssdtrt.benchmarking.case import BenchmarkCase, CaseRun
from ssdtrt.benchmarking.report import BatchGpuState, BenchReport, BenchSettings
from ssdtrt.system.devices import current_device, tf32_disabled
from ssdtrt.system.gpu_state import GpuState, other_processes, read_state
from ssdtrt.system.progress import Progress, tracked
from ssdtrt.system.versions import measured_on

INPUT_SETS = 4  # batches used in turn, so that no call finds its input in the cache


def settings_for(device: torch.device, rounds: int | None, iterations: int | None, warmup: int) -> BenchSettings:
    """Return how cases are measured on this device, `rounds` and `iterations` as configured where they are None."""
    on_gpu = device.type == "cuda"
    return BenchSettings(
        rounds=rounds or config.ROUNDS[device.type],
        iterations=iterations or config.ITERATIONS[device.type],
        clock="CUDA events, calls back to back" if on_gpu else "host monotonic clock",
        warmup=warmup,
        tf32=False,
        cudnn_benchmark=True,
        input_sets=INPUT_SETS,
        rest_seconds=config.PAUSE[device.type],
    )


def case_runs(cases: Sequence[BenchmarkCase], images: Tensor) -> list[CaseRun]:
    """Return a run for each case, all on the same sets of images of this batch size."""
    inputs = [images] + [images.flip(0).roll(i, dims=-1).contiguous() for i in range(1, INPUT_SETS)]
    return [CaseRun(case, inputs) for case in cases]


def measure(runs: Sequence[CaseRun], settings: BenchSettings, progress: Progress) -> BenchSettings:
    """Make and warm up every case and time them in turns; return the settings, with the GPU's state added.

    The runners stay loaded until `CaseRun.compare`.
    """
    device, size = runs[0].inputs[0].device, runs[0].batch_size
    with measuring(device):
        for run in runs:
            progress(f"warming up {run.case.name}, batch {size}")
            run.prepare(settings.warmup or 0)
        before = read_state(device) if device.type == "cuda" else None
        for order in tracked(orders(len(runs), settings.rounds), progress, f"measuring batch {size}", "round"):
            for place in order:
                time.sleep(settings.rest_seconds or 0)
                runs[place].measure(settings.iterations)
        if device.type == "cuda":
            settings = replace(settings, gpu_state=(_gpu_state(runs, before),))
    return settings


def report_of(runs: Sequence[CaseRun], settings: BenchSettings, device: torch.device) -> BenchReport:
    """Return the report of what was measured, the speed-ups over the FP32 baseline or the first of the caller's own runners.

    There are none where that failed, or memory did not suffice for it at a smaller batch size.
    """
    first = runs[0] if runs and runs[0].case.case in ("", config.BENCH_CASES[0]) else None
    baseline = first.samples if first and not first.reason else None
    return BenchReport(measured_on(device), settings, tuple(run.row(baseline) for run in runs))


def orders(count: int, rounds: int) -> list[list[int]]:
    """Return the order of `count` cases in each round: another in each, and the same in every benchmark.

    A GPU at its power limit is slowed down by the case before, which so is not always the same.
    """
    random = np.random.default_rng(config.SEED)
    return [random.permutation(count).tolist() for _ in range(rounds)]


@contextlib.contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Inside, calls run as they are measured: this device the current one, no gradients, TF32 disabled."""
    with current_device(device), torch.no_grad(), tf32_disabled():
        yield


def _gpu_state(runs: Sequence[CaseRun], before: GpuState | None) -> BatchGpuState:
    """The GPU before the rounds and now, the last runner still at work, and who else computes on it."""
    images = runs[0].inputs[0]
    runners = [run.runner for run in runs if run.runner is not None]

    def busy() -> None:
        for runner in runners[-1:]:
            runner(images)
        torch.cuda.synchronize()

    after = read_state(images.device, busy)
    return BatchGpuState(len(images), before, after, tuple(other_processes(images.device)))
