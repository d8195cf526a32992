"""Judge an INT8 engine beside FP32 and FP16: its accuracy, its speed, and how much of it is INT8."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.layers import EngineLayer, arithmetic_by_dtype
from ssdtrt.artifact.quantization import ApRatio, Int8Verdict, LayerCost, decides_ap
from ssdtrt.errors import CalibrationError
from ssdtrt.images.tensors import normalize
from ssdtrt.model.ssd import SSD300
from ssdtrt.quantization.agreement import CONFIDENT, Network, measure_agreement, run
from ssdtrt.quantization.pictures import AnnotatedPictures
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.runners.timing import time_calls
from ssdtrt.system.progress import Progress, silent

_MIN_SEEN = 0.1  # of the pictures: where the network finds less, they are not what it was trained for
_ROUNDS, _CALLS = 10, 10


@dataclass
class Judge:
    """What FP32 says of pictures, and the limits for another network.

    Args:
        model: The FP32 model, on its device.
        pictures: Pictures that the ranges were not measured on, uint8 [N, 3, 300, 300].
        preprocess: `eval` or `hub`.
        batch_size: The batch size in which engines run.
        annotated: Annotated pictures, for the AP.
        min_ap_ratio: The smallest accepted AP, as a share of FP32's.
        trained: Whether the weights are not random ones.
        progress: Called with lines about how far it is.

    Raises:
        CalibrationError: If the network hardly detects anything in the pictures.
    """

    model: SSD300
    pictures: Tensor
    preprocess: str
    batch_size: int
    annotated: AnnotatedPictures | None = None
    min_ap_ratio: float = config.MIN_AP_RATIO
    trained: bool = True
    progress: Progress = silent

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        size = config.EAGER_BATCH[self.device.type]
        self.reference = self._detect(self.model, self.pictures, "detecting with FP32", size)
        seen = sum(bool((scores >= CONFIDENT).any()) for _, _, scores in self.reference)
        if self.trained and seen < _MIN_SEEN * len(self.reference):
            raise CalibrationError(
                f"FP32 detects something in {seen} of {len(self.reference)} pictures; calibrate on pictures like those that the "
                "network was trained for, with objects in a tenth of them at least."
            )
        self.fp32_ap: float | None = None
        if self.annotated is not None:
            found = self._detect(self.model, self.annotated.images, "evaluating FP32", size)
            self.fp32_ap = self.annotated.average_precision(found)

    def ap_of(self, network: Network, batch_size: int) -> ApRatio | None:
        """Return the AP of a network, run in such batches, beside FP32's; None without annotated pictures."""
        if self.annotated is None or self.fp32_ap is None:
            return None
        found = self._detect(network, self.annotated.images, "evaluating INT8", batch_size)
        count = len(self.annotated.ids)
        return ApRatio(count, self.fp32_ap, self.annotated.average_precision(found), self.min_ap_ratio)

    def agrees(self, network: Network, step: str) -> bool:
        """Return whether a network in PyTorch is accurate enough: by its AP if that is decided, or else its detections."""
        size = config.EAGER_BATCH[self.device.type]
        if self.annotated is not None and decides_ap(len(self.annotated.ids)):
            ap = self.ap_of(network, size)
            return ap is not None and ap.failure is None
        found = self._detect(network, self.pictures, step, size)
        return measure_agreement(self.reference, found).failure is None

    def verdict(
        self,
        int8: Network,
        fp16: Network,
        layers: Iterable[EngineLayer],
        *,
        calibrator: str,
        calibration_pictures: int,
        costs: Sequence[LayerCost] = (),
    ) -> Int8Verdict:
        """Judge a network.

        Args:
            int8: The network: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]).
            fp16: The FP16 network of the same batch size.
            layers: The layers of `int8`, as TensorRT tells them.
            calibrator: Recorded in the verdict, as is what follows.
            calibration_pictures: The number of pictures that the ranges were measured on.
            costs: What each convolution costs.
        """
        layers = tuple(layers)
        found = self._detect(int8, self.pictures, "detecting with INT8", self.batch_size)
        times = self._times(int8, fp16)
        return Int8Verdict(
            calibrator=calibrator,
            calibration_pictures=calibration_pictures,
            int8_layers=sum(one.dtype == "int8" for one in layers if one.multiplications),
            int8_share=arithmetic_by_dtype(layers).get("int8", 0.0),
            batch_size=self.batch_size,
            int8_ms=times[0],
            fp16_ms=times[1],
            agreement=measure_agreement(self.reference, found),
            ap=self.ap_of(int8, self.batch_size),
            costs=tuple(costs),
        )

    def _detect(
        self, network: Network, pictures: Tensor, step: str, batch_size: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        return run(network, pictures, self.preprocess, self.device, batch_size, self.progress, step)

    def _times(self, *networks: Callable[..., object]) -> list[float]:
        """Return the median milliseconds of each network, measured in turns; on a GPU as CUDA graphs."""
        self.progress("timing INT8 and FP16")
        copies = -(-self.batch_size // len(self.pictures))
        images = normalize(self.pictures.repeat(copies, 1, 1, 1)[: self.batch_size].to(self.device), self.preprocess)
        on_gpu = self.device.type == "cuda"
        runners = [CudaGraphRunner(network, self.device) if on_gpu else network for network in networks]
        times: list[list[float]] = [[] for _ in runners]
        with torch.no_grad():
            for _ in range(_ROUNDS if on_gpu else 1):
                for runner, samples in zip(runners, times):
                    samples += time_calls(runner, [images], _CALLS if on_gpu else 3)
        return [statistics.median(samples) for samples in times]
