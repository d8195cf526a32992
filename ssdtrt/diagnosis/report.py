"""The report of `doctor`. Imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from ssdtrt.system.report import Report

TEST_BUILD = "test build"
"""The name of the check that builds an engine, which is made only on request."""


class Finding(Report, frozen=True):
    """One check of `doctor`.

    Attributes:
        check: What was looked at.
        status: `ok`, `warning` (an engine may still be built) or `problem` (none can be built).
        found: What was found.
        fix: The command or the sentence that fixes it; "" where none is needed.
    """

    check: str
    status: Literal["ok", "warning", "problem"]
    found: str
    fix: str = ""


class DoctorReport(Report, frozen=True):
    """The findings of `doctor`.

    Attributes:
        findings: The findings, in an order in which each depends only on those before it.
    """

    kind = "doctor"
    schema = 2
    derived: ClassVar[tuple[str, ...]] = ("can_build",)

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that prevent the build of a TensorRT engine here."""
        return tuple(finding for finding in self.findings if finding.status == "problem")

    @property
    def can_build(self) -> bool:
        """Whether no finding prevents the build of a TensorRT engine here."""
        return not self.problems

    @property
    def built(self) -> bool:
        """Whether a tiny engine was built here and is accurate."""
        return any(finding.check == TEST_BUILD and finding.status == "ok" for finding in self.findings)
