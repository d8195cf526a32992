"""Measure how far the pixels of JPEGs that nvImageCodec decodes are from Pillow's, and how fast it decodes them.

    python benchmarks/jpeg_pixels.py --json FILE [--pictures 512] [--batch-size 128]

The pictures are those of files.py, saved with each subsampling of colors and in gray. Each backend decodes them alone.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files import QUALITY, part_of, sample_photographs
from PIL import Image

from ssdtrt.system.versions import measured_on

SAVED: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0}, "gray": {},
    "4:2:0 progressive": {"subsampling": 2, "progressive": True},
}  # fmt: skip
BACKENDS = {"hardware": "HW_GPU_ONLY", "hybrid": "HYBRID_CPU_GPU"}
ROUNDS = 5


def main(arguments: list[str] | None = None) -> None:
    """Compare and time every backend on every kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, action="append", help="of the host; several times for several")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    photographs = sample_photographs()
    pictures = [part_of(photographs, index) for index in range(options.pictures)]
    device = torch.device("cuda", 0)
    rows = []
    for kind, saved in SAVED.items():
        contents = [encoded(picture.convert("L") if kind == "gray" else picture, saved) for picture in pictures]
        expected = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
        for backend in BACKENDS:
            for threads in options.threads or [1]:
                row = {"saved": kind, "backend": backend, "threads": threads}
                rows.append(row | measure(contents, expected, backend, threads, options.batch_size))
                print(json.dumps(rows[-1]), flush=True)
    report = {"pictures": len(pictures), "batch_size": options.batch_size, "machine": measured_on(device).as_dict()}
    options.json.write_text(json.dumps(report | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


def encoded(picture: Image.Image, saved: dict[str, Any]) -> bytes:
    """The picture as a JPEG file."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, **saved)
    return content.getvalue()


def measure(contents: list[bytes], expected: list[np.ndarray], backend: str, threads: int, size: int) -> dict[str, Any]:
    """Decode all files with one backend; return the differences, 0 to 255, and pictures a second."""
    from nvidia import nvimgcodec

    decoder = nvimgcodec.Decoder(
        device_id=0,
        backends=[nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, BACKENDS[backend]))],
        max_num_cpu_threads=threads if backend == "hardware" else 0,
    )
    params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
    stream = torch.cuda.Stream()

    def decode(part: list[bytes]) -> list[Any]:
        sources = [nvimgcodec.CodeStream(content) for content in part]
        decoded = decoder.decode(sources, params=params, cuda_stream=stream.cuda_stream)
        stream.synchronize()
        return [None if image is None else torch.utils.dlpack.from_dlpack(image) for image in decoded]

    parts = [slice(first, first + size) for first in range(0, len(contents), size)]
    mean = largest = equal = refused = 0.0
    for part in parts:
        for image, pixels in zip(decode(contents[part]), expected[part]):
            if image is None:
                refused += 1
                continue
            difference = np.abs(image.cpu().numpy().astype(int) - pixels)
            mean += difference.mean()
            largest = max(largest, difference.max())
            equal += (difference == 0).mean()
    decoded = len(contents) - refused
    if not decoded:
        return {"refused": int(refused)}
    started = time.perf_counter()
    for _ in range(ROUNDS):
        for part in parts:
            decode(contents[part])
    seconds = time.perf_counter() - started
    return {"refused": int(refused), "mean_difference": mean / decoded, "largest_difference": int(largest),
            "share_of_equal_values": equal / decoded, "pictures_per_second": ROUNDS * len(contents) / seconds}  # fmt: skip


if __name__ == "__main__":
    main()
