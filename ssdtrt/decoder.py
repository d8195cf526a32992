"""From the network's outputs on a device to detections on the host, with one wait for the device a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.suppression import detect_fixed, settle

MAX_GRAPHS = 4  # shapes that are captured; others run kernel by kernel


class Decoder:
    """Decodes and suppresses: loc [N, 4, A], conf [N, C, A] -> packed [N, K + 1, 6] on the host (see `detect_fixed`).

    On a GPU the steps, which have a constant size, are captured once for each shape as a CUDA graph. `start` hands the
    work to the device and does not wait; the returned function waits, and is to be called before the next `start`.
    """

    def __init__(self, device: torch.device, max_detections: int = config.MAX_DETECTIONS):
        self.device, self.max_detections = device, max_detections
        self.default_boxes = default_boxes().to(device)
        self.graphs: dict[tuple, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]] = {}

    def __call__(self, loc: Tensor, conf: Tensor) -> Tensor:
        """`start`, and then the wait."""
        return self.start(loc, conf)()

    def start(self, loc: Tensor, conf: Tensor) -> Callable[[], Tensor]:
        """Begins; what is returned gives the packed detections of every picture, settled."""
        loc, conf, packed = self._steps(loc, conf)(loc, conf)
        host = to_host(packed)

        def finish() -> Tensor:
            found = host()
            if bool(found[:, -1, 1].all()):
                return found
            with torch.no_grad():
                return settle(packed.clone(), loc, conf, self.default_boxes).cpu()

        return finish

    def _steps(self, loc: Tensor, conf: Tensor):
        shape = (*conf.shape, conf.dtype, loc.dtype)
        if self.device.type == "cuda" and shape not in self.graphs and len(self.graphs) < MAX_GRAPHS:
            self.graphs[shape] = self._capture(loc, conf)
        return self.graphs.get(shape, self._plain)

    def _plain(self, loc: Tensor, conf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            return loc, conf, detect_fixed(loc, conf, self.default_boxes, self.max_detections)

    def _capture(self, loc: Tensor, conf: Tensor):
        """A function that copies its inputs to where a CUDA graph reads them, and replays it."""
        loc, conf = loc.clone(), conf.clone()
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._plain(loc, conf)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may pin memory meanwhile, which a stricter mode forbids.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            packed = self._plain(loc, conf)[2]

        def replay(new_loc: Tensor, new_conf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            loc.copy_(new_loc)
            conf.copy_(new_conf)
            graph.replay()
            return loc, conf, packed

        return replay


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Begins to copy a tensor to the host; what is returned waits for it and gives the copy."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait
