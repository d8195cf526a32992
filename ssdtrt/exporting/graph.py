"""Assemble a whole ONNX graph: the network of a module, or a detector."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ssdtrt.artifact.tensors import detector_tensors, module_tensors
from ssdtrt.exporting.detections import add_detections, add_normalization
from ssdtrt.exporting.graph_writer import GraphWriter
from ssdtrt.exporting.network import add_network
from ssdtrt.model.ssd import SSD300
from ssdtrt.runners.onnx_runtime import NORMALIZED


def onnx_model(model: SSD300, normalized_by: str | None = None) -> Any:
    """Return a model as an `onnx.ModelProto` for any batch size.

    Args:
        model: The model.
        normalized_by: For a detector how its pictures are prepared, `eval` or `hub`; None for the network alone.

    Raises:
        SsdtrtError: If onnx is not installed.
    """
    graph = GraphWriter()
    inputs, outputs = module_tensors(model.num_classes)
    if normalized_by is None:
        add_network(graph, model, inputs[0].name)
        return graph.model(inputs, outputs)
    for spec in (replace(inputs[0], name=NORMALIZED), *outputs):
        graph.describe(spec)
    inputs, outputs = detector_tensors()
    add_normalization(graph, inputs[0].name, normalized_by)
    add_network(graph, model, NORMALIZED)
    add_detections(graph, model.num_classes)
    return graph.model(inputs, outputs)
