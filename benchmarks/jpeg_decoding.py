"""Measure nvImageCodec alone: how far its pixels are from Pillow's, how fast it is, and what slows it down.

    python benchmarks/jpeg_decoding.py --json FILE [--pictures 256] [--batch-size 128]

The pictures are those of files.py. They are saved with each subsampling of colors and in gray, and each backend decodes
them. Then 4:2:0 files are decoded by the hardware decoder in one to four threads, alone, beside a GPU that is busy for a
half, three quarters and all of the time, and beside a thread that computes in Python.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files import QUALITY, part_of, sample_photographs
from PIL import Image

from ssdtrt import config
from ssdtrt.images.nvimgcodec import Decoder
from ssdtrt.system.versions import measured_on

SAVED: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0}, "gray": {},
    "4:2:0 progressive": {"subsampling": 2, "progressive": True},
}  # fmt: skip
BACKENDS = {"hardware": config.HARDWARE_DECODE_THREADS, "hybrid": 0}  # with the threads of the host that they use
THREADS = (1, 2, 3, 4)
SIZE = 640, 480
SECONDS = 1.0  # of a measurement


def main(arguments: list[str] | None = None) -> None:
    """Compare and time every backend on every kind of file, then the hardware decoder beside other work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    photographs = sample_photographs()
    pictures = [part_of(photographs, index) for index in range(options.pictures)]
    rows: list[dict[str, Any]] = []

    def record(**row: Any) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    for kind, saved in SAVED.items():
        contents = [encoded(picture.convert("L") if kind == "gray" else picture, saved) for picture in pictures]
        for backend in BACKENDS:
            found = differences(Lane(backend, options.batch_size), contents, options.batch_size)
            if found["refused"] < len(contents):
                found |= speed(backend, contents, options.batch_size, 1)
            record(saved=kind, backend=backend, beside="nothing", **found)
    contents = [encoded(picture, SAVED["4:2:0"]) for picture in pictures]
    for beside, work in BESIDE.items():
        for threads in THREADS:
            with work():
                found = speed("hardware", contents, options.batch_size, threads)
            record(saved="4:2:0", backend="hardware", beside=beside, **found)
    report = {"pictures": len(pictures), "batch_size": options.batch_size,
              "machine": measured_on(torch.device("cuda", 0)).as_dict(), "rows": rows}  # fmt: skip
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def encoded(picture: Image.Image, saved: dict[str, Any]) -> np.ndarray:
    """The bytes of the picture as a JPEG file."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, **saved)
    return np.frombuffer(content.getvalue(), np.uint8)


class Lane:
    """A decoder with a stream and memory for a batch."""

    def __init__(self, backend: str, size: int):
        width, height = SIZE
        self.decoder, self.stream = Decoder(backend, 0, BACKENDS[backend]), torch.cuda.Stream()
        self.memory = torch.empty(size, height, width, 3, dtype=torch.uint8, device="cuda")
        self.targets = [one.data_ptr() for one in self.memory]

    def __call__(self, contents: list[np.ndarray]) -> list[bool]:
        """Decode files; return which of them were, whose pixels are in `memory` then."""
        decoded = self.decoder(contents, [SIZE] * len(contents), self.targets, self.stream.cuda_stream)
        self.stream.synchronize()
        return decoded


def differences(lane: Lane, contents: list[np.ndarray], size: int) -> dict[str, Any]:
    """How many files are refused, and how far the pixels of the others are from Pillow's, 0 to 255."""
    mean = largest = equal = refused = 0.0
    for first in range(0, len(contents), size):
        part = contents[first : first + size]
        for decoded, image, content in zip(lane(part), lane.memory, part):
            if not decoded:
                refused += 1
                continue
            expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            difference = np.abs(image.cpu().numpy().astype(int) - expected)
            mean += difference.mean()
            largest = max(largest, difference.max())
            equal += (difference == 0).mean()
    decoded = len(contents) - refused
    if not decoded:
        return {"refused": int(refused)}
    return {"refused": int(refused), "mean_difference": mean / decoded, "largest_difference": int(largest),
            "share_of_equal_values": equal / decoded}  # fmt: skip


def speed(backend: str, contents: list[np.ndarray], size: int, threads: int) -> dict[str, float]:
    """Pictures a second that so many threads decode, each with a decoder of its own, and what the process computes."""
    lanes, counts = [Lane(backend, size) for _ in range(threads)], [0] * threads
    for lane in lanes:
        lane(contents[:size])
    used, started = time.process_time(), time.perf_counter()

    def run(number: int) -> None:
        while time.perf_counter() < started + SECONDS:
            first = number * len(contents) // threads + counts[number]
            lanes[number]([contents[(first + offset) % len(contents)] for offset in range(size)])
            counts[number] += size

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    seconds, used = time.perf_counter() - started, time.process_time() - used
    return {"threads": threads, "pictures_per_second": sum(counts) / seconds, "cpu_us": used / sum(counts) * 1e6}


@contextlib.contextmanager
def busy_gpu(share: float) -> Iterator[None]:
    """A GPU that computes convolutions, in a CUDA graph of some milliseconds, for a share of the time."""
    layers = [torch.nn.Conv2d(256, 256, 3, padding=1) for _ in range(10)]
    network = torch.nn.Sequential(*layers).half().cuda().to(memory_format=torch.channels_last)
    images = torch.randn(128, 256, 38, 38, device="cuda").half().to(memory_format=torch.channels_last)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        network(images)
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            network(images)

    def once() -> None:
        started = time.perf_counter()
        with torch.cuda.stream(stream):
            graph.replay()
            stream.synchronize()
        time.sleep((time.perf_counter() - started) * (1 - share) / share)

    with repeated(once):
        yield


@contextlib.contextmanager
def repeated(work: Callable[[], object]) -> Iterator[None]:
    """A thread that does the work again and again."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


BESIDE: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "nothing": contextlib.nullcontext,
    "a GPU busy for half of the time": lambda: busy_gpu(0.5),
    "a GPU busy for three quarters of the time": lambda: busy_gpu(0.75),
    "a GPU busy all the time": lambda: busy_gpu(1.0),
    "a thread that computes in Python": lambda: repeated(lambda: sum(range(1000))),
}


if __name__ == "__main__":
    main()
