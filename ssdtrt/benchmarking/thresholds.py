"""What a benchmark must reach, for a job that fails where it does not. No torch here."""

from __future__ import annotations

from ssdtrt.benchmarking.report_file import Record, Row


def missed(record: Record, min_speedup: float | None = None, max_latency_ms: float | None = None) -> list[str]:
    """A sentence for each row of a file that is not fast enough, or that there is nothing to measure.

    `min_speedup` is over FP32 eager, `max_latency_ms` bounds the median of a batch. A row without the figure, and a
    report without a file's row, miss both. Beside engines a module is what they are set against, and not held to it.
    """
    if min_speedup is None and max_latency_ms is None:
        return []
    files = [row for row in record.rows if row.is_file]
    rows = [row for row in files if row.peer != "torchscript"] or files
    if not rows:
        return [f"{record.source} has no row of a file; expected one to hold to the limit."]
    return [text for row in rows for text in missed_by(row, min_speedup, max_latency_ms)]


def missed_by(row: Row, min_speedup: float | None, max_latency_ms: float | None) -> list[str]:
    """A sentence for each limit that one row misses."""
    if row.median_ms is None:
        return [f"{row.label} failed ({row.reason}); expected a row that was measured."]
    found = []
    if min_speedup is not None and row.speedup is None:
        found.append(f"{row.label} has no speed-up; expected at least {min_speedup:g}x (--min-speedup).")
    elif min_speedup is not None and row.speedup < min_speedup:
        found.append(f"{row.label} is {row.speedup:.6g}x as fast as FP32 eager; expected at least {min_speedup:g}x.")
    if max_latency_ms is not None and row.median_ms > max_latency_ms:
        found.append(f"{row.label} takes {row.median_ms:.6g} ms; expected at most {max_latency_ms:g} ms.")
    return found
