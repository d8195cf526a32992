"""Recognize errors of a GPU by their text, because TorchScript loses their types. No other module reads such texts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from ssdtrt.errors import GpuError

_GPU_FULL = re.compile(r"CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|_STATUS_ALLOC_FAILED")
_HOST_FULL = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)  # Also TensorRT's.
_FAILED = re.compile(
    r"CUDA (driver )?error(?!: no kernel image)|CUDA_ERROR_|cuDNN error|CUDNN_STATUS_|CUBLAS_STATUS_|NVML"
)
_FORKED = "Cannot re-initialize CUDA in forked subprocess"
AFTER_FORK = (
    "This process was forked from one that uses the GPU, and CUDA does not work in it. Start it with multiprocessing's "
    "spawn, or use the GPU only after the fork."
)


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether the GPU or the host ran out of memory.

    Args:
        error: The error. Its causes and contexts count too: a CUDA graph whose capture fails for lack of memory raises
            an error that does not say so.
    """
    while error is not None:
        if isinstance(error, MemoryError) or _gpu_full(error):
            return True
        if isinstance(error, RuntimeError) and _HOST_FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def gpu_error(error: RuntimeError) -> GpuError | None:
    """Return an error of a GPU as a GpuError; None for any other error."""
    lines = [line.strip().removeprefix("RuntimeError: ") for line in str(error).splitlines()]
    known = [line for line in lines if _GPU_FULL.search(line) or _FAILED.search(line)]
    reason = (known or [type(error).__name__])[0][:200]
    if _gpu_full(error):
        return GpuError(
            f"The GPU has not enough memory ({reason}). Free some (nvidia-smi shows who has it), or use smaller "
            "batches."
        )
    if _FORKED in str(error):
        return GpuError(AFTER_FORK)
    if known:
        return GpuError(
            f"The GPU failed ({reason}). What was finished is kept. Look at nvidia-smi and the system's log, and run "
            "again in a new process."
        )
    return None


@contextlib.contextmanager
def gpu_errors() -> Iterator[None]:
    """Raise errors of a GPU as GpuError; other errors pass unchanged. Also usable as a decorator."""
    try:
        yield
    except RuntimeError as error:
        known = gpu_error(error)
        if known is None:
            raise
        raise known from error


def _gpu_full(error: BaseException) -> bool:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _GPU_FULL.search(str(error)) is not None
