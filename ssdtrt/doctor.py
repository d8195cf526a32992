"""What a machine has and lacks for building TensorRT engines. No torch here."""

from __future__ import annotations

from ssdtrt.diagnosis.checks import check_build, check_facts
from ssdtrt.diagnosis.gather import gather_facts, run_test_build
from ssdtrt.diagnosis.report import TEST_BUILD, DoctorReport, Finding
from ssdtrt.system.progress import Progress, silent


def diagnose(build: bool = False, progress: Progress = silent) -> DoctorReport:
    """Look at what this machine has for building a TensorRT engine, what it lacks, and the fix for each problem.

    The driver is asked, and torch and Torch-TensorRT are imported, in processes of their own, so that nothing that is
    broken there can end this one.

    Args:
        build: Whether to build a tiny FP16 engine too, run it and compare it with FP32 eager. It is not tried where a
            problem was found.
        progress: Called with a line that says what is looked at.

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
            findings.append(Finding(TEST_BUILD, "problem", found, "Mend what is named first."))
        else:
            findings.append(check_build(run_test_build(progress)))
    return DoctorReport(tuple(findings))
