"""What can go wrong for a user: each error is one sentence that says what was found, what was expected and what to do."""

from __future__ import annotations


class SsdtrtError(Exception):
    """A failure the user can act on. The command line shows it as one message and exits with 1."""


class WeightsError(SsdtrtError):
    """A checkpoint that cannot be read or fitted to the network."""


class FetchError(WeightsError):
    """A checkpoint that cannot be fetched."""


class ArtifactError(SsdtrtError):
    """A saved file that is missing, damaged, of another kind, or made for another machine."""


class CompileError(SsdtrtError):
    """An engine that cannot be built here, or whose build failed."""


class ParityError(SsdtrtError):
    """An engine that does not say what the FP32 model says. `report` is the ParityReport with the figures."""

    def __init__(self, message, report=None):
        super().__init__(message)
        self.report = report


class ImageError(SsdtrtError):
    """A picture that cannot be read, or not prepared as asked."""


class AnnotationsError(SsdtrtError):
    """Annotations that cannot be read, or that do not fit the pictures or the model."""


class GpuError(SsdtrtError):
    """A GPU that has not enough memory, or that failed while it worked."""


class ReportError(SsdtrtError):
    """A saved report that cannot be read, or not be used as asked."""


def first_line(error: BaseException, empty: str | None = None, limit: int = 200) -> str:
    """Return the first line of another library's error, at most `limit` characters.

    Args:
        error: The exception.
        empty: What to return where it has no message; by default the name of its type.
        limit: The most characters.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__ if empty is None else empty]
    return lines[0].strip()[:limit]
