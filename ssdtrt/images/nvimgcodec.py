"""JPEG files decoded by nvImageCodec into memory that the caller has, while other threads run.

This is its C interface. Its Python package takes Python's lock three times a picture, for which a thread that decodes waits
whenever another one computes, and allocates memory for each.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Sequence
from ctypes import byref, c_size_t, c_uint32, c_void_p
from typing import Any

import numpy as np

from ssdtrt.images.nvimgcodec_library import (
    Backend,
    BackendParams,
    DecodeParams,
    ExecutionParams,
    ImageInfo,
    ImagePlaneInfo,
    Orientation,
    check,
    load,
    loading,
)

BACKENDS = {"cpu": 1, "hybrid": 3, "hardware": 4}  # NVIMGCODEC_BACKEND_KIND_...
_CPU_ONLY = -99999  # NVIMGCODEC_DEVICE_CPU_ONLY, as a number of a device
_DEVICE_MEMORY, _HOST_MEMORY = 1, 2  # NVIMGCODEC_IMAGE_BUFFER_KIND_STRIDED_...
_SRGB, _RGB, _UINT8 = 1, 8, 0x0802  # NVIMGCODEC_COLORSPEC_SRGB, ..._SAMPLEFORMAT_I_RGB, ..._SAMPLE_DATA_TYPE_UINT8
_FIXED_LOAD = 2  # NVIMGCODEC_LOAD_HINT_POLICY_FIXED
_SUCCESS = 1  # NVIMGCODEC_PROCESSING_STATUS_SUCCESS


class _Handles:
    """Handles of a kind. Given again, the library uses what they stand for anew.

    Attributes:
        array: The handles.
        addresses: Where each of them lies.
    """

    def __init__(self) -> None:
        self.array: Any = (c_void_p * 0)()
        self.addresses: list[int] = []

    def make_room(self, count: int) -> None:
        """Have so many at least."""
        if count > len(self.array):
            self.array = (c_void_p * count)(*self.array)
            first, size = ctypes.addressof(self.array), ctypes.sizeof(c_void_p)
            self.addresses = [first + size * place for place in range(count)]


def _destroy(library: Any, decoder: c_void_p, streams: _Handles, images: _Handles) -> None:
    library.nvimgcodecDecoderDestroy(decoder)
    for stream, image in itertools.zip_longest(streams.array, images.array):
        if stream:
            library.nvimgcodecCodeStreamDestroy(stream)
        if image:
            library.nvimgcodecImageDestroy(image)


class Decoder:
    """A decoder of nvImageCodec, for one thread at a time.

    Args:
        backend: What decodes, of BACKENDS.
        device: The number of the GPU; None for memory of the host, with `cpu`.
        threads: Threads of the host that take part; 0 for as many as there are cores.

    Attributes:
        backend: What decodes.

    Raises:
        SsdtrtError: Where there is no such decoder here; also as `load`.
    """

    def __init__(self, backend: str, device: int | None, threads: int):
        self.backend, self._library = backend, load()
        with loading():
            self._library.extend("jpeg_turbo" if device is None else "nvjpeg")
        self._params, self._info, self._found = DecodeParams(), ImageInfo(), ImageInfo()
        self._info.color_spec, self._info.sample_format, self._info.num_planes = _SRGB, _RGB, 1
        self._info.orientation, self._info.plane_info[0] = Orientation(), ImagePlaneInfo()
        self._info.buffer_kind = _HOST_MEMORY if device is None else _DEVICE_MEMORY
        plane = self._info.plane_info[0]
        plane.num_channels, plane.sample_type = 3, _UINT8
        self._streams, self._images = _Handles(), _Handles()
        allowed = Backend(kind=BACKENDS[backend], params=BackendParams(load_hint=1.0, load_hint_policy=_FIXED_LOAD))
        execution = ExecutionParams(max_num_cpu_threads=threads, device_id=_CPU_ONLY if device is None else device,
                                     num_backends=1, backends=ctypes.pointer(allowed))  # fmt: skip
        self._handle, free = c_void_p(), self._library.free
        created = free.nvimgcodecDecoderCreate(self._library.instance, byref(self._handle), byref(execution), None)
        check(created, "nvimgcodecDecoderCreate")
        # Not at the end of the process, when what they hold may be gone.
        weakref.finalize(self, _destroy, free, self._handle, self._streams, self._images).atexit = False

    def __call__(
        self, files: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], targets: Sequence[int], stream: int = 0
    ) -> list[bool]:
        """Decode files.

        Args:
            files: Their bytes, each uint8 [n], contiguous.
            sizes: The (width, height) that each is expected to have; one of another size is not decoded.
            targets: The address of memory for the pixels of each, RGB uint8 [height, width, 3].
            stream: The CUDA stream in whose order the memory is used.

        Returns:
            Whether each was decoded. On a GPU its pixels are there when the stream comes to what is put into it next.
        """
        places = self._prepare(files, sizes, targets, stream)
        decoded = [False] * len(files)
        if not places:
            return decoded
        statuses = (c_uint32 * len(places))()
        future, count, free = c_void_p(), c_size_t(), self._library.free
        streams, images, params = self._streams.array, self._images.array, byref(self._params)
        if free.nvimgcodecDecoderDecode(self._handle, streams, images, len(places), params, byref(future)):
            return decoded
        free.nvimgcodecFutureWaitForAll(future)
        free.nvimgcodecFutureGetProcessingStatus(future, statuses, byref(count))
        free.nvimgcodecFutureDestroy(future)
        for place, status in zip(places, statuses):
            decoded[place] = status == _SUCCESS
        return decoded

    def _prepare(
        self, files: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], targets: Sequence[int], stream: int
    ) -> list[int]:
        """Make handles of the files and their memory; return the places of the files that have some."""
        quick, instance, info, found = self._library.quick, self._library.instance, self._info, self._found
        plane, actual, places = info.plane_info[0], found.plane_info[0], list[int]()
        streams, images, info_at, found_at = self._streams, self._images, byref(info), byref(found)
        streams.make_room(len(files))
        images.make_room(len(files))
        info.cuda_stream = stream
        for place, (file, (width, height), target) in enumerate(zip(files, sizes, targets)):
            at, (address, _) = len(places), file.__array_interface__["data"]
            plane.width, plane.height, plane.row_stride, info.buffer = width, height, 3 * width, target
            if (
                quick.nvimgcodecCodeStreamCreateFromHostMem(instance, streams.addresses[at], address, len(file), None)
                or quick.nvimgcodecCodeStreamGetImageInfo(streams.array[at], found_at)
                or (actual.width, actual.height) != (width, height)
                or quick.nvimgcodecImageCreate(instance, images.addresses[at], info_at)
            ):
                continue
            places.append(place)
        return places
