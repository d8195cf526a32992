"""What the reader of a benchmark must know before believing it, and what breaks a limit. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from ssdtrt import config
from ssdtrt.benchmarking.report import BatchGpuState, BenchReport, BenchRow

_ENOUGH = 10  # samples, below which a coefficient of variation means little
_BUSY = 0.9  # of the time between GPU events spent in launching: the GPU waits for the host
_SLOWER = 1.25  # times the time between GPU events that the host took
_LEAST_MS = 0.02  # by which the host's time must differ to be worth a note


def row_notes(rows: Sequence[BenchRow]) -> list[str]:
    """Return notes on rows where the host is the bottleneck, and on unsteady rows."""
    bound = [note for row in rows if row.ok and (note := _host_bound(row))]
    unsteady = [
        f"{_name(row)} ({100 * variation:.1f} %)"
        for row in rows
        if row.ok
        and row.samples >= _ENOUGH
        and (variation := row.coefficient_of_variation or 0.0) > config.MAX_VARIATION
    ]
    notes = []
    if bound:
        notes.append(f"the host is the bottleneck, a CUDA graph shows what the GPU can do: {'; '.join(bound)}")
    if unsteady:
        notes.append(f"times vary by more than {100 * config.MAX_VARIATION:g} %: {'; '.join(unsteady)}")
    return notes


def gpu_notes(states: Sequence[BatchGpuState] | None) -> list[str]:
    """Return notes on what throttled the GPU, and on who else used it."""
    notes = []
    for state in states or ():
        reasons = {reason for one in (state.before, state.after) if one for reason in one.throttled or ()}
        if reasons:
            notes.append(f"the GPU was throttled at batch {state.batch_size}: {', '.join(sorted(reasons))}")
    others = {process for state in states or () for process in state.other_processes}
    if others:
        notes.append(f"other processes use the GPU: {', '.join(sorted(others))}")
    return notes


def _name(row: BenchRow) -> str:
    return f"{row.name} batch {row.batch_size}"


def _host_bound(row: BenchRow) -> str | None:
    """The times of a row whose GPU waits for the host: launching takes about as long as it does, or the host longer."""
    host, median = row.host, row.median_ms
    if host is None or host.returned_ms is None or median is None:
        return None
    slower = host.median_ms > _SLOWER * median and host.median_ms - median > _LEAST_MS
    if not slower and host.returned_ms <= _BUSY * median:
        return None
    return (
        f"{_name(row)} ({host.returned_ms:.3f} ms to launch, {median:.3f} ms between GPU events, "
        f"{host.median_ms:.3f} ms in all)"
    )


def violations(report: BenchReport, min_speedup: float | None = None, max_latency_ms: float | None = None) -> list[str]:
    """Return a sentence for each threshold that a row of a file violates.

    Which rows these are, `BenchReport.judged` says. A row without the figure violates both, and so does a report without
    a file's row.

    Args:
        report: The report.
        min_speedup: The smallest speed-up over FP32 eager; None for any.
        max_latency_ms: The longest median of a batch; None for any.
    """
    if min_speedup is None and max_latency_ms is None:
        return []
    rows = [row for row in report.with_file_names.judged if row.is_file]
    if not rows:
        return ["The report has no row of a file; expected one for the threshold."]
    return [text for row in rows for text in _violations_of(row, min_speedup, max_latency_ms)]


def _violations_of(row: BenchRow, min_speedup: float | None, max_latency_ms: float | None) -> list[str]:
    if row.median_ms is None or not row.ok:
        return [f"{row.label} failed ({row.reason}); expected a row that was measured."]
    found = []
    if min_speedup is not None and row.speedup is None:
        found.append(f"{row.label} has no speed-up; expected at least {min_speedup:g}x (--min-speedup).")
    elif min_speedup is not None and row.speedup is not None and row.speedup < min_speedup:
        found.append(f"{row.label} is {row.speedup:.6g}x as fast as FP32 eager; expected at least {min_speedup:g}x.")
    if max_latency_ms is not None and row.median_ms > max_latency_ms:
        found.append(f"{row.label} takes {row.median_ms:.6g} ms; expected at most {max_latency_ms:g} ms.")
    return found
