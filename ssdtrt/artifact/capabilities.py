"""What engines can be: the precisions, the back ends, and what each back end can build. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssdtrt.errors import CompileError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Precision:
    """What the network computes in.

    Attributes:
        name: `fp32`, `fp16` or `bf16`.
        dtype_name: The name of torch's type for it.
        bound: The largest relative L2 distance of an output to FP32 eager that is accepted.
        floor_share: An engine nearer to FP32 than this share of eager PyTorch's own distance in this precision is not
            of this precision; 0 where there is no such floor.
        max_bytes_per_parameter: The size of a saved engine over its parameters above which it holds wider weights.
    """

    name: str
    dtype_name: str
    bound: float
    floor_share: float = 0.0
    max_bytes_per_parameter: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of torch's tensors."""
        import torch

        return getattr(torch, self.dtype_name)

    @property
    def title(self) -> str:
        """The name as prose has it, `FP16`."""
        return self.name.upper()


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", "float32", bound=1e-4),
        Precision("fp16", "float16", bound=2e-2, floor_share=0.3, max_bytes_per_parameter=3.5),
        Precision("bf16", "bfloat16", bound=2e-2, floor_share=0.3, max_bytes_per_parameter=3.5),
    )
}


@dataclass(frozen=True)
class Backend:
    """What builds an engine, and what it can do.

    Attributes:
        name: `tensorrt` or `torchscript`.
        device_type: Where its engines run, `cuda` or `cpu`.
        precisions: The precisions that it builds; the first is the default.
        fixed_batch: Whether batch sizes are chosen at build time (one, or a range); else any size runs.
        streams: Whether kernels may run side by side on auxiliary streams.
        timing_cache: Whether the times of its kernels are kept for the next build.
    """

    name: str
    device_type: str
    precisions: tuple[str, ...]
    fixed_batch: bool = False
    streams: bool = False
    timing_cache: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether its engines run on a GPU, through Torch-TensorRT's runtime."""
        return self.device_type == "cuda"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("tensorrt", "cuda", ("fp16", "fp32"), fixed_batch=True, streams=True, timing_cache=True),
        Backend("torchscript", "cpu", ("fp32", "bf16")),
    )
}


def find_backend(name: str) -> Backend:
    """Return the back end of this name.

    Raises:
        CompileError: For an unknown one.
    """
    if name not in BACKENDS:
        raise CompileError(f"Unknown backend {name!r}; expected {' or '.join(BACKENDS)}.")
    return BACKENDS[name]
