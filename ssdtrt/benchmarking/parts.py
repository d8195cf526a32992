"""Time the way from a picture to its detections, part by part, by the host's clock."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable

from PIL import Image

from ssdtrt import config
from ssdtrt.benchmarking.baselines import BenchFile
from ssdtrt.benchmarking.report import BenchSettings, PartTime
from ssdtrt.benchmarking.timing import quantile
from ssdtrt.detect import Detector
from ssdtrt.images.decode import load_image
from ssdtrt.images.preprocess import resize_image
from ssdtrt.images.tensors import scale_to, synthetic_pictures
from ssdtrt.runners.timing import host_time
from ssdtrt.system.progress import Progress, tracked

_JPEG_SIZE = (640, 480)


def time_parts(file: BenchFile, batch_size: int, settings: BenchSettings, progress: Progress) -> tuple[PartTime, ...]:
    """Time each part alone, then the whole: uint8 pictures on the host to detections on the host, at this batch size.

    Preparation is of one JPEG of 640x480 in memory, on one thread. Every call is waited for.
    """
    rows = []
    for name, (size, call) in parts_of(Detector(file.runner()), batch_size).items():
        for _ in range(settings.warmup or 0):
            call()
        calls = tracked(range(settings.rounds * settings.iterations), progress, f"timing {name}", "call")
        times = [host_time(call)[1] for _ in calls]
        rows.append(PartTime(name, size, statistics.median(times), quantile(times, 0.9)))
    return tuple(rows)


def parts_of(detector: Detector, batch_size: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return the parts by name: how many pictures a call takes, and the call."""
    device = detector.device
    pixels = synthetic_pictures(batch_size, seed=config.SEED + 3).permute(0, 2, 3, 1).contiguous()  # [N, H, W, 3]
    host = pixels.pin_memory() if device.type == "cuda" else pixels
    images = host.to(device).permute(0, 3, 1, 2)
    normalized = scale_to(images, *detector.pipeline.normalization)
    loc, conf = (part.clone() for part in detector.runner(normalized))
    jpeg = _jpeg_bytes()

    def prepare():
        with Image.open(io.BytesIO(jpeg)) as image:
            return resize_image(load_image(image), detector.runner.preprocess)

    def move():
        return host.to(device, non_blocking=True).permute(0, 3, 1, 2)

    return {
        "preparation": (1, prepare),
        "host to device": (batch_size, move),
        "normalization": (batch_size, lambda: scale_to(images, *detector.pipeline.normalization)),
        "network": (batch_size, lambda: detector.runner(normalized)),
        "decode and NMS": (batch_size, lambda: detector.pipeline.postprocessor(loc, conf)),
        "whole": (batch_size, lambda: detector.start(move())()),
    }


def _jpeg_bytes() -> bytes:
    """A JPEG of 640x480 as a camera would write it."""
    pixels = synthetic_pictures(1, seed=config.SEED + 3)[0].permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(_JPEG_SIZE, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
