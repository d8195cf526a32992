"""Time calls, and summarize the samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace
from torch import Tensor

from ssdtrt import config
from ssdtrt.benchmarking.report import BenchRow, HostTimes
from ssdtrt.engine.parity import Runner
from ssdtrt.runners.timing import host_time, time_calls


@dataclass
class Samples:
    """Milliseconds of every timed call.

    Attributes:
        rounds: A list for each round, between CUDA events, or on a CPU by the host's clock.
        host: On a GPU the host's times of other calls, each until the result was there.
        returned: Those until the call returned.
    """

    rounds: list[list[float]] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)

    def take(self, runner: Runner, inputs: Sequence[Tensor], count: int) -> None:
        """Time one round of `count` calls, and on a GPU as many again by the host's clock."""
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

    def summarized_in(self, row: BenchRow, baseline: Samples | None) -> BenchRow:
        """Return the row with the figures of these samples, and the speed-up over `baseline` where it is given."""
        samples = self.all
        median = statistics.median(samples)
        low, high = speedup_interval(baseline.rounds, self.rounds) if baseline else (None, None)
        return replace(
            row,
            samples=len(samples),
            median_ms=median,
            p90_ms=quantile(samples, 0.9),
            p99_ms=quantile(samples, 0.99),
            max_ms=max(samples),
            coefficient_of_variation=coefficient_of_variation(samples),
            images_per_second=row.batch_size / median * 1e3,
            speedup=statistics.median(baseline.all) / median if baseline else None,
            speedup_low=low,
            speedup_high=high,
            host=self._host_times(),
        )

    def _host_times(self) -> HostTimes:
        times = self.host or self.all
        returned = statistics.median(self.returned) if self.returned else None
        return HostTimes(statistics.median(times), quantile(times, 0.9), quantile(times, 0.99), max(times), returned)


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least this share of the samples does not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def coefficient_of_variation(samples: Sequence[float]) -> float | None:
    """Return the standard deviation over the mean; None for a single sample."""
    return statistics.stdev(samples) / statistics.fmean(samples) if len(samples) > 1 else None


def speedup_interval(
    baseline: Sequence[Sequence[float]], rounds: Sequence[Sequence[float]]
) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of median over median, from rounds in which both were timed.

    It is a seeded percentile bootstrap over rounds: whole rounds are drawn, the same for both, since what disturbs a
    machine (clocks, heat, another process) lasts longer than a call and disturbs both. (None, None) from fewer than
    three rounds.
    """
    count = min(len(baseline), len(rounds))
    if count < 3:
        return None, None
    drawn = np.random.default_rng(config.SEED).integers(count, size=(config.BOOTSTRAP_DRAWS, count))

    def medians(times: Sequence[Sequence[float]]) -> np.ndarray:
        return np.median(np.array(times[:count])[drawn].reshape(config.BOOTSTRAP_DRAWS, -1), axis=1)

    low, high = np.quantile(medians(baseline) / medians(rounds), (0.025, 0.975))
    return float(low), float(high)
