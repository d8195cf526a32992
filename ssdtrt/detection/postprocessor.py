"""From the network's outputs on a device to detections on the host, with one wait for the device a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.cuda_graph import CudaGraphRunner
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_fixed, settle
from ssdtrt.system.devices import current_device


class Postprocessor:
    """Decodes and suppresses: loc [N, 4, A], conf [N, C, A] -> packed [N, K + 1, 6] on the host (see `detect_fixed`).

    On a GPU the steps, which have a constant size, are captured once for each shape as a CUDA graph. `start` hands the
    work to the device and does not wait; the returned function waits, and is to be called before the next `start`.
    """

    def __init__(self, device: torch.device, max_detections: int = config.MAX_DETECTIONS):
        self.device, self.max_detections = device, max_detections
        self.default_boxes = default_boxes().to(device)
        self.steps = CudaGraphRunner(self._plain, device) if device.type == "cuda" else self._plain

    def __call__(self, loc: Tensor, conf: Tensor) -> Tensor:
        """`start`, and then the wait."""
        return self.start(loc, conf)()

    def start(self, loc: Tensor, conf: Tensor) -> Callable[[], Tensor]:
        """Begins; what is returned gives the packed detections of every picture, settled."""
        with current_device(self.device):
            loc, conf, packed = self.steps(loc, conf)
            host = to_host(packed)

        def finish() -> Tensor:
            found = host()
            if bool(found[:, -1, 1].all()):
                return found
            with current_device(self.device), torch.no_grad():
                return settle(packed.clone(), loc, conf, self.default_boxes).cpu()

        return finish

    def release(self) -> None:
        """Frees what was captured, and the memory that it holds."""
        if isinstance(self.steps, CudaGraphRunner):
            self.steps.graphs.clear()

    def _plain(self, loc: Tensor, conf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            return loc, conf, detect_fixed(loc, conf, self.default_boxes, self.max_detections)


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Begins to copy a tensor to the host; what is returned waits for it and gives the copy."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait
