"""Write SSD300 as ONNX operators: each layer as it is in the model, with the weights under their names there."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ssdtrt.exporting.graph_writer import GraphWriter
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.model.ssd import SSD300
from ssdtrt.runners.onnx_runtime import LOC_CONF


def add_network(graph: GraphWriter, model: SSD300, images: str) -> None:
    """Add the network, from normalized images [N, 3, 300, 300] to `loc` [N, 4, A] and `conf` [N, C, A]."""
    features = _add(graph, images, model.feature_extractor, "feature_extractor")
    maps = [features]
    for i, block in enumerate(model.additional_blocks):
        features = _add(graph, features, block, f"additional_blocks.{i}")
        maps.append(features)
    for name, rows in zip(LOC_CONF, (4, model.num_classes)):
        parts = []
        for i, head in enumerate(getattr(model, name)):
            shape = graph.constant(f"{name}.{i}.shape", [-1, rows, model.boxes_per_map[i]], np.int64)
            parts.append(graph.add("Reshape", _add(graph, maps[i], head, f"{name}.{i}"), shape))
        graph.add("Concat", *parts, name=name, axis=2)


def _add(graph: GraphWriter, x: str, module: nn.Module, name: str) -> str:
    """Add the layers of the module that has this name in the model, and return its output for `x`."""
    if isinstance(module, nn.Sequential):
        for key, child in module.named_children():
            x = _add(graph, x, child, f"{name}.{key}")
        return x
    if isinstance(module, Bottleneck):
        return _add_block(graph, x, module, name)
    if isinstance(module, nn.Conv2d):
        weights = [
            _weight(graph, module, name, part) for part in ("weight", "bias")[: 2 if module.bias is not None else 1]
        ]
        return graph.add("Conv", x, *weights, name=f"{name}/Conv", **_window(module))
    if isinstance(module, nn.BatchNorm2d):
        weights = [_weight(graph, module, name, part) for part in ("weight", "bias", "running_mean", "running_var")]
        return graph.add("BatchNormalization", x, *weights, name=f"{name}/BatchNormalization", epsilon=module.eps)
    if isinstance(module, nn.ReLU):
        return graph.add("Relu", x)
    if isinstance(module, nn.MaxPool2d):
        return graph.add("MaxPool", x, **_window(module))
    raise TypeError(f"{type(module).__name__} is not a layer of SSD300")


def _add_block(graph: GraphWriter, x: str, block: Bottleneck, name: str) -> str:
    """Add a bottleneck block."""
    y = x
    for i in (1, 2, 3):
        y = _add(graph, y, getattr(block, f"conv{i}"), f"{name}.conv{i}")
        y = _add(graph, y, getattr(block, f"bn{i}"), f"{name}.bn{i}")
        y = graph.add("Relu", y) if i < 3 else y
    if block.downsample is not None:
        x = _add(graph, x, block.downsample, f"{name}.downsample")
    return graph.add("Relu", graph.add("Add", y, x))


def _weight(graph: GraphWriter, module: nn.Module, name: str, part: str) -> str:
    return graph.tensor(f"{name}.{part}", getattr(module, part).detach().cpu().numpy())


def _window(module: nn.Conv2d | nn.MaxPool2d) -> dict[str, Any]:
    """Return the attributes of a convolution's or a pooling's window."""
    size, stride, padding = (_pair(part) for part in (module.kernel_size, module.stride, module.padding))
    return {"kernel_shape": size, "strides": stride, "pads": padding * 2}


def _pair(size: Any) -> list[int]:
    """Return a size as [height, width]."""
    return [size, size] if isinstance(size, int) else list(size)
