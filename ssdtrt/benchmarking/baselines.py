"""The benchmark cases: saved files, and baselines from the same weights (eager, CUDA graph, TorchScript, ONNX Runtime)."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.metadata import EngineMetadata, Metadata
from ssdtrt.artifact.request import BatchRange
from ssdtrt.benchmarking.case import BenchmarkCase
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.exporting.graph import onnx_model
from ssdtrt.formats.onnx_file import is_onnx
from ssdtrt.runners import onnx_runtime
from ssdtrt.runners.baseline import InPrecision
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.system.devices import emulates_bf16, with_tf32

BASELINE, ENGINE, ENGINE_PLAIN = "eager-fp32", "engine", "engine-plain"
TORCHSCRIPT, ONNXRUNTIME = "torchscript", "onnxruntime"
_LEARNING_CALLS = 3  # of torch.compile, in which it compiles and captures


@dataclass(frozen=True)
class BenchFile:
    """A saved file that was loaded once, so that it can be planned with and loaded again.

    Attributes:
        path: The file.
        metadata: What the file records.
        device: Where it runs.
        loaded: The runner; None on a GPU, where the memory that it takes is measured later.
    """

    path: Path
    metadata: Metadata
    device: torch.device
    loaded: FileRunner | None = None

    @classmethod
    def read(cls, path: str | Path, device: str | torch.device | None) -> BenchFile:
        """Load the file, and let it go again on a GPU."""
        runner = load_engine(path, device)
        return cls(runner.path, runner.metadata, runner.device, runner if runner.device.type == "cpu" else None)

    @property
    def batch(self) -> BatchRange | None:
        """The batch sizes that it takes; None where any will do."""
        return self.metadata.batch_range

    @property
    def case(self) -> str:
        """The benchmark case that it is, one of config.BENCH_CASES."""
        if self.metadata.format == "onnx":
            return ONNXRUNTIME
        return ENGINE if isinstance(self.metadata, EngineMetadata) else TORCHSCRIPT

    def runner(self) -> FileRunner:
        """Return the file, ready to be called."""
        return self.loaded or load_engine(self.path, self.device)

    def plain(self) -> Runner:
        """Return the file without a CUDA graph. Raises SsdtrtError where it has none anyway."""
        if not isinstance(self.metadata, EngineMetadata) or not self.metadata.request.capabilities.on_gpu:
            raise SsdtrtError("needs a TensorRT engine: other files run without a CUDA graph as they are")
        return load_engine(self.path, self.device, cuda_graph=False)


def check_names(names: Sequence[str]) -> None:
    """Raise SsdtrtError for a name that is not in config.BENCH_CASES."""
    for name in names:
        if name not in config.BENCH_CASES:
            raise SsdtrtError(f"{name!r} is no benchmark case; expected some of {', '.join(config.BENCH_CASES)}.")


def baseline_cases(
    names: Sequence[str], model: torch.nn.Module, module: Path | None, device: torch.device
) -> list[BenchmarkCase]:
    """Return the cases of these names that run no file of the user's, the FP32 baseline first.

    That is always among them, and so is the one that tells whether the machine changed (config.MACHINE_CASES).

    Args:
        names: Some of config.BENCH_CASES.
        model: The FP32 eager model, on `device`.
        module: The exported module that it is from; None for random weights, of which there is no module.
        device: Where they run.
    """
    on_gpu = device.type == "cuda"
    makers: dict[str, tuple[str, Callable[[], Runner]]] = {
        BASELINE: ("fp32", lambda: copy.deepcopy(model) if on_gpu else model),
        "eager-tf32": ("tf32", lambda: _in_tf32(copy.deepcopy(model), device)),
        "eager-fp16": ("fp16", lambda: _in_fp16(model, device)),
        "eager-fp16-graph": ("fp16", lambda: CudaGraphRunner(_in_fp16(model, device), device)),
        "eager-bf16": ("bf16", lambda: _in_bf16(model, device)),
        TORCHSCRIPT: ("fp32", lambda: _exported(module, device)),
        ONNXRUNTIME: ("fp32", lambda: _in_onnx_runtime(model, device)),
        "compile": (
            "fp16" if on_gpu else "fp32",
            lambda: Compiled(_in_fp16(model, device) if on_gpu else model, on_gpu),
        ),
    }
    return [
        BenchmarkCase(
            name,
            precision,
            make,
            name,
            file=module if name == TORCHSCRIPT else None,
            reference=model if module and name != BASELINE else None,
            compiles=name in ("compile", "eager-fp16-graph"),
            measures_memory=on_gpu,
            required=name == BASELINE,
        )
        for name, (precision, make) in makers.items()
        if name in (BASELINE, config.MACHINE_CASES[device.type], *names)
    ]


def file_cases(names: Sequence[str], file: BenchFile, reference: torch.nn.Module | None) -> list[BenchmarkCase]:
    """Return the case of a file, and with `engine-plain` among the names that of the file without a CUDA graph too."""
    common: dict[str, Any] = {
        "file": file.path,
        "build_seconds": file.metadata.build.seconds if isinstance(file.metadata, EngineMetadata) else None,
        "reference": reference,
        "measures_memory": file.device.type == "cuda",
    }
    precision = file.metadata.precision
    case = BenchmarkCase(str(file.path), precision, file.runner, file.case, **common)
    if ENGINE_PLAIN not in names:
        return [case]
    return [case, BenchmarkCase(f"{file.path} plain", precision, file.plain, ENGINE_PLAIN, **common)]


def _need_gpu(device: torch.device, why: str) -> None:
    if device.type != "cuda":
        raise SsdtrtError(f"needs a GPU: {why}")


def _in_fp16(model: torch.nn.Module, device: torch.device) -> InPrecision:
    """A copy of the model in FP16, channels last."""
    _need_gpu(device, "PyTorch has no fast FP16 on a CPU")
    return InPrecision(copy.deepcopy(model), "fp16", channels_last=True)


def _in_bf16(model: torch.nn.Module, device: torch.device) -> InPrecision:
    """A copy of the model in BF16, channels last."""
    if device.type == "cpu" and emulates_bf16():
        raise SsdtrtError("needs a processor with BF16 arithmetic: emulated, it takes many times as long as FP32")
    return InPrecision(copy.deepcopy(model), "bf16", channels_last=True)


def _in_tf32(model: torch.nn.Module, device: torch.device) -> Runner:
    """The model with TF32 enabled in its own calls only."""
    _need_gpu(device, "there is no TF32 on a CPU")
    if torch.cuda.get_device_capability(device)[0] < 8:
        raise SsdtrtError(f"{torch.cuda.get_device_name(device)} has no TF32")

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        with with_tf32(True):
            return model(images)

    return run


def _exported(module: Path | None, device: torch.device) -> Runner:
    """The exported module, as TorchScript."""
    if module is None:
        raise SsdtrtError("the module of these files was not found; name it with --module")
    if is_onnx(module):
        raise SsdtrtError(f"{module} is an ONNX file; give the TorchScript module as another FILE")
    return load_engine(module, device)


def _in_onnx_runtime(model: Any, device: torch.device) -> Runner:
    """The model as an ONNX graph in ONNX Runtime, without a file."""
    onnx_runtime.check_installed("onnx", "onnxruntime")
    place = onnx_runtime.choose_device(device)
    return onnx_runtime.OnnxModule(lambda: onnx_model(model).SerializeToString(), place, "the model").open()


class Compiled:
    """`torch.compile` of a model, for one batch size: with frozen weights, and on a GPU with CUDA graphs.

    Its settings hold in its first calls, in which it compiles and captures; afterwards they are as they were.
    """

    def __init__(self, model: torch.nn.Module, on_gpu: bool):
        with _quietly():
            torch._dynamo.reset()  # Past a number of shapes it would silently stop compiling.
            self.call = torch.compile(model, dynamic=False, mode="reduce-overhead" if on_gpu else None)
        self.on_gpu, self.learning = on_gpu, _LEARNING_CALLS

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        if not self.learning:
            return self.call(images)
        self.learning -= 1
        with _quietly():
            import torch._inductor.config as inductor
            from torch._dynamo.exc import BackendCompilerFailed

            settings = {"freezing": True} if hasattr(inductor, "freezing") else {}
            try:
                with inductor.patch(settings):
                    return self.call(images)
            except BackendCompilerFailed as error:  # Its first line names the back end, and not the failure.
                cause = error.inner_exception
                raise SsdtrtError(f"{type(cause).__name__}: {first_line(cause)}") from cause

    def close(self) -> None:
        """Let go of what was compiled."""
        torch._dynamo.reset()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hide what torch's compiler warns of: advice, and deprecations in its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
