"""A function of tensors on a GPU as CUDA graphs: one launch in place of one for each kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_GRAPHS = 4  # shapes that are captured; others run kernel by kernel
WARMUP = 3  # calls before capturing, in which libraries choose and load their kernels


class GraphRunner:
    """Calls `function` with tensors on a CUDA device and captures it once for each shape and type of its inputs.

    The function must do the same work each time and never wait for the device. What it returns lies where the graph
    writes it: the next call with inputs of the same shape overwrites it. Inputs are copied to where the graph reads
    them, on the way cast to `dtype` where one is given.
    """

    def __init__(
        self, function: Callable, device: torch.device, dtype: torch.dtype | None = None, limit: int = MAX_GRAPHS
    ):
        self.function, self.device, self.dtype, self.limit = function, device, dtype, limit
        self.graphs: dict[tuple, Callable] = {}

    def __call__(self, *inputs: Tensor):
        """What `function` returns for the inputs."""
        key = tuple((*each.shape, each.dtype) for each in inputs)
        if key not in self.graphs:
            if len(self.graphs) == self.limit:
                with torch.no_grad():
                    return self.function(*(self._placed(each) for each in inputs))
            with torch.cuda.device(self.device), torch.no_grad():
                self.graphs[key] = self._capture([self._placed(each).clone() for each in inputs])
        return self.graphs[key](inputs)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype or tensor.dtype)

    def _capture(self, inputs: list[Tensor]) -> Callable:
        """Copies what it is given to `inputs`, replays, and returns what the graph wrote."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                self.function(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may pin memory meanwhile, which a stricter mode forbids.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self.function(*inputs)

        def replay(new: tuple[Tensor, ...]):
            with torch.no_grad():
                for own, given in zip(inputs, new):
                    own.copy_(given, non_blocking=True)
            graph.replay()
            return outputs

        return replay
