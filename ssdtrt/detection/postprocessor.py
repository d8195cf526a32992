"""From the network's outputs on a device to detections on the host, with one wait for the device a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_exact, detect_fixed, detect_incomplete
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.system.devices import current_device


class Postprocessor:
    """Decodes boxes and suppresses: loc [N, 4, A], conf [N, C, A] -> packed [N, K + 1, 6] on the host.

    The packed form is that of `detect_fixed`. On a GPU the steps, which have a constant size, are captured once for
    each shape as a CUDA graph, whose outputs the next call overwrites. So are, for one picture, the steps for pictures
    with too many candidates: a larger batch hides how long the host takes to launch them.

    Args:
        device: Where the network's outputs are.
        max_detections: K, the most detections of a picture.
        nms_iou: The IoU with a better box of its class from which on a box is suppressed.
    """

    def __init__(
        self, device: torch.device, max_detections: int = config.MAX_DETECTIONS, nms_iou: float = config.NMS_IOU
    ):
        self.device, self.max_detections, self.nms_iou = device, max_detections, nms_iou
        self.default_boxes = default_boxes().to(device)
        on_gpu = device.type == "cuda"
        self.steps = CudaGraphRunner(self.detect, device) if on_gpu else self.detect
        self.steps_of_best = CudaGraphRunner(self.detect_best, device, limit=1) if on_gpu else self.detect_best

    def __call__(self, loc: Tensor, conf: Tensor) -> Tensor:
        """Return the packed detections [N, K + 1, 6] on the host."""
        return self.start(loc, conf)()

    def start(self, loc: Tensor, conf: Tensor) -> Callable[[], Tensor]:
        """Start the work and do not wait for it.

        Args:
            loc: [N, 4, A].
            conf: Logits [N, C, A].

        Returns:
            A function that waits and returns the packed detections [N, K + 1, 6] on the host. Call it before the next
            `start`, which may overwrite what it reads. What it returned stays.
        """
        with current_device(self.device):
            return self.to_host(*self.steps(loc, conf))

    def detect(self, loc: Tensor, conf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Do the fixed steps on the device; return the arguments and the packed detections, for `to_host`."""
        with torch.no_grad():
            return loc, conf, detect_fixed(loc, conf, self.default_boxes, self.max_detections, iou=self.nms_iou)

    def detect_best(self, loc: Tensor, conf: Tensor) -> Tensor:
        """Do the fixed steps with the best candidates, where all are too many; return the packed detections."""
        with torch.no_grad():
            iou = self.nms_iou
            return detect_fixed(loc, conf, self.default_boxes, self.max_detections, use_all=False, iou=iou)

    def to_host(self, loc: Tensor, conf: Tensor, packed: Tensor) -> Callable[[], Tensor]:
        """Start to copy what `detect` returned to the host, and return what `start` returns."""
        host = to_host(packed)

        def finish() -> Tensor:
            found = host()
            if bool(found[:, -1, 1].all()):
                return found
            with current_device(self.device), torch.no_grad():
                return self._complete(packed, loc, conf)

        return finish

    def release(self) -> None:
        """Free the captured graphs and the memory that they hold."""
        for steps in (self.steps, self.steps_of_best):
            if isinstance(steps, CudaGraphRunner):
                steps.release()

    def _complete(self, packed: Tensor, loc: Tensor, conf: Tensor) -> Tensor:
        """The packed detections on the host, where those of some pictures are not complete."""
        if len(packed) > 1:
            return detect_incomplete(packed.clone(), loc, conf, self.default_boxes, self.nms_iou).cpu()
        found = to_host(self.steps_of_best(loc, conf))()
        if bool(found[0, -1, 1]):
            return found
        return detect_exact(loc, conf, self.default_boxes, self.max_detections, self.nms_iou).cpu()


class Pending:
    """A result that the device is still computing: what `Postprocessor.start` returned, called only once.

    Its error is kept too, for who asks for the result.
    """

    def __init__(self, finish: Callable[[], Tensor]):
        self._finish: Callable[[], Tensor] | None = finish
        self._result: Tensor | None = None
        self._error: Exception | None = None

    def wait(self) -> None:
        """Wait until the result is on the host, where it stays; raises nothing that the device fails with."""
        if self._finish is None:
            return
        try:
            self._result = self._finish()
        except Exception as error:
            self._error = error.with_traceback(None)  # Its frames would hold what filled the memory.
        self._finish = None  # It holds the outputs, which may be the memory of a graph.

    def result(self) -> Tensor:
        """Wait, and return the result or raise its error."""
        self.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor to the host; the returned function waits for the copy and returns it."""
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
