"""Accept or refuse a built engine: load it, compare it with FP32 eager, and check its precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.layers import EngineLayer, arithmetic_by_dtype
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.precision import Precision
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.parity import compare
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_batch
from ssdtrt.runners import runtime, torchscript
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.tensorrt_engine import PlanNetwork, TensorRTEngine

_TYPED_SHARE = 0.95  # of the multiplications, in the precision of the engine
_DETECTOR_BOUND = 1e-4  # absolute difference of a box coordinate or a score, both 0..1


def accept(engine: Path, module: Path, request: BuildRequest, device: torch.device) -> ParityReport:
    """Load a built file and compare it with FP32 eager on seeded synthetic pictures.

    Args:
        engine: The built file, without metadata.
        module: The module that it was built from.
        request: The build request.
        device: The device that the engine runs on.

    Raises:
        ParityError: If the engine, or the detector around it, is refused.
    """
    precision, sizes = request.computes_in, _parity_sizes(request)
    reference = eager_model(module, device)
    _check_size(engine, reference, precision)
    loaded = _load(engine, request, device)
    network = loaded.engine if request.detector else loaded
    pictures = synthetic_pictures(max(config.PARITY_IMAGES, *sizes), seed=config.SEED + 1).to(device)
    images = normalize(pictures, request.preprocess)
    with contextlib.nullcontext() if request.capabilities.on_gpu else torchscript.fusing():  # As in FileRunner.
        report = compare(network, reference, images, precision=precision.name, batch_sizes=sizes)
    if report.failure:
        raise ParityError(report.failure, report)
    if request.detector:
        for size in sizes:
            _check_detector(loaded, pictures[:size], images[:size])
    return report


def check_types(layers: Iterable[EngineLayer], precision: Precision) -> None:
    """Check that an engine does its arithmetic in a precision, as far as TensorRT tells the types of its layers.

    Raises:
        ParityError: If less than 95 % of the multiplications are in that precision.
    """
    shares = arithmetic_by_dtype(layers)
    if shares and shares.get(precision.name, 0.0) < _TYPED_SHARE:
        found = ", ".join(f"{100 * share:.1f} % in {name}" for name, share in shares.items())
        raise ParityError(
            f"The engine is not {precision.title}: of its multiplications {found}; expected at least "
            f"{100 * _TYPED_SHARE:.0f} % in {precision.name}."
        )


def _load(engine: Path, request: BuildRequest, device: torch.device) -> Any:
    """Return the network in a built file."""
    batch = request.batch_range
    if request.format == "plan" and batch is not None:
        return PlanNetwork(TensorRTEngine(engine.read_bytes(), device), batch.min)
    if request.capabilities.on_gpu:
        runtime.import_torch_tensorrt()
    return torchscript.load(engine, device)


def _parity_sizes(request: BuildRequest) -> Sequence[int]:
    """Return the batch sizes at which an engine of this request is compared."""
    return request.batch_range.sizes if request.batch_range else (1, config.PARITY_BATCH["cpu"])


def _check_detector(detector: torch.jit.ScriptModule, pictures: Tensor, images: Tensor) -> None:
    """Raise ParityError unless the detections in `pictures`, uint8, are those decoded from its engine's outputs."""
    with torch.no_grad():
        found = detector(pictures)
        loc, conf = detector.engine(images)
        expected = detect_batch(loc, conf, default_boxes().to(images.device))
    for name, a, b in zip(("boxes", "labels", "scores", "counts"), found, expected):
        difference = float((a.double() - b.double()).abs().max())
        if not difference <= _DETECTOR_BOUND:
            raise ParityError(
                f"The detector's {name} differ by {difference:.1e} from those of its own engine; expected at most "
                f"{_DETECTOR_BOUND:.0e}. Nothing was written."
            )


def _check_size(engine: Path, reference: torch.nn.Module, precision: Precision) -> None:
    """Raise ParityError if the file is too large for weights of this precision."""
    limit = precision.max_bytes_per_parameter
    if limit is None:
        return
    per_parameter = engine.stat().st_size / sum(parameter.numel() for parameter in reference.parameters())
    if per_parameter > limit:
        raise ParityError(
            f"The engine is not {precision.title}: it takes {per_parameter:.2f} bytes per parameter, as FP32 weights "
            f"do; expected at most {limit}."
        )
