"""From uint8 images on a device to packed detections on the host: as one CUDA graph where the runner has graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.detection.postprocessor import Pending, Postprocessor
from ssdtrt.images.tensors import normalization, scale_to
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.runner import FileRunner
from ssdtrt.system.devices import current_device
from ssdtrt.system.gpu_errors import gpu_errors, out_of_memory


class Pipeline:
    """Normalization, network, decoding and NMS.

    Where the runner runs its network as a CUDA graph, one graph of the whole takes that graph's place: one launch
    instead of three, and no other memory is held. Otherwise the parts run one after the other.

    Args:
        runner: The network.
        max_detections: K, the most detections of a picture.
        nms_iou: As for Postprocessor.
        times: Takes how long the device works.

    Attributes:
        normalization: The mean and standard deviation of the runner's preprocessing.
        postprocessor: Decodes and suppresses.
        graph: The graph of the whole; None where the runner has none.
    """

    def __init__(
        self,
        runner: FileRunner | EagerRunner,
        max_detections: int = config.MAX_DETECTIONS,
        nms_iou: float = config.NMS_IOU,
        times: StageTimes | None = None,
    ):
        self.times = times or StageTimes()
        self.runner, self.device = runner, runner.device
        self.normalization = normalization(runner.preprocess, self.device)
        self.postprocessor = Postprocessor(self.device, max_detections, nms_iou)
        self.graph = runner.graph_around(self._whole) if isinstance(runner, FileRunner) else None
        self._running: Pending | None = None
        self._warm: set[int] = set()  # sizes of batches

    def start(self, images: Tensor) -> Callable[[], Tensor]:
        """Start to detect in images, and do not wait for it.

        Args:
            images: uint8 [N, 3, 300, 300] on the device.

        Returns:
            A function that waits and returns the packed detections [N, K + 1, 6] on the host, where they stay. It may
            be called after the next `start` too.
        """
        if self._running is not None:
            self._running.wait()  # Of a stream between two results. What it reads on the device is overwritten now.
        self._running = Pending(self._timed(images))
        return self._running.result

    def warm_up(self, count: int) -> None:
        """Run black images where that captures a graph, so that the first pictures do not wait for it.

        Where the memory is too small for them, the first batch finds that out.

        Args:
            count: How many images; 0 for none.
        """
        if not count or self.graph is None or count in self._warm:
            return
        if self._running is not None:
            self._running.wait()
        self._warm.add(count)
        shape = count, 3, config.IMAGE_SIZE, config.IMAGE_SIZE
        with gpu_errors():
            try:
                self._start(torch.zeros(shape, dtype=torch.uint8, device=self.device))()
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise

    def _timed(self, images: Tensor) -> Callable[[], Tensor]:
        """Start, and add the time of the device once it has finished."""
        if self.device.type != "cuda":
            with self.times.busy("network"):
                return self._start(images)
        with current_device(self.device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            finish = self._start(images)
            end.record()

        def finish_timed() -> Tensor:
            result = finish()
            end.synchronize()
            self.times.add("network", start.elapsed_time(end) / 1e3)
            return result

        return finish_timed

    def _start(self, images: Tensor) -> Callable[[], Tensor]:
        if self.graph is None:
            return self.postprocessor.start(*self.runner(scale_to(images, *self.normalization)))
        with current_device(self.device):
            return self.postprocessor.to_host(*self.graph(images))

    def release(self) -> None:
        """Free the captured graphs and the memory that they hold."""
        if self._running is not None:
            self._running.wait()
        if self.graph is not None:
            self.graph.release()
        self._warm.clear()
        self.postprocessor.release()

    def _whole(self, network: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is captured: uint8 images [N, 3, 300, 300] -> loc, conf and packed detections."""
        return self.postprocessor.detect(*network(scale_to(images, *self.normalization)))
