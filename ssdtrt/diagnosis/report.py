"""What `doctor` reports. No torch here."""

from __future__ import annotations

from typing import ClassVar, Literal

from ssdtrt.system.report import Report

TEST_BUILD = "test build"
"""The check that builds an engine, which is made only where it is asked for."""


class Finding(Report, frozen=True):
    """One check of `doctor`.

    Attributes:
        check: What was looked at.
        status: `ok`, `warning` (an engine may still be built) or `problem` (none can be).
        found: What there is.
        fix: The command or the sentence that mends it; "" where nothing is to be mended.
    """

    check: str
    status: Literal["ok", "warning", "problem"]
    found: str
    fix: str = ""


class DoctorReport(Report, frozen=True):
    """What `doctor` found.

    Attributes:
        findings: The checks, in the order in which one thing rests on the other.
    """

    kind = "doctor"
    schema = 2
    derived: ClassVar[tuple[str, ...]] = ("can_build",)

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that keep a TensorRT engine from being built here."""
        return tuple(finding for finding in self.findings if finding.status == "problem")

    @property
    def can_build(self) -> bool:
        """Whether nothing was found that keeps a TensorRT engine from being built here."""
        return not self.problems

    @property
    def built(self) -> bool:
        """Whether an engine was built here and is right."""
        return any(finding.check == TEST_BUILD and finding.status == "ok" for finding in self.findings)
