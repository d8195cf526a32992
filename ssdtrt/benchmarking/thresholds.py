"""What a benchmark must reach, for a job that fails where it does not. No torch here."""

from __future__ import annotations

from ssdtrt.benchmarking.report import BenchReport, BenchRow


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
