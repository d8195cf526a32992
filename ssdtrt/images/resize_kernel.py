"""Launch the kernels of resize.cu on a GPU. No compiler is needed: the driver compiles their PTX when they are first used."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.errors import GpuError

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_THREADS = 160  # of a block; each computes two pixels of a row
_lock = threading.Lock()


class ResizeKernels:
    """The two kernels, loaded on one GPU.

    Args:
        device: The GPU.

    Raises:
        OSError: Where there is no driver.
        GpuError: Where the driver or the GPU is too old for the kernels.
    """

    def __init__(self, device: torch.device):
        self._driver: Any = ctypes.CDLL(_DRIVER)
        self._context, module = ctypes.c_void_p(), ctypes.c_void_p()
        ptx = (resources.files("ssdtrt.images") / "resize.ptx").read_bytes()
        torch.cuda.init()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device.index or 0)
        self._functions = {name: ctypes.c_void_p() for name in ("resize_width", "resize_height")}
        with self:
            self._call("cuModuleLoadData", ctypes.byref(module), ptx)
            for name, function in self._functions.items():
                self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())

    def resize_width(self, pictures: Tensor, first: Tensor, weights: Tensor) -> Tensor:
        """Start to resize uint8 [n, H, W, 3] to [n, H, 300, 3] on the current stream.

        Args:
            pictures: The pictures, contiguous.
            first: For each output pixel of a row the first input pixel that it is computed from, int32 [300].
            weights: For each output pixel the weights of the input pixels from there on, int32 [300, taps] in units of 2^-22.
        """
        n, height, width, _ = pictures.shape
        out = pictures.new_empty(n, height, config.IMAGE_SIZE, 3)
        self._launch("resize_width", n * height, pictures, out, first, weights, weights.shape[1], width)
        return out

    def resize_height(self, pictures: Tensor, first: Tensor, weights: Tensor) -> Tensor:
        """Start to resize uint8 [n, H, W, 3] to [n, 300, W, 3] on the current stream; arguments as in `resize_width`, of rows."""
        n, height, width, _ = pictures.shape
        out = pictures.new_empty(n, config.IMAGE_SIZE, width, 3)
        blocks = n * config.IMAGE_SIZE
        self._launch("resize_height", blocks, pictures, out, first, weights, weights.shape[1], height, 3 * width)
        return out

    def _launch(self, name: str, blocks: int, *arguments: Tensor | int) -> None:
        values = [
            ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else ctypes.c_int(one) for one in arguments
        ]
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream(next(one for one in arguments if isinstance(one, Tensor)).device).cuda_stream)  # fmt: skip
        with self:
            self._call("cuLaunchKernel", self._functions[name], blocks, 1, 1, _THREADS, 1, 1, 0, stream, places, None)

    def __enter__(self) -> None:
        """Make the GPU's context the one of this thread, which has none before it first uses the GPU."""
        self._call("cuCtxPushCurrent_v2", self._context)

    def __exit__(self, *_: object) -> None:
        self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise GpuError(f"The GPU's driver ended {name} with error {status}; update it, or use --device cpu.")


@functools.cache
def _kernels(device: torch.device) -> ResizeKernels | None:
    try:
        return ResizeKernels(device)
    except (OSError, GpuError):
        return None


def kernels_for(device: torch.device) -> ResizeKernels | None:
    """Return the kernels for a device; None for a CPU, and for a GPU whose driver does not take them."""
    if device.type != "cuda":
        return None
    with _lock:  # So that two threads do not both load them.
        return _kernels(device)
