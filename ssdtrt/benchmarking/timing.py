"""The clocks, and what is made of their samples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.cuda_graph import CudaGraphRunner
from ssdtrt.benchmarking.report import HostTimes
from ssdtrt.engine.parity import Runner


@dataclass
class Samples:
    """Milliseconds of every timed call: `rounds` between CUDA events, or on a CPU of host time, a list for each round.

    `host` are those of the host on a GPU, from calls of their own, each until the result was there, and `returned`
    until the call came back.
    """

    rounds: list[list[float]] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)

    def take(self, runner: Runner, inputs: Sequence[Tensor], count: int) -> None:
        """Times one round of `count` calls, and on a GPU as many again by the host's clock."""
        self.rounds.append(time_calls(runner, inputs, count))
        if inputs[0].device.type == "cuda":
            for i in range(count):
                returned, done = host_time(runner, inputs[i % len(inputs)])
                self.returned.append(returned)
                self.host.append(done)

    @property
    def all(self) -> list[float]:
        """The calls of all rounds."""
        return [value for one in self.rounds for value in one]

    def figures(self, batch_size: int, baseline: Samples | None) -> dict:
        """The fields of a BenchRow that follow from the samples, and from those of the baseline where there is one."""
        samples = self.all
        median = statistics.median(samples)
        low, high = speedup_interval(baseline.rounds, self.rounds) if baseline else (None, None)
        return {
            "samples": len(samples),
            "median_ms": median,
            "p90_ms": quantile(samples, 0.9),
            "p99_ms": quantile(samples, 0.99),
            "worst_ms": max(samples),
            "variation": variation(samples),
            "images_per_second": batch_size / median * 1e3,
            "speedup": statistics.median(baseline.all) / median if baseline else None,
            "speedup_low": low,
            "speedup_high": high,
            "host": self._host_times(),
        }

    def _host_times(self) -> HostTimes:
        times = self.host or self.all
        returned = statistics.median(self.returned) if self.returned else None
        return HostTimes(statistics.median(times), quantile(times, 0.9), quantile(times, 0.99), max(times), returned)


def time_calls(runner: Runner, inputs: Sequence[Tensor], count: int) -> list[float]:
    """The milliseconds of each of `count` calls, the inputs used in turn: between CUDA events, or the host's.

    On a GPU the calls are handed over one after the other, behind one that is not timed, without a wait: the launch of
    a call falls into the time of the one before, unless the host is the slower of the two.
    """
    if inputs[0].device.type != "cuda":
        return [host_time(runner, inputs[i % len(inputs)])[1] for i in range(count)]
    runner(placed(runner, inputs[-1]))
    marks = []
    for i in range(count):
        images = placed(runner, inputs[i % len(inputs)])
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        runner(images)
        end.record()
        marks.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in marks]


def placed(runner: Runner, images: Tensor) -> Tensor:
    """The images where a CUDA graph reads them, for a runner that is one; others read them where they are."""
    return runner.place(images)[0] if isinstance(runner, CudaGraphRunner) else images


def host_time(runner: Callable, *inputs) -> tuple[float, float]:
    """Milliseconds of host time of one call: until it came back, and until the current GPU, if any, had done it all."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    started = time.perf_counter()
    runner(*inputs)
    returned = time.perf_counter()
    wait()
    return (returned - started) * 1e3, (time.perf_counter() - started) * 1e3


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of the samples does not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def variation(samples: Sequence[float]) -> float | None:
    """The coefficient of variation, standard deviation over mean; None for a single sample."""
    return statistics.stdev(samples) / statistics.fmean(samples) if len(samples) > 1 else None


def speedup_interval(
    baseline: Sequence[Sequence[float]], rounds: Sequence[Sequence[float]]
) -> tuple[float | None, float | None]:
    """The 95 % confidence interval of median over median, from rounds in which both were timed.

    (None, None) from fewer than three rounds. A seeded percentile bootstrap over rounds: whole rounds are drawn, the
    same for both, since what disturbs a machine (clocks, heat, a neighbour) lasts longer than a call and disturbs both.
    """
    count = min(len(baseline), len(rounds))
    if count < 3:
        return None, None
    drawn = np.random.default_rng(config.SEED).integers(count, size=(config.BOOTSTRAP, count))

    def medians(times):
        return np.median(np.array(times[:count])[drawn].reshape(config.BOOTSTRAP, -1), axis=1)

    low, high = np.quantile(medians(baseline) / medians(rounds), (0.025, 0.975))
    return float(low), float(high)
