"""The deployment that reports on the service: the page, whether it is alive and ready, what runs, and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
from importlib import resources
from typing import Any

import msgspec
import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ssdtrt.serving.service.metrics import read_metrics
from ssdtrt.serving.service.records import DETECT_APP, EngineFile, ServiceInfo
from ssdtrt.serving.service.uploads import Refused, not_there, retry_later

_SECONDS = 5.0  # for the replicas to answer what they run
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class StatusReplica:
    """Answers all but `/detect`, also while pictures wait there; and remembers the engine that was swapped in."""

    def __init__(self) -> None:
        self._engine: EngineFile | None = None
        self._detect: Any = None
        self._ends = False
        self._page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        self._routes = {
            "/": self._show_page,
            "/health": self._health,
            "/ready": self._ready,
            "/info": self._info,
            "/metrics": self._metrics,
        }

    async def engine(self) -> EngineFile | None:
        """Return the engine that a replica loads which starts now: that of the other replicas; None where there are none."""
        if self._engine is None:
            with contextlib.suppress(Refused):
                return (await self._running()).engine
        return self._engine

    def keep_engine(self, engine: EngineFile) -> None:
        """Remember the engine that was swapped in, for replicas that start later."""
        self._engine = engine

    def end(self) -> None:
        """Ask the process that started the service to end it."""
        self._ends = True

    def ends(self) -> bool:
        """Return whether the service is to end."""
        return self._ends

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        try:
            if request.url.path == "/detect":  # While that application is not there.
                raise retry_later("The service starts or ends; try again later.")
            route = self._routes.get(request.url.path)
            if route is None:
                raise not_there(request)
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, f"{request.method} is not possible here; GET is.", allow="GET, HEAD")
            return await route()
        except Refused as refused:
            return refused.response()

    async def _show_page(self) -> Response:
        return Response(self._page, headers=_PAGE_HEADERS, media_type="text/html")

    async def _health(self) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self) -> Response:
        await self._running()
        return PlainTextResponse("ready\n")

    async def _info(self) -> Response:
        return Response(json.dumps((await self._running()).document()) + "\n", media_type="application/json")

    async def _metrics(self) -> Response:
        nodes = await asyncio.to_thread(ray.nodes)
        addresses = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes if node["Alive"]]
        return Response(await asyncio.to_thread(read_metrics, addresses), media_type="text/plain; version=0.0.4")

    async def _running(self) -> ServiceInfo:
        """What the replicas run; Refused where none does."""
        try:
            if self._detect is None:
                self._detect = await asyncio.to_thread(serve.get_app_handle, DETECT_APP)
            found = await self._detect.broadcast("info").results_async(timeout_s=_SECONDS)
        except (RayServeException, ray.exceptions.RayError, TimeoutError):
            raise retry_later("No replica is ready; try again later.") from None
        return msgspec.structs.replace(found[0], replicas=len(found))
