"""nvImageCodec's library, its functions and its structures; names and layouts are those of nvimgcodec.h, version 0.9."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path
from typing import Any, ClassVar

from ssdtrt.errors import SsdtrtError
from ssdtrt.system.versions import pip_install

EXTRA = "gpu-decode"
VERSION = "0.9"  # whose structures are as below
_VERSIONS = range(900, 1000)  # the same as numbers; 900 is 0.9.0


class Struct(ctypes.Structure):
    """What all structures begin with."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("struct_type", c_int),
        ("struct_size", c_size_t),
        ("struct_next", c_void_p),
    )
    number: ClassVar[int]  # NVIMGCODEC_STRUCTURE_TYPE_...

    def __init__(self, **fields: Any):
        super().__init__(self.number, ctypes.sizeof(self), None, **fields)


class _Properties(Struct):
    number = 1
    _fields_ = (("version", c_uint32), ("cudart_version", c_uint32))


class _InstanceCreateInfo(Struct):
    number = 2
    _fields_ = (("load_builtin_modules", c_int), ("load_extension_modules", c_int), ("extension_modules_path", c_char_p),
                ("create_debug_messenger", c_int), ("debug_messenger_desc", c_void_p),
                ("message_severity", c_uint32), ("message_category", c_uint32))  # fmt: skip


class DecodeParams(Struct):
    """How files are decoded."""

    number = 5
    _fields_ = (("apply_exif_orientation", c_int),)


class Orientation(Struct):
    """How pixels are turned."""

    number = 7
    _fields_ = (("rotated", c_int), ("flip_x", c_int), ("flip_y", c_int))


class ImagePlaneInfo(Struct):
    """The size and the layout of a plane of pixels; an interleaved picture is one."""

    number = 12
    _fields_ = (("width", c_uint32), ("height", c_uint32), ("row_stride", c_size_t), ("num_channels", c_uint32),
                ("sample_type", c_int), ("precision", c_uint8))  # fmt: skip


class ImageInfo(Struct):
    """A picture: its colors, its planes, and where its pixels are."""

    number = 11
    _fields_ = (("codec_name", c_char * 256), ("color_spec", c_int), ("chroma_subsampling", c_int),
                ("sample_format", c_int), ("orientation", Orientation), ("num_planes", c_uint32),
                ("plane_info", ImagePlaneInfo * 32), ("buffer", c_void_p), ("buffer_kind", c_int),
                ("cuda_stream", c_void_p))  # fmt: skip


class BackendParams(Struct):
    """How much of the work a backend gets."""

    number = 29
    _fields_ = (("load_hint", c_float), ("load_hint_policy", c_int))


class Backend(Struct):
    """What decodes."""

    number = 17
    _fields_ = (("kind", c_int), ("params", BackendParams))


class ExecutionParams(Struct):
    """With what a decoder works."""

    number = 30
    _fields_ = (("device_allocator", c_void_p), ("pinned_allocator", c_void_p), ("max_num_cpu_threads", c_int),
                ("executor", c_void_p), ("device_id", c_int), ("pre_init", c_int), ("skip_pre_sync", c_int),
                ("num_backends", c_int), ("backends", POINTER(Backend)))  # fmt: skip


class _ExtensionDesc(Struct):
    number = 27
    _fields_ = (("instance", c_void_p), ("id", c_char_p), ("version", c_uint32), ("ext_api_version", c_uint32),
                ("create", c_void_p), ("destroy", c_void_p))  # fmt: skip


class Library:
    """nvImageCodec, loaded without a decoder.

    Args:
        folder: The folder of its Python package.

    Attributes:
        free: Its functions; other threads run meanwhile.
        quick: The same, for calls that are shorter than giving Python's lock away and taking it again.
        instance: The handle that they take.

    Raises:
        OSError: Where it cannot be loaded.
        SsdtrtError: Where it is of another version, or does not start.
    """

    def __init__(self, folder: Path):
        path = str(next(iter(folder.glob("libnvimgcodec.so*")), folder / "libnvimgcodec.so"))
        self.free, self.quick = ctypes.CDLL(path), ctypes.PyDLL(path)
        for functions in (self.free, self.quick):
            for name, arguments in _SIGNATURES.items():
                getattr(functions, name).argtypes = arguments
        properties = _Properties()
        self.free.nvimgcodecGetProperties(byref(properties))
        if properties.version not in _VERSIONS:
            found = ".".join(map(str, divmod(properties.version // 100, 10)))
            raise SsdtrtError(f"nvImageCodec {found} is installed, and {VERSION} is needed; {pip_install(EXTRA)}")
        self.instance = c_void_p()
        info = _InstanceCreateInfo(load_builtin_modules=1)
        check(self.free.nvimgcodecInstanceCreate(byref(self.instance), byref(info)), "nvimgcodecInstanceCreate")
        self._folder, self._cuda, self._lock = folder, properties.cudart_version // 1000, threading.Lock()
        self._extended: set[str] = set()

    def extend(self, name: str) -> None:
        """Load the decoders of an extension. All of them at once would print which libraries other formats lack.

        Args:
            name: `nvjpeg` or `jpeg_turbo`.

        Raises:
            OSError: Where it, or nvJPEG, cannot be loaded.
            SsdtrtError: Where it does not start.
        """
        with self._lock:
            if name in self._extended:
                return
            if name == "nvjpeg":  # It would print that it does not find it, and go on.
                ctypes.CDLL(self._nvjpeg())
            description, extension, call = _ExtensionDesc(), c_void_p(), f"extension {name}"
            file = next((self._folder / "extensions").glob(f"lib{name}_ext.so*"), f"lib{name}_ext.so")
            check(ctypes.CDLL(str(file)).nvimgcodecExtensionModuleEntry(byref(description)), call)
            check(self.free.nvimgcodecExtensionCreate(self.instance, byref(extension), byref(description)), call)
            self._extended.add(name)

    def _nvjpeg(self) -> str:
        """Where nvJPEG is: in its package, with CUDA, or where the system finds it."""
        name = f"libnvjpeg.so.{self._cuda}"
        packages = (self._folder.parent / part / "lib" for part in ("nvjpeg", f"cu{self._cuda}"))
        folders = (*packages, Path("/usr/local/cuda/lib64"))
        return next((str(folder / name) for folder in folders if (folder / name).exists()), name)


_SIGNATURES = {
    "nvimgcodecGetProperties": (c_void_p,),
    "nvimgcodecInstanceCreate": (c_void_p, c_void_p),
    "nvimgcodecExtensionCreate": (c_void_p, c_void_p, c_void_p),
    "nvimgcodecDecoderCreate": (c_void_p, c_void_p, c_void_p, c_char_p),
    "nvimgcodecDecoderDestroy": (c_void_p,),
    "nvimgcodecDecoderDecode": (c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p),
    "nvimgcodecFutureWaitForAll": (c_void_p,),
    "nvimgcodecFutureGetProcessingStatus": (c_void_p, c_void_p, c_void_p),
    "nvimgcodecFutureDestroy": (c_void_p,),
    "nvimgcodecCodeStreamCreateFromHostMem": (c_void_p, c_void_p, c_void_p, c_size_t, c_void_p),
    "nvimgcodecCodeStreamGetImageInfo": (c_void_p, c_void_p),
    "nvimgcodecCodeStreamDestroy": (c_void_p,),
    "nvimgcodecImageCreate": (c_void_p, c_void_p, c_void_p),
    "nvimgcodecImageDestroy": (c_void_p,),
}


def check(status: int, what: str) -> None:
    """Raise an SsdtrtError for another status than success, of a call that begins to use nvImageCodec."""
    if status:
        raise SsdtrtError(f"nvImageCodec does not start ({what}: status {status}); update it: {pip_install(EXTRA)}")


@functools.cache
def load() -> Library:
    """Load nvImageCodec, once.

    Raises:
        SsdtrtError: Where it is not installed, cannot be loaded, or is of another version.
    """
    try:
        spec = importlib.util.find_spec("nvidia.nvimgcodec")
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SsdtrtError(f"nvImageCodec is not installed; {pip_install(EXTRA)}")
    with loading():
        return Library(Path(spec.submodule_search_locations[0]))


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Raise an SsdtrtError for a library that the block cannot load."""
    try:
        yield
    except OSError as error:
        raise SsdtrtError(f"nvImageCodec cannot be loaded ({error}); {pip_install(EXTRA)}") from error
