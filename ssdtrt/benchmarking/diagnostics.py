"""What the reader of a benchmark must know before believing it."""

from __future__ import annotations

from collections.abc import Sequence

from ssdtrt import config
from ssdtrt.benchmarking.report import BenchRow

ENOUGH = 10  # samples, below which a variation says little
BUSY = 0.9  # of the time between GPU events spent in launching: the GPU waits for the host
SLOWER = 1.25  # times the time between GPU events that the host took
LEAST_MS = 0.02  # by which the host's time must differ to be worth a word


def row_notes(rows: Sequence[BenchRow]) -> list[str]:
    """Where the host is the bottleneck, and which rows are unsteady."""
    measured = [row for row in rows if row.ok]
    bound = [
        f"{at(row)} ({row.host.returned_ms:.3f} ms to launch, {row.median_ms:.3f} ms between GPU events, "
        f"{row.host.median_ms:.3f} ms in all)"
        for row in measured
        if host_bound(row)
    ]
    unsteady = [
        f"{at(row)} ({100 * row.variation:.1f} %)"
        for row in measured
        if row.samples >= ENOUGH and (row.variation or 0) > config.STEADY
    ]
    notes = []
    if bound:
        notes.append(f"the host is the bottleneck, a CUDA graph shows what the GPU can do: {'; '.join(bound)}")
    if unsteady:
        notes.append(f"times vary by more than {100 * config.STEADY:g} %: {'; '.join(unsteady)}")
    return notes


def at(row: BenchRow) -> str:
    """Which row."""
    return f"{row.name} batch {row.batch_size}"


def host_bound(row: BenchRow) -> bool:
    """Whether the GPU waits for the host: launching takes about as long as it does, or the host far longer."""
    host = row.host
    if host is None or host.returned_ms is None:
        return False
    slower = host.median_ms > SLOWER * row.median_ms and host.median_ms - row.median_ms > LEAST_MS
    return slower or host.returned_ms > BUSY * row.median_ms


def gpu_notes(states: Sequence[dict] | None) -> list[str]:
    """What slowed the GPU down, and who else used it."""
    notes = []
    for state in states or ():
        reasons = sorted({why for when in ("before", "after") for why in (state[when] or {}).get("throttled") or ()})
        if reasons:
            notes.append(f"the GPU was throttled at batch {state['batch_size']}: {', '.join(reasons)}")
    others = sorted({process for state in states or () for process in state["other_processes"]})
    if others:
        notes.append(f"other processes use the GPU: {', '.join(others)}")
    return notes
