"""What `doctor` hands back: findings, and whether an engine can be built."""

import pytest

from ssdtrt.diagnosis.report import DoctorReport, Finding

FINE = Finding("GPU", "ok", "Some GPU")
WARNING = Finding("disk", "warning", "100 MiB free", "Free some.")
PROBLEM = Finding("TensorRT", "problem", "not installed", "pip install it")


@pytest.mark.parametrize(
    "findings, problems",
    [((), ()), ((FINE, WARNING), ()), ((FINE, PROBLEM, WARNING), (PROBLEM,)), ((PROBLEM, PROBLEM), (PROBLEM, PROBLEM))],
)
def test_an_engine_can_be_built_without_a_problem(findings, problems):
    report = DoctorReport(findings)
    assert report.problems == problems
    assert report.can_build is (problems == ())
    assert report.as_dict()["can_build"] is report.can_build


def test_document():
    assert DoctorReport((FINE, PROBLEM)).document() == {
        "schema": 2,
        "kind": "doctor",
        "can_build": False,
        "findings": [
            {"check": "GPU", "status": "ok", "found": "Some GPU", "fix": ""},
            {"check": "TensorRT", "status": "problem", "found": "not installed", "fix": "pip install it"},
        ],
    }
