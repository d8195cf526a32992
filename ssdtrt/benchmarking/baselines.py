"""What files are measured against, from the same weights: eager PyTorch, CUDA graphs, TorchScript, torch.compile."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.baseline import InPrecision
from ssdtrt.artifact.cuda_graph import CudaGraphRunner
from ssdtrt.artifact.request import BatchRange
from ssdtrt.artifact.runner import FileRunner, load_engine
from ssdtrt.benchmarking.case import Contender
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import SsdtrtError
from ssdtrt.system.devices import emulates_bf16, with_tf32

BASELINE, ENGINE, ENGINE_GRAPH = "eager-fp32", "engine", "engine-graph"
NAMES = {
    "eager-fp32": "eager FP32",
    "eager-tf32": "eager TF32",
    "eager-fp16": "eager FP16",
    "eager-fp16-graph": "eager FP16 graph",
    "eager-bf16": "eager BF16",
    "torchscript": "TorchScript",
    "compile": "torch.compile",
}


@dataclass(frozen=True)
class File:
    """What is known of a file that was loaded once: enough to plan with, and to load it again."""

    path: Path
    metadata: dict
    batch: BatchRange | None
    precision: str
    trained: bool
    device: torch.device
    loaded: FileRunner | None

    @classmethod
    def read(cls, path: str | Path, device: str | torch.device | None) -> File:
        """Loads the file. On a GPU it is let go again, so that what it takes can be measured."""
        runner = load_engine(path, device)
        kept = runner if runner.device.type == "cpu" else None
        facts = (runner.path, runner.metadata, runner.batch, runner.precision, runner.trained, runner.device)
        return cls(*facts, kept)

    def runner(self) -> Runner:
        """The file, ready to be called."""
        return self.loaded or load_engine(self.path, self.device)

    def graph(self) -> Runner:
        """The same, captured as a CUDA graph at its first call. Raises SsdtrtError on a CPU."""
        need_gpu(self.device, "there are no CUDA graphs on a CPU")
        return CudaGraphRunner(self.runner(), self.device)


def check_names(names: Sequence[str]) -> None:
    """Raises SsdtrtError for a name that is not in config.BENCH_PEERS."""
    for name in names:
        if name not in config.BENCH_PEERS:
            raise SsdtrtError(f"{name!r} is nothing to measure; expected some of {', '.join(config.BENCH_PEERS)}.")


def peers(names: Sequence[str], model: torch.nn.Module, module: Path | None, device: torch.device) -> list[Contender]:
    """The contenders of these names but the files, the baseline first, from one FP32 eager model on `device`.

    `module` is the file that the model came from, None for one with random weights, of which there is no file.
    """
    on_gpu = device.type == "cuda"
    makers: dict[str, tuple[str, Callable[[], Runner]]] = {
        "eager-fp32": ("fp32", lambda: copy.deepcopy(model) if on_gpu else model),
        "eager-tf32": ("tf32", lambda: tf32(copy.deepcopy(model), device)),
        "eager-fp16": ("fp16", lambda: half(model, device)),
        "eager-fp16-graph": ("fp16", lambda: CudaGraphRunner(half(model, device), device)),
        "eager-bf16": ("bf16", lambda: bfloat16(model, device)),
        "torchscript": ("fp32", lambda: exported(module, device)),
        "compile": ("fp16" if on_gpu else "fp32", lambda: Compiled(half(model, device) if on_gpu else model, on_gpu)),
    }
    return [
        Contender(
            NAMES[name],
            precision,
            make,
            name,
            file=module if name == "torchscript" else None,
            reference=model if module and name != BASELINE else None,
            compiles=name in ("compile", "eager-fp16-graph"),
            weighs=on_gpu,
            required=name == BASELINE,
        )
        for name, (precision, make) in makers.items()
        if name == BASELINE or name in names
    ]


def file_contenders(names: Sequence[str], file: File, reference: torch.nn.Module | None) -> list[Contender]:
    """A file, and with `engine-graph` among the names the file in a CUDA graph too."""
    is_module = file.metadata["kind"] == "module"
    common = {
        "file": file.path,
        "build_seconds": file.metadata["build"].get("seconds"),
        "reference": reference,
        "weighs": file.device.type == "cuda",
    }
    plain = Contender(str(file.path), file.precision, file.runner, "torchscript" if is_module else ENGINE, **common)
    if ENGINE_GRAPH not in names:
        return [plain]
    graph = Contender(f"{file.path} graph", file.precision, file.graph, ENGINE_GRAPH, compiles=True, **common)
    return [plain, graph]


def need_gpu(device: torch.device, why: str) -> None:
    """Raises SsdtrtError on a CPU."""
    if device.type != "cuda":
        raise SsdtrtError(f"needs a GPU: {why}")


def half(model: torch.nn.Module, device: torch.device) -> InPrecision:
    """A copy of the model in FP16, channels last."""
    need_gpu(device, "PyTorch has no fast FP16 on a CPU")
    return InPrecision(copy.deepcopy(model), "fp16", channels_last=True)


def bfloat16(model: torch.nn.Module, device: torch.device) -> InPrecision:
    """A copy of the model in BF16, channels last."""
    if device.type == "cpu" and emulates_bf16():
        raise SsdtrtError("needs a processor with BF16 arithmetic: emulated, it takes many times as long as FP32")
    return InPrecision(copy.deepcopy(model), "bf16", channels_last=True)


def tf32(model: torch.nn.Module, device: torch.device) -> Runner:
    """The model with TF32 on in its own calls only."""
    need_gpu(device, "there is no TF32 on a CPU")
    if torch.cuda.get_device_capability(device)[0] < 8:
        raise SsdtrtError(f"{torch.cuda.get_device_name(device)} has no TF32")

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        with with_tf32(True):
            return model(images)

    return run


def exported(module: Path | None, device: torch.device) -> Runner:
    """The exported module, as TorchScript."""
    if module is None:
        raise SsdtrtError("the module of these files was not found; name it with --module")
    return load_engine(module, device)


class Compiled:
    """`torch.compile` of a model, for one batch size: with frozen weights, and on a GPU with CUDA graphs.

    Its settings hold in its first calls, in which it compiles and captures; afterwards they are as they were.
    """

    def __init__(self, model: torch.nn.Module, on_gpu: bool):
        with quietly():
            torch._dynamo.reset()  # Past a number of shapes it would silently stop compiling.
            self.call = torch.compile(model, dynamic=False, mode="reduce-overhead" if on_gpu else None)
        self.on_gpu, self.learning = on_gpu, 3

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        if not self.learning:
            return self.call(images)
        self.learning -= 1
        with quietly():
            import torch._inductor.config as inductor

            settings = {"freezing": True} if hasattr(inductor, "freezing") else {}
            with inductor.patch(settings):
                return self.call(images)

    def close(self) -> None:
        """Lets go of what was compiled."""
        torch._dynamo.reset()


@contextlib.contextmanager
def quietly():
    """Hides what torch's compiler warns of: advice, and deprecations in its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
