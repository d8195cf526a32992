"""Run a function of GPU tensors as a CUDA graph: one launch for all of its kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssdtrt.system.devices import current_device

MAX_GRAPHS = 4  # that are kept
_WARMUP = 3  # calls before the capture, in which libraries choose and load their kernels


class _Captured(NamedTuple):
    """A captured graph: the tensors that it reads, the outputs that each replay overwrites, and what was captured."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    outputs: Any
    function: Callable[..., Any]


class CudaGraphRunner:
    """Capture a function as a CUDA graph, once for each shape and dtype of its inputs, and replay it.

    The outputs are tensors of the graph: the next call with inputs of the same shape overwrites them. Inputs are copied
    to the tensors that the graph reads, unless they are those tensors, as `place` returns them.

    Args:
        function: Takes and returns tensors on the device. It must do the same work in every call, and never wait for
            the device.
        device: The CUDA device.
        limit: How many graphs are kept; the one that was not used for the longest time makes room for another shape. A
            TensorRT engine in Torch-TensorRT has one context, so that running it with another shape invalidates the
            graph: its limit is 1.
        renew: Returns the function to capture, if each graph needs one of its own, as with execution contexts.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        device: torch.device,
        limit: int = MAX_GRAPHS,
        renew: Callable[[], Callable[..., Any]] | None = None,
    ):
        self.function, self.device, self.limit = function, device, limit
        self._renew = renew or (lambda: function)
        self.graphs: dict[tuple[Any, ...], _Captured] = {}  # The last one was used last.
        self._whose: tuple[object, ...] = ()

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the function returns for the inputs."""
        captured = self._captured(inputs)
        _copy_inputs(inputs, captured.inputs)
        captured.replay()
        return captured.outputs

    def around(self, function: Callable[..., Any]) -> CudaGraphRunner:
        """Return a runner of a larger function, which is called with this one's function and the inputs.

        Both share the limit: where it is 1, the graph of either makes room for that of the other, so that none is
        replayed after the other ran with another shape.
        """
        larger = CudaGraphRunner(
            partial(function, self.function), self.device, self.limit, lambda: partial(function, self._renew())
        )
        larger.graphs, larger._whose = self.graphs, (object(),)
        return larger

    def release(self) -> None:
        """Free all graphs, those of `around` too, and the memory that they hold."""
        self.graphs.clear()

    def place(self, images: Tensor) -> Tensor:
        """Copy the only input to the tensor that the graph reads, and return that tensor, for the next call."""
        captured = self._captured((images,))
        _copy_inputs((images,), captured.inputs)
        return captured.inputs[0]

    def _captured(self, inputs: tuple[Tensor, ...]) -> _Captured:
        """Return the graph for inputs of these shapes and dtypes."""
        key = (*self._whose, *((*each.shape, each.dtype) for each in inputs))
        captured = self.graphs.pop(key, None)
        if captured is None:
            if len(self.graphs) >= self.limit:
                del self.graphs[next(iter(self.graphs))]
            with current_device(self.device), torch.no_grad():
                captured = self._capture(tuple(each.to(self.device).clone() for each in inputs))
        self.graphs[key] = captured
        return captured

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        stream, function = torch.cuda.Stream(self.device), self._renew()
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP):
                function(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The stricter modes fail when another thread pins memory during the capture.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            outputs = function(*inputs)
        return _Captured(inputs, graph.replay, outputs, function)


def _copy_inputs(inputs: tuple[Tensor, ...], graph_inputs: tuple[Tensor, ...]) -> None:
    """Copy the inputs to those of a graph, except where they are the same tensors."""
    with torch.no_grad():
        for source, target in zip(inputs, graph_inputs):
            if source is not target:
                target.copy_(source, non_blocking=True)


def copy_outputs(loc: Tensor, conf: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of both outputs, by one copy where they are the parts of one tensor [N, 4 + C, A]."""
    count, rows, size = loc.shape
    if loc.stride() != conf.stride() or conf.data_ptr() != loc.data_ptr() + rows * size * loc.element_size():
        return loc.clone(), conf.clone()
    whole = loc.as_strided((count, rows + conf.shape[1], size), loc.stride()).clone()
    return whole[:, :rows], whole[:, rows:]
