"""The errors that a user can act on: each message says what was found, what was expected and what to do."""

from __future__ import annotations

from typing import Any


class SsdtrtError(Exception):
    """A failure that the user can act on. The command line prints it as one message and exits with 1."""


class WeightsError(SsdtrtError):
    """A checkpoint that cannot be read or does not fit the network."""


class FetchError(WeightsError):
    """A checkpoint that cannot be downloaded."""


class ArtifactError(SsdtrtError):
    """A saved file that is missing, damaged, of another kind, or built for another machine."""


class CompileError(SsdtrtError):
    """An engine that cannot be built here, or whose build failed."""


class BuilderError(CompileError):
    """A network that TensorRT's builder could not build; it may build the same network in another layout."""


class ParityError(SsdtrtError):
    """An engine that differs too much from the FP32 model.

    Attributes:
        report: The ParityReport with the measured distances; None where none was made.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report

    @property
    def wrong_values(self) -> bool:
        """Whether the engine computes wrong values, rather than in another precision."""
        return self.report is not None and not self.report.too_near


class CalibrationError(SsdtrtError):
    """Calibration pictures or a calibration table that cannot be used."""


class ImageError(SsdtrtError):
    """A picture that cannot be read, or that is not in the expected form."""


class VideoError(SsdtrtError):
    """A video or stream that cannot be read, or not to its end."""


class AnnotationsError(SsdtrtError):
    """Annotations that cannot be read, or that do not match the pictures or the model."""


class GpuError(SsdtrtError):
    """A GPU that has run out of memory, or that failed during a computation."""


class ReportError(SsdtrtError):
    """A saved report that cannot be read, or that does not contain what the command needs."""


def first_line(error: BaseException, empty: str | None = None, limit: int = 200) -> str:
    """Return the first line of an exception's message, at most `limit` characters.

    Args:
        error: The exception.
        empty: What to return for an empty message; by default the name of the exception's type.
        limit: The maximum number of characters.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__ if empty is None else empty]
    return lines[0].strip()[:limit]
