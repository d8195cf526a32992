"""The deployment that detects: it reads uploads, gathers their pictures in batches, and runs these on its device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING

from ray import serve
from ray.serve.metrics import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ssdtrt.errors import GpuError, SsdtrtError
from ssdtrt.reading.read_ahead import worker_count
from ssdtrt.serving.service.records import STATUS_APP, EngineFile, ServiceInfo, ServiceOptions
from ssdtrt.serving.service.uploads import Refused, Upload, read_uploads, retry_later, within

if TYPE_CHECKING:
    from ssdtrt.reading.reader import PreparedPicture
    from ssdtrt.serving.service.loaded import LoadedEngine

_SHARE = 0.9  # of the time-out: the rest is for the way here, on which the proxy ends what takes too long
_GONE = 499  # the status of a request whose client went away, in logs and metrics alone

Item = tuple["LoadedEngine", "PreparedPicture"]


class DetectReplica:
    """Answers `POST /detect`.

    Ray Serve makes it, calls `reconfigure` once, and then `__call__` for each request and the others by their names.

    Args:
        options: How the service was started.
        together: How many replicas share the GPU, and so the cores.
    """

    def __init__(self, options: ServiceOptions, together: int = 1):
        self._options = options
        self._loaded: LoadedEngine | None = None
        self._next: LoadedEngine | None = None
        self._awaited: EngineFile | None = None
        self._failure: GpuError | None = None
        self._closed, self._ongoing = False, 0
        self._readers = ThreadPoolExecutor(max(1, worker_count() // together), "read")
        self._device = ThreadPoolExecutor(1, "device")
        self._pictures = Counter("ssdtrt_pictures", "Pictures that detections were returned for.")
        self._not_decoded = Counter("ssdtrt_not_decoded", "JPEGs that the GPU could not decode, so that the CPU did.")

    async def reconfigure(self, engine: dict[str, str]) -> None:
        """Load the engine that the service was started with, or the one that took its place since.

        Raises:
            SsdtrtError: Where it cannot be loaded.
        """
        swapped = await serve.get_app_handle(STATUS_APP).engine.remote()
        wanted = swapped or EngineFile(**engine)
        await self.prepare(wanted)
        self.switch(wanted)

    async def prepare(self, engine: EngineFile) -> None:
        """Load another engine beside the one that runs.

        Raises:
            SsdtrtError: Where it cannot be loaded.
        """
        from ssdtrt.serving.service.loaded import LoadedEngine  # Not in the process that starts the service.

        self._awaited, ready = engine, self._loaded
        if ready is None or ready.engine != engine:
            ready = await asyncio.to_thread(LoadedEngine, engine, self._options, self._not_decoded.inc)
            # In the thread that detects, so that nothing else runs on the GPU meanwhile.
            await asyncio.get_running_loop().run_in_executor(self._device, ready.capture)
        if self._awaited == engine:
            self._next = ready

    def forget(self) -> None:
        """Drop what was prepared, or still is: another replica cannot load it."""
        self._awaited = self._next = None

    def switch(self, engine: EngineFile) -> bool:
        """Take the engine that was prepared for all requests from now on; return whether it was that one."""
        ready = self._next
        if ready is None or ready.engine != engine:
            return False  # What is there is of another swap, which comes after this one.
        self._loaded, self._next, self._awaited = ready, None, None
        self._detect.set_max_batch_size(ready.detector.batch_size)
        self._detect.set_batch_wait_timeout_s(self._options.queue_delay / 1e6)
        return True

    def info(self) -> ServiceInfo:
        """Return what runs."""
        assert self._loaded is not None
        return self._loaded.info()

    def close(self) -> float:
        """Refuse all requests from now on; return how many seconds those take at most that were accepted."""
        self._closed = True
        return self._options.timeout

    def ongoing(self) -> int:
        """Return how many requests were accepted and have no answer yet."""
        return self._ongoing

    def check_health(self) -> None:
        """Raise once the GPU failed: Ray Serve puts a new replica in this one's place.

        Raises:
            GpuError: The failure.
        """
        if self._failure is not None:
            raise self._failure

    async def __call__(self, request: Request) -> Response:
        """Answer a request, with detections or with why there are none."""
        if self._closed:
            return retry_later("The service ends; try again later.").response()
        self._ongoing += 1
        try:
            return await self._detections(request)
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except SsdtrtError as error:
            return Refused(500, str(error)).response()
        finally:
            self._ongoing -= 1

    async def _detections(self, request: Request) -> Response:
        """The detections of a request's pictures; Refused where there are none."""
        started, options = time.monotonic(), self._options
        seconds = f"{options.upload_seconds:g} s"
        slow = Refused(408, f"The picture was not there after {seconds}; send it faster, or a smaller one.", close=True)
        late = Refused(504, f"There was no result within {options.timeout:g} s; try again later.")
        uploads = await within(options.upload_seconds, read_uploads(request, options), slow)
        left = started + _SHARE * options.timeout - time.monotonic()
        lines = await within(left, self._answer(uploads), late)
        self._pictures.inc(len(lines))
        several = "multipart/" in request.headers.get("content-type", "").lower()
        media_type = "application/x-ndjson" if several else "application/json"
        return Response("".join(f"{line}\n" for line in lines), media_type=media_type)

    async def _answer(self, uploads: Sequence[Upload]) -> list[str]:
        """A line for each picture, all of one engine."""
        loaded, loop = self._loaded, asyncio.get_running_loop()
        assert loaded is not None
        reading = (loop.run_in_executor(self._readers, loaded.prepare, one) for one in uploads)
        pictures = await asyncio.gather(*reading)
        lines = await asyncio.gather(*(self._detect((loaded, one)) for one in pictures))
        for one in lines:
            if isinstance(one, Refused):
                raise one
        return lines

    @serve.batch(max_batch_size=1, max_concurrent_batches=2)  # One of them waits for the thread of the device.
    async def _detect(self, items: list[Item]) -> list[str | Refused]:
        """A line for each picture, of pictures of any requests, or why there is none."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._device, _detect_items, items)
        except GpuError as error:
            self._failure = error
            raise


def _detect_items(items: list[Item]) -> list[str | Refused]:
    """A line for each picture, or why there is none; those of an engine that has just been replaced run apart."""
    lines: list[str | Refused] = []
    for _, group in groupby(items, key=lambda item: id(item[0])):
        some = list(group)
        lines += some[0][0].detect([picture for _, picture in some])
    return lines
