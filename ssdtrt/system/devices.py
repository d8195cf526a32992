"""Choose a device, make it the current one, and turn TF32 on or off."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch

from ssdtrt import config
from ssdtrt.errors import GpuError, SsdtrtError
from ssdtrt.system.gpu_errors import AFTER_FORK
from ssdtrt.system.report import counted

_T = TypeVar("_T")
_switching = threading.RLock()


def emulates_bf16() -> bool:
    """Return whether PyTorch emulates BF16 on this processor, which takes many times as long as FP32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device to run on, with its index.

    Args:
        device: `cpu`, `cuda` or `cuda:N`; by default the current GPU if there is one, else the CPU.

    Raises:
        SsdtrtError: If the name is not a device, or the GPU does not exist.
        GpuError: If this process was forked from one that uses the GPU.
    """
    if device is not None:
        device = named_device(device)
    elif torch.cuda.is_available():
        device = torch.device("cuda")
    else:
        return torch.device("cpu")
    if device.type != "cuda":
        return device
    if torch.cuda._is_in_bad_fork():
        raise GpuError(AFTER_FORK)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise SsdtrtError(
            f"There is no device {device} here: torch {torch.__version__} sees {counted(count, 'CUDA GPU')}."
        )
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def named_device(device: str | torch.device) -> torch.device:
    """Return the device of that name; raise SsdtrtError for another name than torch has."""
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise SsdtrtError(f"{device!r} is not a device; expected cpu, cuda or cuda:N.") from error


def use_more_queues() -> None:
    """Let work on different streams reach the GPU by config.GPU_QUEUES ways, where CUDA has not started in this process.

    Streams that share one of the 8 that CUDA has otherwise wait for each other. Who sets CUDA_DEVICE_MAX_CONNECTIONS decides.
    """
    if not torch.cuda.is_initialized():
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", str(config.GPU_QUEUES))


@contextlib.contextmanager
def tf32_disabled(autotune: bool = True) -> Iterator[None]:
    """Disable TF32 for convolutions and matrix products inside the block, and restore the settings after it.

    Args:
        autotune: Whether cuDNN times its kernels and picks the fastest (`cudnn.benchmark`).
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    with with_tf32(False):
        try:
            cudnn.benchmark = autotune
            yield
        finally:
            cudnn.benchmark = before


@contextlib.contextmanager
def with_tf32(on: bool) -> Iterator[None]:
    """Enable or disable TF32 for convolutions and matrix products inside the block, and restore the settings after it.

    The switches are the process's, so another thread waits for the end of the block before it sets them.

    torch 2.9 added new switches, after whose use the old ones raise. Both are set, and the old ones first, because
    setting those resets the new ones: also the one of products on the CPU.

    Args:
        on: Whether TF32 is enabled.
    """
    with _switching:
        cudnn: Any = torch.backends.cudnn
        matmul: Any = torch.backends.cuda.matmul
        new = hasattr(matmul, "fp32_precision")
        parts: list[Any] = [matmul, cast("Any", torch.backends.mkldnn).matmul, cudnn.conv, cudnn.rnn] if new else []
        precisions = [part.fp32_precision for part in parts]
        of_cudnn = _read(lambda: cudnn.allow_tf32)
        products = _read(torch.get_float32_matmul_precision)
        try:
            cudnn.allow_tf32 = on
            torch.set_float32_matmul_precision("high" if on else "highest")
            for part in parts:
                part.fp32_precision = "tf32" if on else "ieee"
            yield
        finally:
            if of_cudnn is not None:
                cudnn.allow_tf32 = of_cudnn
            if products is not None:
                torch.set_float32_matmul_precision(products)
            for part, precision in zip(parts, precisions):
                part.fp32_precision = precision


def _read(switch: Callable[[], _T]) -> _T | None:
    """Return the value of one of torch's switches; None if reading it raises."""
    try:
        return switch()
    except RuntimeError:
        return None


@contextlib.contextmanager
def current_device(device: torch.device) -> Iterator[None]:
    """Make a GPU the current CUDA device inside the block; do nothing for a CPU."""
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        yield
