"""What TensorRT tells of the layers of an engine: their types from its inspector, their times from its profiler."""

from __future__ import annotations

import json
import math
import re
import statistics
from typing import Any

from torch import Tensor

from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.runners.tensorrt_engine import PlanNetwork, TensorRTEngine
from ssdtrt.system.devices import current_device
from ssdtrt.system.progress import Progress, silent, tracked

# Words for types in the inspector's texts, of which a text has one.
_DTYPES = {
    "fp16": r"fp16|half",
    "bf16": r"bf16|bfloat16",
    "fp8": r"fp8|float8",
    "int8": r"int8",
    "int32": r"int32",
    "int64": r"int64",
    "uint8": r"uint8",
    "bool": r"bool",
    "fp32": r"fp32|float",
}


def layers_of(engine: TensorRTEngine) -> tuple[EngineLayer, ...]:
    """Return the layers of an engine in the order in which they run.

    Types are known for an engine that was built with `ProfilingVerbosity.DETAILED`.
    """
    inspector = engine.engine.create_engine_inspector()
    return parse_layers(inspector.get_engine_information(engine.tensorrt.LayerInformationFormat.JSON))


def parse_layers(information: str) -> tuple[EngineLayer, ...]:
    """Return the layers in the JSON text of TensorRT's engine inspector."""
    return tuple(_parse_layer(layer) for layer in json.loads(information).get("Layers", ()))


def _parse_layer(layer: str | dict[str, Any]) -> EngineLayer:
    if isinstance(layer, str):  # Of an engine without details.
        return EngineLayer(layer, "unknown")
    outputs, weights = layer.get("Outputs") or [{}], layer.get("Weights") or {}
    dtype = _find_dtype(weights.get("Type")) or _find_dtype(outputs[0].get("Format/Datatype"))
    size = outputs[0].get("Dimensions") or []
    count = weights.get("Count")
    # Each weight is used once for each pixel of the output.
    pixels = math.prod(size[2:]) if len(size) == 4 and min(size[2:]) > 0 else None
    multiplications = count * pixels if count and pixels else None
    return EngineLayer(
        str(layer.get("Name", "")),
        str(layer.get("LayerType", "unknown")),
        dtype,
        multiplications,
        str(layer.get("TacticName", "")),
    )


def _find_dtype(text: str | None) -> str | None:
    for name, words in _DTYPES.items():
        if re.search(rf"(?<![a-z0-9])({words})(?![0-9])", (text or "").lower()):
            return name
    return None


def time_layers(
    network: PlanNetwork, images: Tensor, calls: int, warmup: int, progress: Progress = silent
) -> dict[str, float]:
    """Time each layer of an engine, one after the other.

    Args:
        network: The engine.
        images: Images [N, 3, 300, 300] on its device.
        calls: How many calls are timed.
        warmup: How many calls precede them.
        progress: Called with lines about how many calls are done.

    Returns:
        The median of the milliseconds of each layer, by its name.
    """
    profiler = _make_profiler(network.engine.tensorrt)
    with current_device(network.engine.device):
        for _ in range(warmup):
            network(images)
        network.attach(profiler)
        for _ in tracked(range(calls), progress, "timing each layer", "call"):
            network(images)
            network.report_layer_times()
    return {name: statistics.median(times) for name, times in profiler.times.items()}


def _make_profiler(tensorrt: Any) -> Any:
    """Return a TensorRT profiler that collects the milliseconds of each layer in `times`."""

    class Profiler(tensorrt.IProfiler):
        def __init__(self) -> None:
            tensorrt.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            self.times.setdefault(name, []).append(milliseconds)

    return Profiler()
