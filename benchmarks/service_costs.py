"""Measure what a replica of the service does for a picture, each step alone: python benchmarks/service_costs.py ENGINE FOLDER

Prints JSON: the milliseconds to decode and resize a picture, and those of a batch by its size, from images to lines of JSON, with as
many threads of torch as the service has (OMP_NUM_THREADS); and of both the share in which no other thread of the process got on
(`locked`). That is found with a thread that only counts: all the time that it does not compute it waits for the interpreter. So it
needs two cores that little else uses.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from ssdtrt import config
from ssdtrt.artifact.metadata import check_file
from ssdtrt.serving.service.loaded import LoadedEngine
from ssdtrt.serving.service.placement import needed_device
from ssdtrt.serving.service.records import EngineFile, ServiceOptions
from ssdtrt.serving.service.uploads import Upload
from ssdtrt.system.digests import sha256_file

WARM_UP = 5  # calls that do not count
PARTS = 10  # of the calls beside which another thread counts


def milliseconds(function: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """The median of what a call takes."""
    found = []
    for argument in arguments:
        started = time.perf_counter()
        function(argument)
        found.append(1e3 * (time.perf_counter() - started))
    return round(median(found[WARM_UP:]), 3)


def locked(function: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """The share of the calls' time in which a thread beside them cannot get on: the least of some, because others only add to it."""
    number = max(1, len(arguments) // PARTS)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        return round(min(_locked(function, arguments[n : n + number]) for n in range(0, len(arguments), number)), 3)
    finally:
        sys.setswitchinterval(interval)


def _locked(function: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    over, computed = threading.Event(), []

    def go_on() -> None:
        before = time.thread_time()
        while not over.is_set():
            pass
        computed.append(time.thread_time() - before)

    beside = threading.Thread(target=go_on)
    started = time.perf_counter()
    beside.start()
    for argument in arguments:
        function(argument)
    over.set()
    passed = time.perf_counter() - started
    beside.join()
    return max(0.0, 1 - computed[0] / passed)


def measure(engine: str, folder: Path) -> dict[str, Any]:
    """The costs of a file and a folder of pictures."""
    on = needed_device(check_file(engine), None) or "cpu"
    loaded = LoadedEngine(
        EngineFile(engine, sha256_file(engine)),
        ServiceOptions(url="", device=on, max_queue=config.SERVE_QUEUE[on]),
    )
    loaded.capture()
    uploads = [Upload("", path.read_bytes()) for path in sorted(folder.iterdir())]
    # Threads as in a replica: in the main one torch does not give memory back and take it anew for each batch.
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as device:
        pictures = list(reader.map(loaded.prepare, uploads))
        sizes = loaded.detector.batches.sizes or range(1, loaded.detector.batch_size + 1)
        batches = {
            size: [pictures[first : first + size] for first in range(0, len(pictures) - size + 1, size)]
            for size in sizes
        }
        return {
            "environment": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "MALLOC_"))},
            "decode_ms": reader.submit(milliseconds, loaded.prepare, uploads).result(),
            "decode_locked": reader.submit(locked, loaded.prepare, uploads).result(),
            "batch_ms": {size: device.submit(milliseconds, loaded.detect, some).result() for size, some in batches.items()},
            "batch_locked": {size: device.submit(locked, loaded.detect, some).result() for size, some in batches.items()},
        }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
