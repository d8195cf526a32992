"""Compare a saved engine with the FP32 model that it was built from, on given pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.detection.settings import check_settings
from ssdtrt.engine.parity import compare
from ssdtrt.errors import ArtifactError
from ssdtrt.images.decode import load_image
from ssdtrt.images.levels import ValueRange
from ssdtrt.images.tensors import synthetic_images, to_batch
from ssdtrt.reading.addresses import AddressRules
from ssdtrt.reading.fetch import Fetcher, can_be_read
from ssdtrt.reading.sources import expand
from ssdtrt.runners.baseline import eager_model, find_module
from ssdtrt.runners.runner import load_engine
from ssdtrt.system.gpu_errors import gpu_errors
from ssdtrt.system.progress import Progress, silent


@gpu_errors()
def verify_engine(
    path: str | Path = config.ENGINE_FILE,
    pictures: str | Path | Sequence[str | Path] = (),
    *,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    sha256: str | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    allow_private: bool = False,
    max_bytes: int = config.MAX_BYTES,
    timeout: float = config.FETCH_SECONDS,
    progress: Progress = silent,
    note: Progress = silent,
) -> ParityReport:
    """Compare a file with FP32 eager, by the criteria of `compile_engine`.

    Args:
        path: The engine, detector or module.
        pictures: The pictures to compare on: files, addresses, folders, patterns, or `-` for a list on stdin (see
            `expand` in `ssdtrt.reading.sources`); by default seeded synthetic ones.
        module: The module that the engine was built from; by default the recorded file name, in the engine's folder or
            the current one.
        device: `cpu`, `cuda` or `cuda:N`; by default the device that the file was built for.
        sha256: The SHA-256 that the file must have.
        value_range: Which values of pictures of more than 8 bits become black and white (see `load_image`).
        max_pixels: The most pixels of a picture (see `load_image`).
        allow_private: Whether pictures are also fetched from this machine and from private networks.
        max_bytes: The most bytes of a picture that is fetched.
        timeout: Seconds in which one must be there, all in all.
        progress: Called with lines about how far it is.
        note: Called with what was left out of a folder, and what is to be known about how a picture was read.

    Returns:
        The distances, whether they pass (`passed`), and the reason if they do not (`failure`).

    Raises:
        ArtifactError: If the file or its module cannot be used.
        CompileError: If Torch-TensorRT or a GPU is missing.
        GpuError: If the GPU fails.
        ImageError: If a picture cannot be read, or there is none in a folder, pattern or list.

    Example:
        >>> from ssdtrt import verify_engine
        >>> report = verify_engine("ssd300.engine.ts", ["street.jpg"])
        >>> report.passed, report.images, report.bound
        (True, 1, 0.0001)
    """
    check_settings(0, value_range=value_range, max_pixels=max_pixels, max_bytes=max_bytes, timeout=timeout)
    fetcher = Fetcher(AddressRules(allow_private, max_bytes, timeout))
    found = [fetcher.opened(picture) for picture in expand(pictures, addresses=True, note=note)]
    for picture in found:
        if not can_be_read(picture):
            load_image(picture)  # Raises, before the slow steps.
    runner = load_engine(path, device, sha256=sha256)
    place, reason = find_module(runner, module)
    if place is None:
        raise ArtifactError(f"{path} cannot be verified: {reason}.")
    if found:
        images = to_batch(found, runner.preprocess, value_range, max_pixels, note, progress)
    else:
        images = synthetic_images(config.PARITY_IMAGES, config.SEED + 1, runner.preprocess)
    sizes = runner.batch.sizes if runner.batch else (config.PARITY_BATCH[runner.device.type],)
    return compare(
        runner,
        eager_model(place, runner.device),
        images.to(runner.device),
        precision=runner.precision,
        batch_sizes=sizes,
        quantization=getattr(getattr(runner.metadata, "request", None), "quantization", None),
        progress=progress,
    )
