"""What an evaluation must reach, for a job that fails where it does not. No torch here."""

from __future__ import annotations

from ssdtrt import config
from ssdtrt.evaluation.report import EvalReport


def violations(report: EvalReport, min_ap: float | None = None, max_ap_drop: float | None = None) -> list[str]:
    """Return a sentence for each threshold that a report violates; one without the figure violates it.

    Args:
        report: The report.
        min_ap: The smallest AP, 0..1; None for any.
        max_ap_drop: The largest AP by which the file may be below each baseline of the report; None for any.
    """
    found = []
    ap = report.figures["AP"]
    if min_ap is not None and (ap is None or ap < min_ap - config.LIMIT_ROUNDING):
        found.append(f"{report.name} has {_ap(ap)}; expected at least {min_ap:g} (--min-ap).")
    if max_ap_drop is not None and not report.against:
        found.append(f"{report.name} has no baseline for --max-ap-drop; expected one (--against eager-fp32).")
    for baseline in report.against:
        change = report.minus(baseline)["AP"]
        if max_ap_drop is not None and (change is None or change < -max_ap_drop - config.LIMIT_ROUNDING):
            drop = "" if change is None else f", {-change:.6g} less"
            found.append(
                f"{report.name} has {_ap(ap)} and {baseline.name} {_ap(baseline.figures['AP'])}{drop}; "
                f"expected at most {max_ap_drop:g} less (--max-ap-drop)."
            )
    return found


def _ap(value: float | None) -> str:
    return "no AP" if value is None else f"AP {value:.6g}"
