"""Compare what was exported with the eager model, before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.artifact.tensors import detector_tensors
from ssdtrt.engine.parity import relative_l2
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import PaddedDetections, detect_batch
from ssdtrt.model.ssd import SSD300
from ssdtrt.runners.onnx_runtime import LOC_CONF, part
from ssdtrt.runners.runner import load_engine
from ssdtrt.system.progress import Progress, silent, tracked
from ssdtrt.system.report import counted

_BATCHES = (1, 3)
_CPU = torch.device("cpu")
# Of the detections. Where two scores, or an IoU and its threshold, differ by less than float32's rounding, two exact
# implementations may decide differently, so a few may have no counterpart.
_TOLERANCE = 1e-4
_MIN_MATCHED = 0.99


def check_outputs(what: str, found: Sequence[Tensor], expected: Sequence[Tensor], bound: float) -> None:
    """Compare `loc` and `conf` with those of the eager model.

    Raises:
        ParityError: If one's relative L2 distance is above the bound, or not finite.
    """
    for name, one, other in zip(LOC_CONF, found, expected):
        distance = relative_l2(one, other)
        if not distance <= bound:
            raise ParityError(
                f"The {what}'s {name} differs from the eager model's by {distance:.1e} (relative L2); "
                f"expected at most {bound:.0e}. Nothing was written."
            )


def check_graph(model: Any) -> None:
    """Check an `onnx.ModelProto` with onnx's own checker and shape inference.

    Raises:
        ParityError: If they refuse it.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"onnx's checker refuses the graph ({error!s:.200}). Nothing was written.") from error


def check_onnx_file(path: Path, model: SSD300, preprocess: str, progress: Progress = silent) -> None:
    """Load an ONNX file, run it on the CPU in ONNX Runtime, and compare it with the eager model.

    The network is run on synthetic pictures, in two batch sizes. A detector's decoding and NMS are run on synthetic
    `loc` and `conf`, which have detections whatever the weights are.

    Raises:
        ArtifactError: If it cannot be loaded or run.
        ParityError: If it differs from the eager model.
    """
    runner = load_engine(path, _CPU)
    network = part(path, _CPU, ["images"], LOC_CONF) if runner.is_detector else runner
    for size in tracked(_BATCHES, progress, "comparing with eager in ONNX Runtime", "batch size"):
        pictures = synthetic_pictures(size, seed=config.SEED + 1)
        images = normalize(pictures, preprocess)
        with torch.no_grad():
            expected = model(images)
        try:
            found = network(pictures if runner.is_detector else images)
        except RuntimeError as error:
            raise ParityError(
                f"The ONNX file does not run {counted(size, 'image')} ({error!s:.200}). Nothing was written."
            ) from error
        check_outputs("ONNX file", found, expected, PRECISIONS["fp32"].bound)
    if runner.is_detector:
        loc, conf = _synthetic_outputs(model.num_classes)
        names = [spec.name for spec in detector_tensors()[1]]
        _check_detections(part(path, _CPU, LOC_CONF, names)(loc, conf), detect_batch(loc, conf, default_boxes()))


def _synthetic_outputs(num_classes: int) -> tuple[Tensor, Tensor]:
    """Return seeded `loc` [2, 4, A] and `conf` [2, C, A] with more candidates of a class than are taken.

    In the first image all classes have some, in the second only the first few, whose boxes suppress each other.
    """
    generator = torch.Generator().manual_seed(config.SEED)
    loc = torch.randn(2, 4, config.NUM_BOXES, generator=generator)
    conf = 2 * torch.randn(2, num_classes, config.NUM_BOXES, generator=generator)
    conf[1, 4:] -= 20
    return loc, conf


def _check_detections(found: PaddedDetections, expected: PaddedDetections) -> None:
    """Raise ParityError unless the detections of each image are the expected ones, in their order."""
    for i, (count, wanted) in enumerate(zip(found[3].tolist(), expected[3].tolist())):
        boxes, labels, scores = (part[i, :count] for part in found[:3])
        wanted_boxes, wanted_labels, wanted_scores = (part[i, :wanted] for part in expected[:3])
        same = (labels[:, None] == wanted_labels) & ((scores[:, None] - wanted_scores).abs() <= _TOLERANCE)
        same &= (boxes[:, None] - wanted_boxes).abs().amax(dim=2) <= _TOLERANCE  # [K, K]
        matched = min(int(same.any(dim=dim).sum()) for dim in (0, 1))
        ordered = bool((scores.diff() <= 0).all())
        padded = all(not part[i, count:].any() for part in found[:3])
        if not wanted or matched < _MIN_MATCHED * max(count, wanted) or not ordered or not padded:
            raise ParityError(
                f"The ONNX file's detections are not those of the eager detector: of {wanted} in synthetic image {i} "
                f"{matched} are found among {count}; expected all, the best first. Nothing was written."
            )
