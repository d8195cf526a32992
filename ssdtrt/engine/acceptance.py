"""Accept or refuse a built engine: its distance to FP32 eager, its precision, and whether it repeats its results."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.layers import EngineLayer, arithmetic_by_dtype
from ssdtrt.artifact.parity_report import ParityReport, Repeatability
from ssdtrt.artifact.precision import Precision
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.parity import Runner, compare_outputs, comparison_bar, relative_l2, run_in_sizes
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_batch
from ssdtrt.runners import runtime, torchscript
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.runners.tensorrt_engine import load_plan
from ssdtrt.system.devices import current_device
from ssdtrt.system.progress import Progress, silent, tracked

_TYPED_SHARE = 0.95  # of the multiplications, in the precision of the engine
_DETECTOR_BOUND = 1e-4  # absolute difference of a box coordinate or a score, both 0..1


def accept(
    engine: Path, module: Path, request: BuildRequest, device: torch.device, progress: Progress = silent
) -> ParityReport:
    """Load a built file, compare it with FP32 eager on seeded synthetic pictures, and check that it repeats its results.

    Args:
        engine: The built file, without metadata.
        module: The module that it was built from.
        request: The build request.
        device: The device that the engine runs on.
        progress: Called with lines about how far it is.

    Raises:
        ParityError: If the engine, or the detector around it, is refused.
    """
    precision, sizes, places = request.computes_in, _parity_sizes(request), _place_sizes(request)
    reference = eager_model(module, device)
    _check_size(engine, reference, precision)
    loaded = load_built(engine, request, device)
    network = loaded.engine if request.detector else loaded
    compared = max(config.PARITY_IMAGES, *sizes)
    pictures = synthetic_pictures(max(compared, *places), seed=config.SEED + 1).to(device)
    images = normalize(pictures, request.preprocess)
    with contextlib.nullcontext() if request.capabilities.on_gpu else torchscript.fusing():  # As in FileRunner.
        bar = comparison_bar(progress, images[:compared], sizes)
        found = run_in_sizes(network, images[:compared], sizes, bar)
        report = compare_outputs(
            found, reference, images[:compared], bar, precision=precision.name, quantization=request.quantization
        )
        if report.failure is None:
            repeatability = measure_repeatability(network, images, places, precision, found.get(1), progress)
            report = msgspec.structs.replace(report, repeatability=repeatability)
    if report.failure:
        raise ParityError(report.failure, report)
    if request.detector:
        for size in sizes:
            _check_detector(loaded, pictures[:size], images[:size])
    return report


def measure_repeatability(
    network: Runner,
    images: Tensor,
    batch_sizes: Sequence[int],
    precision: Precision,
    known: tuple[Tensor, Tensor] | None = None,
    progress: Progress = silent,
) -> Repeatability:
    """Run an engine in batches of several sizes, each one twice, and on a GPU as a CUDA graph too.

    The images in the first, the middle and the last place of a batch are compared with themselves alone, in the smallest
    batch that the engine takes. Whether a second run gives the same is seen in every batch on a GPU, and with one image
    on a CPU, where a run takes long.

    Args:
        network: The engine.
        images: Different normalized images on the device of the engine, at least as many as the largest batch size.
        batch_sizes: The batch sizes, in ascending order.
        precision: The precision of the engine.
        known: The outputs of the first images, if the engine has run each of them alone.
        progress: Called with lines about how many batch sizes are done.
    """
    again, in_graph, found = [], [], []
    with torch.no_grad(), current_device(images.device):
        alone = _run_alone(network, images, {place for size in batch_sizes for place in _places(size)}, known)
        if not images.is_cuda:
            last = max(alone)  # TorchScript fuses a network in its first calls, which changes the rounding.
            again.append(_distance(_copied(network, images[last : last + 1]), alone[last]))
        for size in tracked(batch_sizes, progress, "checking that results repeat", "batch size"):
            batch = images[:size]
            outputs = alone[0] if size == 1 else _copied(network, batch)
            for place in _places(size):
                row = [output[place : place + 1] for output in outputs]
                found.append((_distance(row, alone[place]), size, place))
            if images.is_cuda:  # Before the next size, which makes the graph of an engine with one context invalid.
                again.append(_distance(_copied(network, batch), outputs))
                in_graph.append(_distance(_copied(CudaGraphRunner(network, images.device), batch), outputs))
    worst, size, place = max(found)
    return Repeatability(
        tuple(batch_sizes), precision.batch_bound, worst, size, place, max(again), max(in_graph, default=None)
    )


def _run_alone(
    network: Runner, images: Tensor, wanted: Iterable[int], known: tuple[Tensor, Tensor] | None
) -> dict[int, list[Tensor]]:
    """Return the outputs of each wanted image alone: the known ones, or else from a run."""
    count = len(known[0]) if known else 0
    return {
        i: [part[i : i + 1] for part in known] if known and i < count else _copied(network, images[i : i + 1])
        for i in sorted(wanted)
    }


def _places(size: int) -> list[int]:
    """Return the first, the middle and the last place of a batch."""
    return sorted({0, size // 2, size - 1})


def _copied(network: Callable[[Tensor], Sequence[Tensor]], images: Tensor) -> list[Tensor]:
    """Return copies of the outputs, which no later run overwrites."""
    return [output.clone() for output in network(images)]


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest relative L2 distance of an image's output; infinite where one is not finite."""
    distances = [relative_l2(a, b) for one, other in zip(found, expected) for a, b in zip(one, other)]
    return max(math.inf if math.isnan(distance) else distance for distance in distances)


def check_types(layers: Iterable[EngineLayer], request: BuildRequest) -> None:
    """Check that an engine does its arithmetic in the precision of its request, as far as TensorRT tells the types.

    Of an INT8 engine, the layers that stay in FP16 may be in FP16.

    Raises:
        ParityError: If less than 95 % of the multiplications are in that precision.
    """
    layers, precision = tuple(layers), request.computes_in
    shares = arithmetic_by_dtype(layers)
    kept = request.quantization.keep_fp16 if request.quantization else ()
    counted = [
        msgspec.structs.replace(one, dtype=precision.name)
        if one.dtype == "fp16" and any(name in one.name for name in kept)
        else one
        for one in layers
    ]
    if shares and arithmetic_by_dtype(counted).get(precision.name, 0.0) < _TYPED_SHARE:
        found = ", ".join(f"{100 * share:.1f} % in {name}" for name, share in shares.items())
        raise ParityError(
            f"The engine is not {precision.title}: of its multiplications {found}; expected at least "
            f"{100 * _TYPED_SHARE:.0f} % in {precision.name}{' or in layers kept in FP16' if kept else ''}."
        )


def load_built(engine: Path, request: BuildRequest, device: torch.device) -> Any:
    """Return the network in a built file, which has no metadata yet: a plan, an EngineModule or a DetectorModule."""
    batch = request.batch_range
    if request.format == "plan" and batch is not None:
        return load_plan(engine.read_bytes(), device, batch.min)
    if request.capabilities.on_gpu:
        runtime.import_torch_tensorrt()
    return torchscript.load(engine, device)


def _parity_sizes(request: BuildRequest) -> Sequence[int]:
    """Return the batch sizes at which an engine of this request is compared."""
    return request.batch_range.sizes if request.batch_range else (1, config.PARITY_BATCH["cpu"])


def _place_sizes(request: BuildRequest) -> tuple[int, ...]:
    """Return the batch sizes in which the places are compared: those of the range, and an odd one between them."""
    batch = request.batch_range
    if batch is None:
        return config.PLACE_BATCHES
    odd = (batch.min + batch.max) // 2 | 1
    return tuple(sorted({*batch.sizes, odd} if odd < batch.max else batch.sizes))


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
