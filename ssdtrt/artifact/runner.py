"""From a saved file to a runner: something that is called with images and returns `loc` and `conf`."""

from __future__ import annotations

import contextlib
import functools
import shlex
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.system import machine
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.metadata import check_file
from ssdtrt.engine.modules import BatchRange
from ssdtrt.errors import ArtifactError, CompileError
from ssdtrt.artifact.fields import MUST_AGREE
from ssdtrt.system.files import sha256_file
from ssdtrt.system.gpu_errors import gpu_errors
from ssdtrt.artifact.cuda_graph import GraphRunner
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import model_from_state, state_sha256


class FileRunner:
    """A loaded file. Called with images [N, 3, 300, 300] it returns (loc [N, 4, A], conf [N, C, A]), float32.

    `metadata` is what the file says of itself, `device` where it runs, `batch` the BatchRange of a TensorRT engine and
    None where any batch will do. `detector` is the whole module of a detector file, uint8 images to detections; what
    is called here is the engine in it. It is None for the other kinds. With `cuda_graph` each batch size is captured at
    its first call as a CUDA graph, and what a call returns is overwritten by the next of that size; of a TensorRT engine
    only the last size is kept, and another is captured anew. Images that `place` returned lie where the graph reads them.
    """

    def __init__(
        self,
        path: Path,
        metadata: dict,
        module: torch.jit.ScriptModule,
        device: torch.device,
        cuda_graph: bool = False,
    ):
        self.path, self.metadata, self.device = path, metadata, device
        self.detector = module if metadata["kind"] == "detector" else None
        self.module = module if self.detector is None else module.engine
        backend = metadata["build"].get("backend")
        self.graph = GraphRunner(self.module, device, one=backend == "tensorrt") if cuda_graph else None
        self.fusing = torchscript.fusing if backend == "torchscript" else contextlib.nullcontext
        batch = metadata["build"].get("batch")
        self.batch = BatchRange.parse(batch) if batch else None
        self.asked: dict = {"device": device, "sha256": None, "cuda_graph": cuda_graph}  # Of `load_engine`.

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), machine.current(self.device), self.fusing():
            return (self.graph or self.module)(images.to(self.device, non_blocking=True))

    def place(self, images: Tensor) -> Tensor:
        """Images where the graph of their size reads them, which saves the next call a copy; else on the device."""
        images = images.to(self.device, non_blocking=True)
        return self.graph.place(images)[0] if self.graph else images

    def __reduce__(self):
        """Another process loads the file anew, on a device of its own where none was asked for."""
        return functools.partial(load_engine, **self.asked), (self.path.absolute(),)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16: what the network computes in."""
        return self.metadata["build"]["precision"]

    @property
    def labels(self) -> list[str]:
        """The names of the classes, background first."""
        return self.metadata["model"]["labels"]

    @property
    def preprocess(self) -> str:
        """How pictures are prepared for it, `eval` or `hub`: recorded at export."""
        return self.metadata["model"]["preprocess"]

    @property
    def trained(self) -> bool:
        """False when the weights are known to be seeded random numbers."""
        weights = self.metadata["model"]["weights"]
        return weights is None or weights["trained"]


def load_engine(
    path: str | Path,
    device: str | torch.device | None = None,
    *,
    sha256: str | None = None,
    cuda_graph: bool = False,
) -> FileRunner:
    """Loads an engine, a detector or a module that ssdtrt wrote, ready to be called.

    An engine runs where it was built for: a TensorRT engine on a GPU, a TorchScript engine on the CPU; a module on
    `device`, or on the GPU where there is one. TorchScript files are executable code, so nothing of the file runs until
    its archive is found intact, its SHA-256 right (`sha256`, or that in `<path>.sha256` where there is one), and its
    metadata complete and of this machine. Then it is loaded and run once on zeros. With `cuda_graph`, on a GPU, the
    network is launched as a CUDA graph, which saves the most at small batches (see FileRunner). Raises ArtifactError,
    or CompileError where Torch-TensorRT or a GPU is missing, or GpuError where the GPU fails or is full.
    """
    path = Path(path)
    metadata = check_file(path, sha256=sha256)
    chosen = device_for(path, metadata, device)
    if metadata["build"].get("backend") == "tensorrt":
        check_fits(path, metadata, chosen)
        runtime.import_torch_tensorrt()
        torch.cuda.set_device(chosen)
    if cuda_graph and chosen.type != "cuda":
        raise ArtifactError(f"{path} runs on the CPU here, where there are no CUDA graphs; leave cuda_graph out.")
    runner = FileRunner(path, metadata, torchscript.load(path, chosen), chosen, cuda_graph)
    runner.asked = {"device": device, "sha256": sha256, "cuda_graph": cuda_graph}
    warm_up(runner)
    return runner


def warm_up(runner: FileRunner) -> None:
    """Runs the file once on zeros, the smallest batch that it takes.

    Raises ArtifactError unless it runs and all that it says is finite.
    """
    count = runner.batch.min if runner.batch else 1
    dtype = torch.float32 if runner.detector is None else torch.uint8
    images = torch.zeros(count, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, dtype=dtype, device=runner.device)
    try:
        with torch.no_grad(), machine.current(runner.device), gpu_errors():
            outputs = (runner.detector or runner)(images)
            finite = all(bool(torch.isfinite(output).all()) for output in outputs)  # Waits for the GPU.
    except (RuntimeError, TypeError, torch.jit.Error) as error:
        reason = [line for line in str(error).strip().splitlines() if line.strip()][-1].strip()
        raise ArtifactError(f"{runner.path} was loaded but does not run here ({reason}). Make it again.") from error
    if not finite:
        raise ArtifactError(f"{runner.path} gives values that are not finite for an empty image. Make it again.")


def device_for(path: Path, metadata: dict, device: str | torch.device | None) -> torch.device:
    """The device that a file runs on; ArtifactError where that is not the one asked for, or is not here."""
    backend = metadata["build"].get("backend")
    if backend == "torchscript":
        if device is not None and torch.device(device).type != "cpu":
            raise ArtifactError(f"{path} is a CPU engine and cannot run on {device}; leave --device out.")
        return torch.device("cpu")
    if backend == "tensorrt":
        if device is not None and torch.device(device).type != "cuda":
            raise ArtifactError(f"{path} is a TensorRT engine and cannot run on {device}; leave --device out.")
        reason = runtime.why_not()
        if reason:
            raise CompileError(f"{path} is a TensorRT engine. {reason}")
    return machine.pick_device(device)


def check_fits(path: Path, metadata: dict, device: torch.device) -> None:
    """Raises ArtifactError when the engine was built for another system, GPU generation, TensorRT or Torch-TensorRT."""
    here = {**machine.versions(), **machine.machine(device)}
    built = {**metadata["versions"], **metadata["machine"]}
    for key, name in MUST_AGREE.items():
        if here[key] != built[key]:
            raise ArtifactError(
                f"{path} was built for {name} {built[key]}; this machine has {here[key]}. "
                f"Build it again here: {rebuild_command(metadata)}"
            )


def rebuild_command(metadata: dict) -> str:
    """The command that builds an engine like this one."""
    build = metadata["build"]
    batch = BatchRange.parse(build["batch"])
    size = f"--batch-size {batch}" if batch.static else f"--batch-range {batch}"
    kind = " --detector" if metadata["kind"] == "detector" else ""
    return f"ssdtrt compile {shlex.quote(metadata['module']['file'])} --{build['precision']} {size}{kind}"


def find_module(runner: FileRunner, module: str | Path | None = None) -> tuple[Path | None, str]:
    """The module that an engine was built from, and why there is none: (path, "") or (None, reason).

    `module` if given, else the file of the recorded name beside the engine or in the current folder; in each case only
    if its SHA-256 is the recorded one. A module is its own.
    """
    if runner.metadata["kind"] == "module":
        return runner.path, ""
    recorded = runner.metadata["module"]
    places = [Path(module)] if module else [runner.path.parent / recorded["file"], Path(recorded["file"])]
    found = [place for place in places if place.is_file()]
    if module and not found:
        return None, f"{module}: no such file"
    for place in found:
        if sha256_file(place) == recorded["sha256"]:
            return place, ""
    if found:
        return None, f"{found[0]} is not the module it was built from"
    return None, f"its module {recorded['file']} was not found; name it with --module"


def eager_model(module: str | Path, device: torch.device) -> SSD300:
    """The FP32 eager model with the weights of an exported module. Raises ArtifactError."""
    metadata = check_file(module, ("module",))
    state = torchscript.load(module).state_dict()
    weights = metadata["model"]["weights"]
    if weights and state_sha256(state) != weights["sha256"]:
        raise ArtifactError(f"{module} is damaged: its weights are not the recorded ones. Make it again: ssdtrt export")
    return model_from_state(state, str(module)).to(device)
