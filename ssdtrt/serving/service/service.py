"""Start the service on Ray Serve, put another engine in, and end it when all that was accepted is answered."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec

from ssdtrt import config
from ssdtrt.artifact.metadata import check_file
from ssdtrt.detection.settings import class_numbers
from ssdtrt.errors import SsdtrtError
from ssdtrt.serving.service.cluster import (
    START_ONE,
    check_port,
    check_ray,
    connect,
    connect_to_running,
    disconnect,
    start_failure,
    wait_for_port,
)
from ssdtrt.serving.service.ingress import use_haproxy
from ssdtrt.serving.service.placement import Placement, needed_device, place
from ssdtrt.serving.service.records import DETECT_APP, STATUS_APP, EngineFile, ServeReport, ServiceInfo, ServiceOptions
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.versions import available_cores

_IDLE_SECONDS = 1.0  # without a request in the replicas; a proxy looks for a free one every half second
_POLL_SECONDS = 0.1
_END_SECONDS = 30.0  # for a cluster to end, beside what its requests take
_WATCH_SECONDS = 1.0  # between two looks whether the service is still there
_QUIET = {"log_level": "ERROR", "enable_access_log": False}
_STOP_SECONDS = 10.0  # more than the time-out of a request, in which a replica that ends has to finish


def start_service(
    file: str | Path,
    *,
    ray: str | None = None,
    replicas: int | None = None,
    host: str = config.SERVE_HOST,
    port: int = config.SERVE_PORT,
    device: str | None = None,
    sha256: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> ServeReport:
    """Start the service; it runs until `stop_service`.

    Args:
        file: An engine, a detector or a module, at the same path on each node of the cluster.
        ray: The address of a Ray cluster, or `auto`; None to start one on this machine, which ends with this process.
        replicas: How many load the file; those beyond the number of GPUs share them. By default one, and on a GPU as many as
            there are cores for.
        host: The address to listen at; where Ray Serve runs on the cluster already, it keeps its own address and port.
        port: The port.
        device: `cpu` or `cuda`; by default that of the file, and for a module `cuda` where there is a GPU.
        sha256: The digest that the file must have.
        progress: Called with a line for each step.
        options: Fields of ServiceOptions in place of their defaults.

    Returns:
        Where it listens, and what runs.

    Raises:
        SsdtrtError: Where Ray is missing, the file is damaged or does not run there, or the port is taken.
    """
    check_ray()
    metadata = check_file(file, sha256=sha256)
    needed = needed_device(metadata, device)
    class_numbers(options.get("classes"), metadata.model.labels)
    if options.get("decode") == "gpu":
        from ssdtrt.images.gpu_decode import never, refusal  # They import torch.

        if reason := never(needed or "cuda", metadata.model.preprocess):
            raise refusal(reason)
    engine = EngineFile(str(Path(file).absolute()), sha256_file(file))
    if not ray:
        check_port(host, port)
        use_haproxy(host)
    progress("starting Ray" if not ray else "connecting to Ray")
    address = connect(ray)
    placement = _place(needed, replicas, own_cluster=not ray)
    on = placement.device
    progress("starting the service")
    url = _listen(host, port, options.get("timeout", config.SERVE_SECONDS))
    known = {"url": url, "device": on, "max_queue": config.SERVE_QUEUE[on], "own_cluster": not ray}
    chosen = ServiceOptions(**{**known, **options})
    _deploy(engine, chosen, placement)
    return ServeReport(url=url, ray=address, service=_running())


def swap_engine(
    file: str | Path, *, ray: str | None = None, sha256: str | None = None, progress: Progress = silent
) -> ServeReport:
    """Put another engine into the running service: every replica loads it, and only then all take it.

    Requests go on meanwhile. Where one replica cannot load it, all keep the one that they have.

    Args:
        file: The engine, at the same path on each node of the cluster.
        ray: The address of the Ray cluster; by default that of the one on this machine.
        sha256: The digest that it must have.
        progress: Called with a line for each step.

    Raises:
        SsdtrtError: Where no service runs there, or the file is damaged or does not run there.
    """
    check_ray()
    check_file(file, sha256=sha256)
    engine = EngineFile(str(Path(file).absolute()), sha256_file(file))
    progress("connecting to Ray")
    address = connect_to_running(ray)
    before = _running()
    handle = _handle(DETECT_APP)
    progress("loading the engine")
    try:
        _results(handle.broadcast("prepare", engine))
    except SsdtrtError:
        _results(handle.broadcast("forget"))
        raise
    switched = _results(handle.broadcast("switch", engine))
    _handle(STATUS_APP).keep_engine.remote(engine).result(timeout_s=config.SERVE_SECONDS)
    found = _results(handle.broadcast("info"))
    if not all(switched) or any(one.engine != engine for one in found):
        raise SsdtrtError("A replica was replaced in the meantime, and has another engine; run the same command again.")
    return ServeReport(url=before.options.url, ray=address, service=_running(), before=before.engine)


def end_service(*, ray: str | None = None, progress: Progress = silent) -> str:
    """End a service that another process has started, as `stop_service` does.

    Args:
        ray: The address of its Ray cluster; by default that of the one on this machine.
        progress: Called with a line for each step.

    Returns:
        The address that it listened at.

    Raises:
        SsdtrtError: Where no service runs there.
    """
    check_ray()
    progress("connecting to Ray")
    connect_to_running(ray)
    _handle(STATUS_APP)
    options = None
    with contextlib.suppress(SsdtrtError):  # Its replicas died, or do not run yet.
        options = _running().options
    progress("answering what was accepted")
    if options and options.own_cluster:
        _handle(STATUS_APP).end.remote().result(timeout_s=_STOP_SECONDS)
        disconnect()
        wait_for_port(options.url, options.timeout + _END_SECONDS)
    else:
        stop_service(own_cluster=False)
    return options.url if options else "Ray Serve"


def wait_for_end() -> None:
    """Return once another process has asked the service to end, or has ended it."""
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    handle = _handle(STATUS_APP)
    while True:
        with contextlib.suppress(RayServeException, ray.exceptions.RayError, TimeoutError):  # What died is replaced.
            if STATUS_APP not in serve.status().applications or handle.ends.remote().result(timeout_s=_STOP_SECONDS):
                return
        time.sleep(_WATCH_SECONDS)


def stop_service(own_cluster: bool = True) -> None:
    """End the service once all that its replicas have accepted is answered; what waits or comes meanwhile gets 503.

    Args:
        own_cluster: Whether the Ray cluster was started for the service, and ends with it.
    """
    from ray import serve

    with contextlib.suppress(SsdtrtError):  # Where no replica runs, none has accepted anything.
        _drain(_handle(DETECT_APP))
    if not own_cluster:
        serve.delete(DETECT_APP)
        serve.delete(STATUS_APP)
    disconnect()


def _drain(handle: Any) -> None:
    """Let the replicas refuse what comes, and wait until they have had nothing to do for a while.

    In that while the requests that wait in the proxies get to the replicas, which refuse them. Where Serve deletes the application,
    they stay in the proxies without an answer.
    """
    longest = max(_results(handle.broadcast("close"), _STOP_SECONDS))
    idle = time.monotonic()
    until = idle + longest + _STOP_SECONDS
    while (now := time.monotonic()) < until and now - idle < _IDLE_SECONDS:
        time.sleep(_POLL_SECONDS)
        if any(_results(handle.broadcast("ongoing"), _STOP_SECONDS)):
            idle = time.monotonic()


def _place(needed: str | None, replicas: int | None, own_cluster: bool) -> Placement:
    """Where the replicas run on this cluster; SsdtrtError where that lacks a GPU."""
    import ray

    found = ray.cluster_resources()
    cores = available_cores() if own_cluster else int(found.get("CPU", 1))
    return place(needed, replicas, int(found.get("GPU", 0)), cores)


def _listen(host: str, port: int, seconds: float) -> str:
    """Start Ray Serve and return the address that it listens at: where it ran before, it keeps that of its start."""
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.context import _get_global_client

    try:
        serve.start(http_options=HTTPOptions(host=host, port=port, request_timeout_s=seconds), logging_config=_QUIET)
    except (RuntimeError, ray.exceptions.RayError) as error:  # As where another process has got the port meanwhile.
        raise SsdtrtError(start_failure(str(error))) from error
    client = _get_global_client()
    assert client is not None
    host, port = client.http_config.host, client.http_config.port
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _deploy(engine: EngineFile, options: ServiceOptions, placement: Placement) -> None:
    """Run the two applications; SsdtrtError where a replica does not start."""
    from ray import serve
    from ray.serve.config import BackpressureConfig

    from ssdtrt.serving.service.replica import DetectReplica
    from ssdtrt.serving.service.status import StatusReplica

    status = serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}, logging_config=_QUIET)(
        StatusReplica
    )
    serve.run(status.bind(), name=STATUS_APP, route_prefix="/")
    replicas = placement.replicas
    detect = serve.deployment(
        num_replicas=replicas,
        max_ongoing_requests=config.SERVE_ONGOING[options.device],
        max_queued_requests=options.max_queue,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=config.SERVE_RETRY_SECONDS),
        # On a CPU Ray gives torch as many threads.
        ray_actor_options={"num_gpus": placement.gpus}
        if placement.device == "cuda"
        else {"num_cpus": max(1, available_cores() // replicas)},
        user_config=engine.as_dict(),
        graceful_shutdown_timeout_s=options.timeout + _STOP_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=1,
        logging_config=_QUIET,
    )(DetectReplica)
    try:
        serve.run(detect.bind(options, placement.together), name=DETECT_APP, route_prefix="/detect")
    except RuntimeError as error:
        status_of = serve.status().applications.get(DETECT_APP)
        text = "\n".join([str(error), *(one.message for one in status_of.deployments.values())] if status_of else [])
        raise SsdtrtError(start_failure(text)) from error


def _running() -> ServiceInfo:
    found = _results(_handle(DETECT_APP).broadcast("info"))
    return msgspec.structs.replace(found[0], replicas=len(found))


def _handle(name: str) -> Any:
    """The handle of a running application; SsdtrtError where there is none."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return serve.get_app_handle(name)
    except RayServeException as error:
        raise SsdtrtError(f"No service runs on this Ray cluster. {START_ONE}") from error


def _results(response: Any, seconds: float = config.SERVE_START_SECONDS) -> list[Any]:
    """What each replica returns; SsdtrtError with the first one's error."""
    import ray
    from ray.serve.exceptions import RayServeException

    try:
        return response.results(timeout_s=seconds)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SsdtrtError):
            raise SsdtrtError(f"The service keeps the engine that it has. {error.cause}") from error
        raise
    except (RayServeException, ray.exceptions.RayActorError, TimeoutError) as error:
        raise SsdtrtError("The service's replicas do not answer; look at `ray status`.") from error
