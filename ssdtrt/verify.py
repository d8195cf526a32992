"""A saved engine against the FP32 model that it was built from, on pictures of one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.engine import parity
from ssdtrt.errors import ArtifactError
from ssdtrt.system.gpu_errors import gpu_errors
from ssdtrt.images.tensors import synthetic_images, to_batch
from ssdtrt.images.decode import load_image
from ssdtrt.results import ParityReport
from ssdtrt.artifact.runner import eager_model, find_module, load_engine


@gpu_errors()
def verify_engine(
    path: str | Path = config.ENGINE_FILE,
    pictures: Sequence[str | Path] = (),
    *,
    module: str | Path | None = None,
    device: str | torch.device | None = None,
    sha256: str | None = None,
) -> ParityReport:
    """Compares the file with FP32 eager on `pictures`, or on seeded ones where none is given.

    `sha256` is the digest that the file must have. The report says whether it passed; what cannot be compared raises
    ArtifactError (also where the module that the engine was built from is not found), CompileError, GpuError or
    ImageError.
    """
    for picture in pictures:
        if not os.path.isfile(picture):
            load_image(picture)  # Says what is wrong with it, before anything else takes time.
    runner = load_engine(path, device, sha256=sha256)
    place, reason = find_module(runner, module)
    if place is None:
        raise ArtifactError(f"{path} cannot be verified: {reason}.")
    if pictures:
        images = to_batch(pictures, runner.preprocess)
    else:
        images = synthetic_images(config.PARITY_IMAGES, config.SEED + 1, runner.preprocess)
    sizes = runner.batch.sizes if runner.batch else (config.PARITY_BATCH[runner.device.type],)
    return parity.compare(
        runner,
        eager_model(place, runner.device),
        images.to(runner.device),
        precision=runner.precision,
        batch_sizes=sizes,
    )
