"""A function of tensors on a GPU as CUDA graphs: one launch in place of one for each kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssdtrt.system.devices import current_device

MAX_GRAPHS = 4  # shapes that are captured; others run kernel by kernel
WARMUP = 3  # calls before capturing, in which libraries choose and load their kernels


class Captured(NamedTuple):
    """A graph, the tensors that it reads, and what it returns, which each replay writes anew."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    outputs: Any


class CudaGraphRunner:
    """Calls `function` with tensors on a CUDA device and captures it once for each shape and type of its inputs.

    The function must do the same work each time and never wait for the device. What it returns lies where the graph
    writes it: the next call with inputs of the same shape overwrites it. Inputs are copied to where the graph reads
    them; those that `place` returned lie there, and are not copied again. Of a function whose own state changes with the
    shape, as a TensorRT engine's does, a graph holds only until another shape is run: with `one` there is one at a time,
    and another shape is captured anew.
    """

    def __init__(self, function: Callable, device: torch.device, limit: int = MAX_GRAPHS, one: bool = False):
        self.function, self.device, self.limit, self.one = function, device, limit, one
        self.graphs: dict[tuple, Captured] = {}

    def __call__(self, *inputs: Tensor):
        """What `function` returns for the inputs."""
        captured = self._captured(inputs)
        if captured is None:
            with torch.no_grad():
                return self.function(*(each.to(self.device) for each in inputs))
        put(inputs, captured.inputs)
        captured.replay()
        return captured.outputs

    def place(self, images: Tensor) -> Tensor:
        """Copy the one input to where the graph of its shape reads it; return that tensor, for the next call.

        Beyond `limit` shapes nothing is captured, and the input itself is returned.
        """
        captured = self._captured((images,))
        if captured is None:
            return images
        put((images,), captured.inputs)
        return captured.inputs[0]

    def _captured(self, inputs: tuple[Tensor, ...]) -> Captured | None:
        """The graph for inputs of these shapes and types; None where there are too many others."""
        key = tuple((*each.shape, each.dtype) for each in inputs)
        if self.one and key not in self.graphs:
            self.graphs.clear()
        if key not in self.graphs and len(self.graphs) < self.limit:
            with current_device(self.device), torch.no_grad():
                self.graphs[key] = self._capture(tuple(each.to(self.device).clone() for each in inputs))
        return self.graphs.get(key)

    def _capture(self, inputs: tuple[Tensor, ...]) -> Captured:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                self.function(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may pin memory meanwhile, which a stricter mode forbids.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            outputs = self.function(*inputs)
        return Captured(inputs, graph.replay, outputs)


def put(given: tuple[Tensor, ...], own: tuple[Tensor, ...]) -> None:
    """Copies tensors into others, but for those that are the same."""
    with torch.no_grad():
        for source, target in zip(given, own):
            if source is not target:
                target.copy_(source, non_blocking=True)
