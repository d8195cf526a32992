"""The kernels that resize on a GPU, compiled for this processor: every byte as Pillow has it."""

import ctypes
import hashlib
import shutil
import subprocess
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from ssdtrt.images.gpu_resize import _is_tall, _pillow_weights, order_of_passes
from ssdtrt.images.resize_kernel import kernels_for

FOLDER = resources.files("ssdtrt.images")
# What CUDA has and C++ has not. A block runs one thread after the other.
AS_CPP = """
#include <algorithm>
#define __device__
#define __forceinline__ inline
#define __global__
struct { int x; } blockIdx, threadIdx, blockDim;
using std::min;
#include "resize.cu"
template <class Kernel, class... Sizes> void launch(Kernel kernel, int blocks, int threads, Sizes... given) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(given...);
}
extern "C" void width(int blocks, int threads, const unsigned char* pixels, unsigned char* out, const int* first,
                      const int* weights, int taps, int width) {
    launch(resize_width, blocks, threads, pixels, out, first, weights, taps, width);
}
extern "C" void height(int blocks, int threads, const unsigned char* pixels, unsigned char* out, const int* first,
                       const int* weights, int taps, int height, int row) {
    launch(resize_height, blocks, threads, pixels, out, first, weights, taps, height, row);
}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Launches a kernel by its name: blocks, threads, pictures, output, length along the side, and a row's bytes."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "kernels.cpp").write_text(AS_CPP)
    command = [compiler, "-O2", "-shared", "-fPIC", "-I", str(FOLDER), "kernels.cpp", "-o", "kernels.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernels.so"))

    def launch(name, blocks, threads, pixels, out, length, *row):
        arrays = [np.ascontiguousarray(one) for one in (pixels, *_pillow_weights(length))]
        pixels, first, weights = (one.ctypes.data_as(ctypes.c_void_p) for one in arrays)
        into = out.ctypes.data_as(ctypes.c_void_p)
        getattr(library, name)(blocks, threads, pixels, into, first, weights, arrays[2].shape[1], length, *row)
        return out

    return launch


def along_width(kernels, pixels, threads):
    n, height, width, _ = pixels.shape
    return kernels("width", n * height, threads, pixels, np.full((n, height, 300, 3), 77, np.uint8), width)


def along_height(kernels, pixels, threads):
    n, height, width, _ = pixels.shape
    return kernels("height", n * 300, threads, pixels, np.full((n, 300, width, 3), 77, np.uint8), height, 3 * width)


@pytest.mark.parametrize(
    "width, height", [(640, 480), (480, 640), (1, 700), (700, 1), (333, 500), (299, 302), (8, 8), (2600, 9), (310, 700)]
)
@pytest.mark.parametrize("threads", [160, 7])
def test_every_byte_is_pillows(kernels, width, height, threads):
    random = np.random.default_rng(width)
    pixels = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    pixels[1] = (pixels[1] > 127) * np.uint8(255)
    expected = [np.asarray(Image.fromarray(one).resize((300, 300), Image.Resampling.BILINEAR)) for one in pixels]
    steps = [along_width, along_height]
    if _is_tall(height, width) and order_of_passes() == "tall":
        steps.reverse()
    found = pixels
    for step in steps:
        found = step(kernels, found, threads)
    assert np.array_equal(found, expected)


def test_the_ptx_is_of_the_source():
    """Whoever changes one runs scripts/make_ptx.py."""
    source, ptx = ((FOLDER / f"resize.{kind}").read_text(encoding="ascii") for kind in ("cu", "ptx"))
    assert hashlib.sha256(source.encode()).hexdigest() in ptx.splitlines()[0]
    for kernel in ("resize_width", "resize_height"):
        assert f".visible .entry {kernel}(" in ptx and f"void {kernel}(" in source
    assert "\n.version 7.0\n.target sm_70\n" in ptx


def test_where_there_is_no_driver_there_are_no_kernels():
    assert kernels_for(torch.device("cpu")) is None
    if not torch.cuda.is_available():
        assert kernels_for(torch.device("cuda", 0)) is None
