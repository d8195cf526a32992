"""What the parts of the service pass to each other, and what it reports of itself."""

from __future__ import annotations

from ssdtrt import config
from ssdtrt.system.report import Report

DETECT_APP, STATUS_APP = "ssdtrt-detect", "ssdtrt-status"
"""The service's two applications in Ray Serve."""


class EngineFile(Report, frozen=True):
    """A file that is served, as every node of the cluster has it.

    Attributes:
        file: Its absolute path.
        sha256: Its SHA-256.
    """

    file: str
    sha256: str


class ServiceOptions(Report, frozen=True, kw_only=True):
    """How the service was started; no new engine changes it.

    Attributes:
        url: The address that it listens at.
        device: `cpu` or `cuda`.
        threshold: The lowest score that is reported.
        classes: The names or numbers of the classes that are reported; None for all.
        decode: Where JPEGs are decoded: `gpu`, `cpu`, or `auto` for the GPU where that is possible.
        queue_delay: Microseconds that a picture may wait for others to fill a batch.
        max_queue: Requests that wait at each replica, or at each of Ray's HTTP proxies where there is no HAProxy; those beyond
            are refused.
        max_bytes: The most bytes of a request's body.
        max_pixels: The most pixels of a picture.
        max_pictures: The most pictures of a request.
        upload_seconds: Seconds in which a request's body must be complete.
        timeout: Seconds in which a request is answered.
        own_cluster: Whether the Ray cluster was started for the service, and ends with it.
    """

    url: str
    device: str = "cpu"
    threshold: float = config.THRESHOLD
    classes: tuple[str, ...] | None = None
    decode: str = config.DECODE[0]
    queue_delay: int = config.SERVE_QUEUE_DELAY
    max_queue: int = config.SERVE_QUEUE["cpu"]
    max_bytes: int = config.SERVE_BYTES
    max_pixels: int = config.SERVE_PIXELS
    max_pictures: int = config.SERVE_PICTURES
    upload_seconds: float = config.SERVE_UPLOAD_SECONDS
    timeout: float = config.SERVE_SECONDS
    own_cluster: bool = False


class ServiceInfo(Report, frozen=True, kw_only=True):
    """What runs, as `GET /info` answers.

    Attributes:
        engine: The file.
        precision: The precision that the network computes in.
        preprocess: How pictures are prepared for it, `eval` or `hub`.
        labels: The names of the classes, the background first.
        note: What is to be known about the detections, such as that the weights are untrained; "" for nothing.
        device: Where it runs.
        batch_size: The most pictures that run at once.
        decode: Where JPEGs are decoded, `gpu` or `cpu`.
        replicas: How many replicas run.
        options: How the service was started.
    """

    kind = "service"

    engine: EngineFile
    precision: str
    preprocess: str
    labels: tuple[str, ...]
    note: str
    device: str
    batch_size: int
    decode: str
    replicas: int
    options: ServiceOptions


class ServeReport(Report, frozen=True, kw_only=True):
    """What `ssdtrt serve` started or changed.

    Attributes:
        url: The address that the service listens at.
        ray: The address of the Ray cluster that it runs on, for the `--ray` of other commands.
        service: What runs.
        before: The file that was served before; None where the service was started.
    """

    kind = "serve"

    url: str
    ray: str
    service: ServiceInfo
    before: EngineFile | None = None


class ServiceError(Report, frozen=True):
    """Why a request was not answered with detections.

    Attributes:
        error: What was found, what was expected and what to do.
    """

    kind = "service-error"

    error: str
