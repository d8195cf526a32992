"""Load a saved file as a runner, which is called with images and returns `loc` and `conf`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.inspection import check_fits, described, module_path
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, check_file
from ssdtrt.artifact.precision import Backend
from ssdtrt.errors import ArtifactError, CompileError
from ssdtrt.model.nms import PaddedDetections
from ssdtrt.runners import onnx_runtime, runtime, torchscript
from ssdtrt.runners.cuda_graph import MAX_GRAPHS, CudaGraphRunner, copy_outputs
from ssdtrt.runners.tensorrt_engine import PlanNetwork, load_plan, plan_in_archive
from ssdtrt.system.devices import current_device, named_device, pick_device
from ssdtrt.system.gpu_errors import gpu_errors
from ssdtrt.system.report import html_table


class FileRunner:
    """A loaded file as a callable: images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    `load_engine` makes one. With a CUDA graph the first call with a batch size captures it, and later calls with that
    size replay it. The graphs of four sizes are kept. A TensorRT engine that only Torch-TensorRT can run (of one size, of
    the front end torchscript, or in a detector) keeps that of the last number of images.

    Attributes:
        path: The file.
        metadata: The metadata of the file.
        device: The device that it runs on.
        batch: The BatchRange of a TensorRT engine; None for a file that takes any batch size.
        is_detector: Whether the file is a detector. Then `detect` runs all of it, and a call runs only its engine.

    Example:
        >>> import torch
        >>> from ssdtrt import load_engine
        >>> runner = load_engine("ssd300.engine.ts")
        >>> runner.precision, runner.device, runner.batch, runner.is_detector
        ('fp32', device(type='cpu'), None, False)
        >>> loc, conf = runner(torch.zeros(2, 3, 300, 300))
        >>> loc.shape, conf.shape
        (torch.Size([2, 4, 8732]), torch.Size([2, 81, 8732]))
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        module: torch.jit.ScriptModule | onnx_runtime.OnnxModule | PlanNetwork,
        device: torch.device,
        cuda_graph: bool = False,
        reuse_outputs: bool = False,
    ):
        self.path, self.metadata, self.device = path, metadata, device
        self.is_detector = metadata.kind == "detector"
        self.module: Any = module.engine if self.is_detector else module
        self._whole: Any = module
        backend = _backend_of(metadata)
        self._fusing = torchscript.fusing if backend is not None and not backend.on_gpu else contextlib.nullcontext
        self.batch = metadata.batch_range
        self.graph = self._graph_runner() if cuda_graph else None
        self.reuse_outputs = reuse_outputs
        # The arguments of `load_engine`, for another process.
        self.load_options: dict[str, Any] = {"device": device, "cuda_graph": cuda_graph, "reuse_outputs": reuse_outputs}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._check(images)
        with torch.no_grad(), current_device(self.device), self._fusing():
            loc, conf = (self.graph or self.module)(images.to(self.device, non_blocking=True))
            return copy_outputs(loc, conf) if self.graph and not self.reuse_outputs else (loc, conf)

    def _graph_runner(self) -> CudaGraphRunner:
        """Return the network as a CUDA graph for each batch size, each with an execution context where it needs one."""
        if isinstance(self.module, PlanNetwork):
            return CudaGraphRunner(self.module, self.device, renew=self.module.another)
        return CudaGraphRunner(self.module, self.device, limit=MAX_GRAPHS if self.batch is None else 1)

    def detect(self, images: Tensor) -> PaddedDetections:
        """Run a detector file: normalization, network, decoding and NMS.

        Args:
            images: uint8 images [N, 3, 300, 300], 0 to 255, RGB.

        Returns:
            boxes [N, K, 4] (xyxy, 0..1), labels [N, K], scores [N, K] and counts [N]. The rows of an image after its
            count are zeros.

        Raises:
            ArtifactError: If the file is not a detector, or the images have another shape or dtype.
        """
        if not self.is_detector:
            raise ArtifactError(f"{self.path} is of the kind {self.metadata.kind}; expected a detector.")
        self._check(images, torch.uint8)
        # Not fused: oneDNN's fusion of NMS ends with "bad optional access" in the second call (torch 2.14).
        with torch.no_grad(), current_device(self.device):
            return self._whole(images.to(self.device, non_blocking=True))

    def place(self, images: Tensor) -> Tensor:
        """Copy images to the CUDA graph's input or to the device, and return the copy, which a call need not copy again."""
        self._check(images)
        images = images.to(self.device, non_blocking=True)
        return self.graph.place(images) if self.graph else images

    def graph_around(self, function: Callable[..., Any]) -> CudaGraphRunner | None:
        """Return a CUDA graph of a larger function, instead of the network's own; None where the network has none.

        Args:
            function: Called with the network, a callable as this runner, and with one tensor.
        """

        def checked(network: Callable[[Tensor], Any], given: Tensor) -> Any:
            def run(images: Tensor) -> Any:
                self._check(images)
                return network(images)

            return function(run, given)

        return self.graph.around(checked) if self.graph else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments of `load_engine`: another process loads the file again, by default on its own device."""
        return functools.partial(load_engine, **self.load_options), (self.path.absolute(),)

    def _repr_html_(self) -> str:
        """Return a table of what the file is and where it runs, for a notebook."""
        return html_table(str(self.path), {**described(self.metadata), "device": str(self.device)})

    def _check(self, images: Tensor, dtype: torch.dtype | None = None) -> None:
        """Raise ArtifactError, in one line, for images that the file cannot take."""
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
            most = "1 image" if largest == 1 else f"1 to {largest} images" if largest else "1 image or more"
            raise ArtifactError(f"{self.path} takes {most} at once; found {len(images)}.")

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def precision(self) -> str:
        """The precision that the network computes in, fp32, fp16 or bf16."""
        return self.metadata.precision

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, the background first."""
        return self.metadata.model.labels

    @property
    def preprocess(self) -> str:
        """How pictures are prepared for it, `eval` or `hub`, as recorded at export."""
        return self.metadata.model.preprocess

    @property
    def trained(self) -> bool:
        """False if the weights are known to be random."""
        return self.metadata.trained


def load_engine(
    path: str | Path,
    device: str | torch.device | None = None,
    *,
    sha256: str | None = None,
    cuda_graph: bool | None = None,
    reuse_outputs: bool = False,
) -> FileRunner:
    """Load an engine, a detector or a module, ready to be called.

    A TensorRT engine runs on a GPU, a TorchScript engine on the CPU, an ONNX file in ONNX Runtime. Because TorchScript
    files contain code, nothing in the file runs before its archive, its SHA-256 and its metadata have been checked.
    Then it is loaded and run once on zeros. The current CUDA device of the process does not change.

    Args:
        path: The file.
        device: `cpu`, `cuda` or `cuda:N`; by default the device that the file was built for, and for a module the GPU
            if there is one.
        sha256: The SHA-256 that the file must have; by default the one in `<path>.sha256`, if that file exists.
        cuda_graph: Whether to run the network as a CUDA graph; by default a TensorRT engine is, because it is faster
            with one. Calls must then be in one CUDA stream.
        reuse_outputs: Whether the outputs of a CUDA graph may be overwritten by the next call with the same batch size.
            Otherwise they are copied.

    Returns:
        A callable of images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32.

    Raises:
        ArtifactError: If the file is damaged, not one of ssdtrt's, or built for another machine.
        CompileError: If Torch-TensorRT or a GPU is missing.
        GpuError: If the GPU fails or has no memory left.
        SsdtrtError: If there is no such device, or ONNX Runtime is missing or cannot use it.

    Example:
        >>> import torch
        >>> from ssdtrt import load_engine
        >>> loc, conf = load_engine("ssd300.engine.ts")(torch.zeros(1, 3, 300, 300))
        >>> loc.shape, conf.shape
        (torch.Size([1, 4, 8732]), torch.Size([1, 81, 8732]))
    """
    path = Path(path)
    metadata = check_file(path, sha256=sha256)
    chosen = _device_for(path, metadata, device)
    if cuda_graph and chosen.type != "cuda":
        raise ArtifactError(f"{path} runs on the CPU here, where there are no CUDA graphs; leave cuda_graph out.")
    if cuda_graph and metadata.format == "onnx":
        raise ArtifactError(f"{path} runs in ONNX Runtime, which has no CUDA graphs here; leave cuda_graph out.")
    backend = _backend_of(metadata)
    on_gpu = backend is not None and backend.on_gpu
    if on_gpu:
        check_fits(path, metadata, chosen)
    use_graph = on_gpu if cuda_graph is None else cuda_graph
    with current_device(chosen):  # A TensorRT engine is deserialized on the current one.
        runner = FileRunner(path, metadata, _load(path, metadata, chosen, use_graph), chosen, use_graph, reuse_outputs)
        runner.load_options |= {"device": device, "sha256": sha256, "cuda_graph": cuda_graph}
        _warm_up(runner)
    return runner


def _load(
    path: Path, metadata: Metadata, device: torch.device, cuda_graph: bool
) -> torch.jit.ScriptModule | onnx_runtime.OnnxModule | PlanNetwork:
    """Load the network of a checked file, by its format.

    As a CUDA graph, the engine of a range runs in TensorRT's own runtime, where each size has an execution context.
    """
    if metadata.format == "onnx":
        return onnx_runtime.load(path, device, metadata.kind == "detector")
    batch = metadata.batch_range
    if isinstance(metadata, EngineMetadata) and metadata.request.capabilities.on_gpu:
        assert batch is not None
        if metadata.format == "plan":
            return load_plan(path.read_bytes(), device, batch.min)
        runtime.import_torch_tensorrt()  # Registers the class that the file contains.
        written = metadata.request.front_end == "tensorrt"  # Then several contexts can run one range.
        if cuda_graph and written and not batch.static and metadata.kind == "engine":
            plan = plan_in_archive(path)
            if plan is not None:
                return load_plan(plan, device, batch.min)
    return torchscript.load(path, device)


def _warm_up(runner: FileRunner) -> None:
    """Run the smallest batch of zeros, and raise ArtifactError unless that returns finite values."""
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
        raise ArtifactError(f"{runner.path} returns values that are not finite for an image of zeros. Make it again.")


def _device_for(path: Path, metadata: Metadata, device: str | torch.device | None) -> torch.device:
    """Return the device that a file runs on; raise an SsdtrtError if `device` is another, or it is missing."""
    if metadata.format == "onnx":
        return onnx_runtime.choose_device(device)
    if not isinstance(metadata, EngineMetadata):
        return pick_device(device)
    backend = metadata.request.capabilities
    if device is not None and named_device(device).type != backend.device_type:
        what = "a TensorRT engine" if backend.on_gpu else "a CPU engine"
        raise ArtifactError(f"{path} is {what} and cannot run on {device}; leave --device out.")
    if not backend.on_gpu:
        return torch.device("cpu")
    instead = runtime.cpu_command(module_path(path, metadata), metadata.request.detector)
    reason = runtime.why_not(metadata.format == "plan", instead)
    if reason:
        raise CompileError(f"{path} is a TensorRT engine. {reason}")
    return pick_device(device)


def _backend_of(metadata: Metadata) -> Backend | None:
    """Return the back end of an engine; None for a module."""
    return metadata.request.capabilities if isinstance(metadata, EngineMetadata) else None
