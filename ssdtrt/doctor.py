"""Find out what a machine lacks for building TensorRT engines. Imports no torch."""

from __future__ import annotations

from ssdtrt.diagnosis.checks import check_build, check_facts
from ssdtrt.diagnosis.gather import gather_facts, run_test_build
from ssdtrt.diagnosis.report import TEST_BUILD, DoctorReport, Finding
from ssdtrt.system.progress import Progress, silent


def diagnose(build: bool = False, progress: Progress = silent) -> DoctorReport:
    """Find out whether a TensorRT engine can be built on this machine, and what fixes each problem.

    The driver is queried, and torch and Torch-TensorRT are imported, in other processes, because a broken one can crash
    or hang.

    Args:
        build: Whether to also build a tiny FP16 engine, run it and compare it with FP32 eager. It is not tried if a
            problem was found.
        progress: Called with a line of text for each step.

    Returns:
        The findings, and whether an engine can be built here (`can_build`).

    Example:
        >>> from ssdtrt import diagnose
        >>> report = diagnose()
        >>> report.findings[0].check
        'system'
        >>> all(finding.fix for finding in report.problems)
        True
    """
    findings = check_facts(gather_facts(progress))
    if build:
        problems = [finding.check for finding in findings if finding.status == "problem"]
        if problems:
            found = f"not tried; see {', '.join(problems)}"
            findings.append(Finding(TEST_BUILD, "problem", found, "Fix these problems first."))
        else:
            findings.append(check_build(run_test_build(progress)))
    return DoctorReport(tuple(findings))
