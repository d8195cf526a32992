"""What a GPU says when it has no memory left, or is gone, told apart from bugs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from ssdtrt.errors import GpuError

# Inside TorchScript torch's own class is lost: what arrives is a RuntimeError with the text alone.
NO_MEMORY = re.compile(r"CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|_STATUS_ALLOC_FAILED")
FAILED = re.compile(
    r"CUDA (driver )?error(?!: no kernel image)|CUDA_ERROR_|cuDNN error|CUDNN_STATUS_|CUBLAS_STATUS_|NVML"
)
FORKED = "Cannot re-initialize CUDA in forked subprocess"
AFTER_FORK = (
    "This process was forked from one that uses the GPU, and CUDA does not work in it. Start it with multiprocessing's "
    "spawn, or use the GPU only after the fork."
)


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that the GPU has not enough memory."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None


def gpu_error(error: RuntimeError) -> GpuError | None:
    """What a GPU failed with, as a GpuError; None for any other error."""
    lines = [line.strip().removeprefix("RuntimeError: ") for line in str(error).splitlines()]
    said = [line for line in lines if NO_MEMORY.search(line) or FAILED.search(line)]
    reason = (said or [type(error).__name__])[0][:200]
    if out_of_memory(error):
        return GpuError(
            f"The GPU has not enough memory ({reason}). Free some (nvidia-smi shows who has it), or use smaller "
            "batches."
        )
    if FORKED in str(error):
        return GpuError(AFTER_FORK)
    if said:
        return GpuError(
            f"The GPU failed ({reason}). What was finished is kept. Look at nvidia-smi and the system's log, and run "
            "again in a new process."
        )
    return None


@contextlib.contextmanager
def gpu_errors() -> Iterator[None]:
    """Turns what a GPU fails with into GpuError; every other error passes. Also a decorator."""
    try:
        yield
    except RuntimeError as error:
        known = gpu_error(error)
        if known is None:
            raise
        raise known from error
