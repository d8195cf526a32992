"""What was written for a Triton Inference Server, and what a check of one found. Imports no torch."""

from __future__ import annotations

from ssdtrt.system.report import Report


class TritonModel(Report, frozen=True):
    """A model in a repository.

    Attributes:
        name: Its name.
        version: The version that the file is.
        file: The file that was given.
        sha256: Its SHA-256.
        backend: The back end of Triton, `pytorch` or `tensorrt`.
        folder: The folder of the version.
        written: Whether it is new; False where the newest version is this file already.
        container: NVIDIA's container that can serve it; None where that is not known, or there is none.
        notes: What is to be known about it.
    """

    name: str
    version: int
    file: str
    sha256: str
    backend: str
    folder: str
    written: bool
    container: str | None
    notes: tuple[str, ...]


class TritonReport(Report, frozen=True):
    """What was written into a repository.

    Attributes:
        repository: The folder.
        models: The models, one for each file.
    """

    kind = "triton"

    repository: str
    models: tuple[TritonModel, ...]


class CheckedPicture(Report, frozen=True):
    """What a server found in a picture, beside what the file itself finds.

    Attributes:
        image: The picture's path.
        detections: How many detections the server has.
        expected: How many the file has; None where it was not run, as for the fields that follow.
        matched: How many of the server's the file has too: of the same class, with an IoU of at least 0.9, and a score
            that differs by at most 0.02.
        relative_l2: The relative L2 distance of the network's outputs, the largest of them; None for a detector too.
        passed: Whether all of either side match, and that distance is at most the bound of the precision.
    """

    image: str
    detections: int
    expected: int | None = None
    matched: int | None = None
    relative_l2: float | None = None
    passed: bool | None = None


class TritonLatency(Report, frozen=True):
    """How long answers took, in milliseconds as the client sees them, of one picture at a time.

    Attributes:
        calls: How many were timed; the first call of all is not.
        p50_ms: The median.
        p90_ms: The 90th percentile, nearest rank.
        p99_ms: The 99th percentile, nearest rank.
        max_ms: The longest.
    """

    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class TritonCheck(Report, frozen=True):
    """What a server answered.

    Attributes:
        url: The server.
        server: Its version.
        model: The name of the model.
        version: The version of the model that answered.
        sha256: The SHA-256 of the file that the server has, as its configuration says.
        compared: Whether the file itself was run beside it.
        pictures: What was found in each picture.
        latency: How long answers took.
        notes: What was not checked, and why.
        failures: What is amiss, a sentence each.
    """

    kind = "triton-check"

    url: str
    server: str
    model: str
    version: str
    sha256: str
    compared: bool
    pictures: tuple[CheckedPicture, ...]
    latency: TritonLatency
    notes: tuple[str, ...]
    failures: tuple[str, ...]
