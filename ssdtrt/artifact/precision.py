"""The precisions, the back ends, and what each back end can build. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssdtrt.errors import CompileError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Precision:
    """A precision that the network can compute in.

    Attributes:
        name: `fp32`, `fp16`, `bf16` or `int8`.
        dtype_name: The name of torch's dtype; for `int8` that of the values between the quantized ones.
        bound: The largest accepted relative L2 distance of an output to FP32 eager.
        batch_bound: The largest accepted relative L2 distance of an image's output in a batch to that of the image alone:
            what another kernel or another order of additions changes. BF16 has three bits fewer than FP16.
        floor_share: The smallest accepted distance, as a share of the distance of eager PyTorch in this precision. An
            engine closer to FP32 was not built in this precision. 0 for no such limit.
        max_bytes_per_parameter: The largest accepted file size per parameter, in bytes. A larger file holds weights of
            another precision. None for no such limit.
        bound_share: The largest accepted distance as a share of that of eager PyTorch in this precision, where that is
            more than `bound`: what INT8 costs depends on the weights.
    """

    name: str
    dtype_name: str
    bound: float
    batch_bound: float
    floor_share: float = 0.0
    max_bytes_per_parameter: float | None = None
    bound_share: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors."""
        import torch

        return getattr(torch, self.dtype_name)

    @property
    def title(self) -> str:
        """The name as it is written in text, such as `FP16`."""
        return self.name.upper()


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", "float32", bound=1e-4, batch_bound=1e-5),
        Precision("fp16", "float16", bound=2e-2, batch_bound=2e-3, floor_share=0.3, max_bytes_per_parameter=3.5),
        Precision("bf16", "bfloat16", bound=2e-2, batch_bound=1.6e-2, floor_share=0.3, max_bytes_per_parameter=3.5),
        Precision("int8", "float32", bound=2e-2, batch_bound=5e-2, floor_share=0.3, bound_share=2.0),
    )
}


@dataclass(frozen=True)
class Backend:
    """A back end and what it can build.

    Attributes:
        name: `tensorrt` or `torchscript`.
        device_type: Where its engines run, `cuda` or `cpu`.
        precisions: The precisions that it builds; the first is the default.
        fixed_batch: Whether the batch sizes are fixed at build time, to one or a range; otherwise any size runs.
        front_ends: How the network can be given to it: `torchscript` through Torch-TensorRT's TorchScript front end,
            `tensorrt` layer by layer through TensorRT's own API.
    """

    name: str
    device_type: str
    precisions: tuple[str, ...]
    fixed_batch: bool = False
    front_ends: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether engines can use auxiliary streams, which only TensorRT's own API has."""
        return "tensorrt" in self.front_ends

    @property
    def on_gpu(self) -> bool:
        """Whether its engines run on a GPU, through Torch-TensorRT's runtime."""
        return self.device_type == "cuda"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("tensorrt", "cuda", ("fp16", "fp32", "int8"), fixed_batch=True, front_ends=("tensorrt", "torchscript")),
        Backend("torchscript", "cpu", ("fp32", "bf16")),
    )
}


def find_backend(name: str) -> Backend:
    """Return the back end of this name.

    Raises:
        CompileError: If there is none.
    """
    if name not in BACKENDS:
        raise CompileError(f"Unknown backend {name!r}; expected {' or '.join(BACKENDS)}.")
    return BACKENDS[name]
