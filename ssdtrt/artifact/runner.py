"""From a saved file to a runner: something that is called with images and returns `loc` and `conf`."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.capabilities import Backend
from ssdtrt.artifact.cuda_graph import CudaGraphRunner
from ssdtrt.artifact.inspection import check_fits
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, check_file
from ssdtrt.errors import ArtifactError, CompileError
from ssdtrt.model.nms import PaddedDetections
from ssdtrt.system.devices import current_device, pick_device
from ssdtrt.system.gpu_errors import gpu_errors


class FileRunner:
    """A loaded file. Called with images [N, 3, 300, 300] it returns (loc [N, 4, A], conf [N, C, A]), float32.

    With `cuda_graph` each batch size is captured at its first call as a CUDA graph, and what a call returns is
    overwritten by the next of that size; of a TensorRT engine only the last size is kept, and another is captured anew.

    Attributes:
        path: The file.
        metadata: What the file records.
        device: Where it runs.
        batch: The BatchRange of a TensorRT engine; None where any batch size will do.
        is_detector: Whether the file is a detector, which `detect` runs; what is called is the engine in it.
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        module: torch.jit.ScriptModule,
        device: torch.device,
        cuda_graph: bool = False,
    ):
        self.path, self.metadata, self.device = path, metadata, device
        self.is_detector = metadata.kind == "detector"
        self.module, self._whole = (module.engine if self.is_detector else module), module
        backend = _backend_of(metadata)
        fixed = backend is not None and backend.fixed_batch
        self.graph = CudaGraphRunner(self.module, device, one=fixed) if cuda_graph else None
        self.fusing = torchscript.fusing if backend is not None and not backend.on_gpu else contextlib.nullcontext
        self.batch = metadata.batch_range
        self.asked: dict[str, Any] = {"device": device, "sha256": None, "cuda_graph": cuda_graph}  # Of `load_engine`.

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._check(images)
        with torch.no_grad(), current_device(self.device), self.fusing():
            return (self.graph or self.module)(images.to(self.device, non_blocking=True))

    def detect(self, images: Tensor) -> PaddedDetections:
        """Run a detector file: normalization, network, decoding and NMS.

        Args:
            images: uint8 images [N, 3, 300, 300], 0 to 255, RGB.

        Returns:
            boxes [N, K, 4] (xyxy, 0..1), labels [N, K], scores [N, K] and counts [N]; zeros after each image's count.

        Raises:
            ArtifactError: Where the file is no detector, or for other images.
        """
        if not self.is_detector:
            raise ArtifactError(f"{self.path} is a {self.metadata.kind}; only a detector file detects by itself.")
        self._check(images, torch.uint8)
        with torch.no_grad(), current_device(self.device), self.fusing():
            return self._whole(images.to(self.device, non_blocking=True))

    def place(self, images: Tensor) -> Tensor:
        """Return images where the next call reads them without a copy: in the CUDA graph, or else on the device."""
        self._check(images)
        images = images.to(self.device, non_blocking=True)
        return self.graph.place(images) if self.graph else images

    def __reduce__(self) -> tuple:
        """Another process loads the file anew, on a device of its own where none was asked for."""
        return functools.partial(load_engine, **self.asked), (self.path.absolute(),)

    def _check(self, images: Tensor, dtype: torch.dtype | None = None) -> None:
        """Raises ArtifactError for what the file cannot take: TorchScript's own error is a wall of text."""
        expected = f"images [N, 3, {config.IMAGE_SIZE}, {config.IMAGE_SIZE}]" + (" of uint8" if dtype else "")
        if not isinstance(images, Tensor):
            raise ArtifactError(f"{self.path} takes {expected} as a torch tensor; found {type(images).__name__}.")
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, config.IMAGE_SIZE, config.IMAGE_SIZE):
            raise ArtifactError(f"{self.path} takes {expected}; found {list(images.shape)}.")
        if dtype is not None and images.dtype != dtype:
            raise ArtifactError(f"{self.path} takes {expected}; found {images.dtype}.")
        if dtype is None and not images.is_floating_point():
            raise ArtifactError(f"{self.path} takes {expected} of floats, normalized; found {images.dtype}.")
        largest = self.batch.max if self.batch else None
        if not len(images) or (largest and len(images) > largest):
            most = f" to {largest}" if largest else " or more"
            raise ArtifactError(f"{self.path} takes 1{most} images at once; found {len(images)}.")

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def precision(self) -> str:
        """What the network computes in: fp32, fp16 or bf16."""
        return self.metadata.precision

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, the background first."""
        return self.metadata.model.labels

    @property
    def preprocess(self) -> str:
        """How pictures are prepared for it, `eval` or `hub`: recorded at export."""
        return self.metadata.model.preprocess

    @property
    def trained(self) -> bool:
        """False when the weights are known to be seeded random numbers."""
        return self.metadata.trained


def load_engine(
    path: str | Path,
    device: str | torch.device | None = None,
    *,
    sha256: str | None = None,
    cuda_graph: bool = False,
) -> FileRunner:
    """Load an engine, a detector or a module that ssdtrt wrote, ready to be called.

    An engine runs where it was built for: a TensorRT engine on a GPU, a TorchScript engine on the CPU. TorchScript files
    are executable code, so nothing of the file runs until its archive is found intact, its SHA-256 right, and its
    metadata complete and of this machine. Then it is loaded and run once on zeros. The process's current CUDA device
    stays what it was.

    Args:
        path: The file.
        device: `cpu`, `cuda` or `cuda:N`; by default what the file is for, for a module the GPU where there is one.
        sha256: The digest that the file must have; without one, that in `<path>.sha256` where there is one.
        cuda_graph: Whether to launch the network as a CUDA graph, which saves the most at small batches.

    Returns:
        A runner: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]).

    Raises:
        ArtifactError: Where the file is damaged, of another kind, or for another machine.
        CompileError: Where Torch-TensorRT or a GPU is missing.
        GpuError: Where the GPU fails or is full.
    """
    path = Path(path)
    metadata = check_file(path, sha256=sha256)
    chosen = device_for(path, metadata, device)
    if cuda_graph and chosen.type != "cuda":
        raise ArtifactError(f"{path} runs on the CPU here, where there are no CUDA graphs; leave cuda_graph out.")
    backend = _backend_of(metadata)
    if backend is not None and backend.on_gpu:
        check_fits(path, metadata, chosen)
        runtime.import_torch_tensorrt()
    with current_device(chosen):  # A TensorRT engine is deserialized on the current one.
        runner = FileRunner(path, metadata, torchscript.load(path, chosen), chosen, cuda_graph)
        runner.asked = {"device": device, "sha256": sha256, "cuda_graph": cuda_graph}
        warm_up(runner)
    return runner


def warm_up(runner: FileRunner) -> None:
    """Run the file once on zeros, the smallest batch that it takes.

    Raises:
        ArtifactError: Unless it runs and returns finite values.
    """
    count = runner.batch.min if runner.batch else 1
    dtype = torch.uint8 if runner.is_detector else torch.float32
    images = torch.zeros(count, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, dtype=dtype, device=runner.device)
    try:
        with torch.no_grad(), current_device(runner.device), gpu_errors():
            outputs = runner.detect(images) if runner.is_detector else runner(images)
            finite = all(bool(torch.isfinite(output).all()) for output in outputs)  # Waits for the GPU.
    except (RuntimeError, TypeError, torch.jit.Error) as error:
        raise ArtifactError(
            f"{runner.path} was loaded but does not run here ({torchscript.last_line(error)}). Make it again."
        ) from error
    if not finite:
        raise ArtifactError(f"{runner.path} gives values that are not finite for an empty image. Make it again.")


def device_for(path: Path, metadata: Metadata, device: str | torch.device | None) -> torch.device:
    """Return the device that a file runs on; ArtifactError where that is not the one asked for, or is not here."""
    backend = _backend_of(metadata)
    if backend is None:
        return pick_device(device)
    if device is not None and torch.device(device).type != backend.device_type:
        what = "a TensorRT engine" if backend.on_gpu else "a CPU engine"
        raise ArtifactError(f"{path} is {what} and cannot run on {device}; leave --device out.")
    if not backend.on_gpu:
        return torch.device("cpu")
    reason = runtime.why_not()
    if reason:
        raise CompileError(f"{path} is a TensorRT engine. {reason}")
    return pick_device(device)


def _backend_of(metadata: Metadata) -> Backend | None:
    """The back end of an engine; None for a module."""
    return metadata.request.capabilities if isinstance(metadata, EngineMetadata) else None
