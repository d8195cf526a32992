"""Measure nvImageCodec alone: how far its pixels are from Pillow's, and what slows it down.

    python benchmarks/jpeg_decoding.py --json FILE [--pictures 256] [--batch-size 128]

The pictures are those of files.py. They are saved with each subsampling of colors and in gray, and each backend decodes
them. Then 4:2:0 files are decoded by the hardware decoder alone, beside a GPU that is busy for half of the time and all of
it, beside a thread that computes in Python, and as reader processes bring them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files import QUALITY, part_of, sample_photographs
from PIL import Image

from ssdtrt.reading.reader_pool import ReaderPool
from ssdtrt.system.versions import measured_on

SAVED: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0}, "gray": {},
    "4:2:0 progressive": {"subsampling": 2, "progressive": True},
}  # fmt: skip
BACKENDS = {"hardware": "HW_GPU_ONLY", "hybrid": "HYBRID_CPU_GPU"}
SECONDS = 1.0  # of a measurement
READ = 20_000  # files that reader processes bring


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
            decoder = Decoder(backend)
            found = differences(decoder, contents, options.batch_size)
            if found["refused"] < len(contents):
                found |= speed(decoder, contents, options.batch_size)
            record(saved=kind, backend=backend, beside="nothing", **found)
    contents = [encoded(picture, SAVED["4:2:0"]) for picture in pictures]
    for beside, work in BESIDE.items():
        with work():
            record(saved="4:2:0", backend="hardware", beside=beside,
                   **speed(Decoder("hardware"), contents, options.batch_size))  # fmt: skip
    record(saved="4:2:0", backend="hardware", beside="reader processes", **from_readers(contents, options.batch_size))
    report = {"pictures": len(pictures), "batch_size": options.batch_size,
              "machine": measured_on(torch.device("cuda", 0)).as_dict(), "rows": rows}  # fmt: skip
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def encoded(picture: Image.Image, saved: dict[str, Any]) -> bytes:
    """The picture as a JPEG file."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, **saved)
    return content.getvalue()


class Decoder:
    """A decoder of one backend, and how long its parts took."""

    def __init__(self, backend: str):
        from nvidia import nvimgcodec

        self.nvimgcodec, self.stream, self.seconds = nvimgcodec, torch.cuda.Stream(), dict[str, float]()
        kinds = [nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, BACKENDS[backend]))]
        self.params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
        threads = 1 if backend == "hardware" else 0
        self.decoder = nvimgcodec.Decoder(device_id=0, backends=kinds, max_num_cpu_threads=threads)

    def __call__(self, contents: list[Any]) -> list[torch.Tensor | None]:
        """Decode files."""
        sources = self.timed("code_stream", lambda: [self.nvimgcodec.CodeStream(content) for content in contents])
        images = self.timed("decode", lambda: self.decoder.decode(
            sources, params=self.params, cuda_stream=self.stream.cuda_stream))  # fmt: skip
        return self.timed("dlpack", lambda: [
            None if image is None else torch.utils.dlpack.from_dlpack(image) for image in images])  # fmt: skip

    def timed(self, part: str, work: Callable[[], Any]) -> Any:
        """Do the work, and add its time to that of a part."""
        started = time.perf_counter()
        result = work()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started
        return result

    def parts(self, count: int) -> dict[str, float]:
        """Microseconds a picture of each part."""
        return {f"{part}_us": seconds / count * 1e6 for part, seconds in self.seconds.items()}


def differences(decoder: Decoder, contents: list[bytes], size: int) -> dict[str, Any]:
    """How many files are refused, and how far the pixels of the others are from Pillow's, 0 to 255."""
    mean = largest = equal = refused = 0.0
    for first in range(0, len(contents), size):
        part = contents[first : first + size]
        for image, content in zip(decoder(part), part):
            if image is None:
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


def speed(decoder: Decoder, contents: list[bytes], size: int) -> dict[str, float]:
    """Pictures a second, and microseconds a picture of each part."""
    decoder(contents[:size])
    decoder.seconds.clear()
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        decoder([contents[(count + offset) % len(contents)] for offset in range(size)])
        count += size
    return {"pictures_per_second": count / (time.perf_counter() - started)} | decoder.parts(count)


def from_readers(contents: list[bytes], size: int) -> dict[str, float]:
    """The same of files that reader processes bring, in shared memory."""
    decoder = Decoder("hardware")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.jpg") for number in range(len(contents))]
        for path, content in zip(paths, contents):
            path.write_bytes(content)
        names = [str(paths[number % len(paths)]) for number in range(READ)]
        with ReaderPool(16, 2 * size, 7 * size, orient=True, preprocess="eval", whole=True, jpegs=True) as pool:
            reading = pool.read(names)
            count, started = 0, time.perf_counter()
            while group := decoder.timed("read", lambda: list(itertools.islice(reading, size))):
                decoder([one.pixels.data for one in group])
                for one in group:
                    pool.free_slot(one.slot)
                count += len(group)
                if count == 10 * size:  # The processes have started.
                    decoder.seconds.clear()
                    first, started = count, time.perf_counter()
    count -= first
    return {"pictures_per_second": count / (time.perf_counter() - started)} | decoder.parts(count)


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
    "a GPU busy all the time": lambda: busy_gpu(1.0),
    "a thread that computes in Python": lambda: repeated(lambda: sum(range(1000))),
}


if __name__ == "__main__":
    main()
