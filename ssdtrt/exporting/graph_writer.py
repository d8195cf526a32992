"""Write an ONNX graph, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssdtrt import __version__, config
from ssdtrt.artifact.metadata import TensorSpec
from ssdtrt.runners.onnx_runtime import check_installed


class GraphWriter:
    """An ONNX graph that grows at its end, with names that say where each tensor comes from.

    Raises:
        SsdtrtError: If onnx is not installed.
    """

    def __init__(self) -> None:
        check_installed("onnx")
        import onnx

        self.onnx = onnx
        self.nodes: list[Any] = []
        self.values: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, operator: str, *inputs: str, name: str = "", outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node, and return the name of its first output.

        Args:
            operator: A standard operator of opset 17.
            inputs: The names of its inputs.
            name: The node's name, and that of its output; by default the operator's, numbered.
            outputs: The names of several outputs.
            attributes: The operator's attributes.
        """
        name = name or f"{operator}/{len(self.nodes)}"
        outputs = outputs or [name]
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs[0]

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """Add a constant, and return its name; the slash in it tells it from the model's weights."""
        return self.tensor(f"constant/{name}", np.asarray(value, dtype))

    def tensor(self, name: str, array: np.ndarray) -> str:
        """Add a tensor that the file holds, and return its name."""
        self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def describe(self, spec: TensorSpec) -> None:
        """Record the type of a tensor inside the graph, by which a part of the graph can be taken out."""
        self.values.append(self._value(spec))

    def model(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Any:
        """Return the graph as an `onnx.ModelProto`."""
        helper = self.onnx.helper
        ends = [[self._value(spec) for spec in specs] for specs in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, "ssd300", *ends, [*self.constants.values()], value_info=self.values)
        opset = helper.make_opsetid("", config.ONNX_OPSET)
        return helper.make_model(
            graph,
            opset_imports=[opset],
            ir_version=config.ONNX_IR_VERSION,
            producer_name="ssdtrt",
            producer_version=__version__,
        )

    def _value(self, spec: TensorSpec) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return self.onnx.helper.make_tensor_value_info(spec.name, kind, spec.shape)
