"""The accuracy that a job asks for."""

import pytest
from msgspec.structs import replace

from ssdtrt.evaluation.report import FIGURES, EvalReport, EvalSettings
from ssdtrt.evaluation.thresholds import violations


def report(name, ap, against=()):
    figures = {**dict.fromkeys(FIGURES, 0.5), "AP": ap}
    settings = EvalSettings("val.json", 0.05, 0.5, 200)
    return EvalReport(name, "fp32", figures, (), 2, 3, 9, 4.0, 0.5, settings, against=against)


EAGER, HALF = report("eager-fp32", 0.25), report("eager-fp16", 0.2475)


@pytest.mark.parametrize(
    "ap, lowest, drop, expected",
    [
        (0.25, None, None, []),
        (0.25, 0.25, 0.0, []),
        (0.24, 0.2, 0.01, []),  # 0.25 - 0.24 is a little more than 0.01 in floating point.
        (0.26, 0.3, 0.0, ["a.ts has AP 0.26; expected at least 0.3 (--min-ap)."]),
        (0.2399, None, 0.01,
         ["a.ts has AP 0.2399 and eager-fp32 AP 0.25, 0.0101 less; expected at most 0.01 less (--max-ap-drop)."]),
        (0.2, None, 0.01,
         ["a.ts has AP 0.2 and eager-fp32 AP 0.25, 0.05 less; expected at most 0.01 less (--max-ap-drop).",
          "a.ts has AP 0.2 and eager-fp16 AP 0.2475, 0.0475 less; expected at most 0.01 less (--max-ap-drop)."]),
        (None, 0.0, 1.0,
         ["a.ts has no AP; expected at least 0 (--min-ap).",
          "a.ts has no AP and eager-fp32 AP 0.25; expected at most 1 less (--max-ap-drop).",
          "a.ts has no AP and eager-fp16 AP 0.2475; expected at most 1 less (--max-ap-drop)."]),
    ],
)  # fmt: skip
def test_violations(ap, lowest, drop, expected):
    assert violations(report("a.ts", ap, (EAGER, HALF)), lowest, drop) == expected


def test_a_drop_without_a_baseline_is_no_pass():
    found = violations(replace(EAGER, against=()), None, 0.5)
    assert found == ["eager-fp32 has no baseline for --max-ap-drop; expected one (--against eager-fp32)."]
