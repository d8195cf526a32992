"""Whether a built engine may become a file: loaded afresh, compared with FP32 eager, and looked at for its precision."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.baseline import eager_model
from ssdtrt.artifact.capabilities import Precision
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.parity import compare
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_batch

_DETECTOR_BOUND = 1e-4  # of a box's edge or a score, both 0..1


def accept(engine: Path, module: Path, request: BuildRequest, device: torch.device) -> ParityReport:
    """Load the built file afresh and compare it with FP32 eager on seeded pictures.

    Args:
        engine: The built file, without metadata.
        module: The module that it was built from.
        request: What was asked of the build.
        device: Where the engine runs.

    Raises:
        ParityError: Where the engine, or the detector around it, is refused; its report holds the figures.
    """
    precision, sizes = request.computes_in, parity_sizes(request)
    reference = eager_model(module, device)
    _check_size(engine, reference, precision)
    if request.capabilities.on_gpu:
        runtime.import_torch_tensorrt()
    loaded = torchscript.load(engine, device)
    network = loaded.engine if request.detector else loaded
    pictures = synthetic_pictures(max(config.PARITY_IMAGES, *sizes), seed=config.SEED + 1).to(device)
    images = normalize(pictures, request.preprocess)
    with contextlib.nullcontext() if request.capabilities.on_gpu else torchscript.fusing():  # As FileRunner runs it.
        report = compare(network, reference, images, precision=precision.name, batch_sizes=sizes)
    if report.failure:
        raise ParityError(report.failure, report)
    if request.detector:
        for size in sizes:
            _check_detector(loaded, pictures[:size], images[:size])
    return report


def parity_sizes(request: BuildRequest) -> Sequence[int]:
    """Return the batch sizes that an engine of this request is compared at."""
    return request.batch_range.sizes if request.batch_range else (1, config.PARITY_BATCH["cpu"])


def _check_detector(detector: torch.jit.ScriptModule, pictures: Tensor, images: Tensor) -> None:
    """Raises ParityError unless it finds in `pictures`, uint8, what its engine's outputs for `images` decode to."""
    with torch.no_grad():
        found = detector(pictures)
        loc, conf = detector.engine(images)
        expected = detect_batch(loc, conf, default_boxes().to(images.device))
    for name, a, b in zip(("boxes", "labels", "scores", "counts"), found, expected):
        difference = float((a.double() - b.double()).abs().max())
        if not difference <= _DETECTOR_BOUND:
            raise ParityError(
                f"The detector's {name} are {difference:.1e} from those of its own engine; nothing was written."
            )


def _check_size(engine: Path, reference: torch.nn.Module, precision: Precision) -> None:
    """Raises ParityError when the file is too large to hold weights of this precision."""
    limit = precision.max_bytes_per_parameter
    if limit is None:
        return
    per_parameter = engine.stat().st_size / sum(parameter.numel() for parameter in reference.parameters())
    if per_parameter > limit:
        raise ParityError(
            f"The engine is not {precision.title}: it takes {per_parameter:.2f} bytes a parameter, as FP32 weights do; "
            f"expected at most {limit}."
        )
