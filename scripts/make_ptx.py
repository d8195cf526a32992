"""Compile ssdtrt/images/resize.cu to PTX with NVRTC, which needs no GPU.

    python scripts/make_ptx.py LIBNVRTC

LIBNVRTC is `libnvrtc.so.12`, such as that of the package nvidia-cuda-nvrtc-cu12. PTX is text that every driver since that of
CUDA 11.0 compiles for its own GPU when it is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "ssdtrt" / "images" / "resize.cu"
OLDEST_GPU = "compute_70"
PTX_VERSION = "7.0"  # of CUDA 11.0; the kernels need nothing newer


def main(library: str) -> None:
    """Write resize.ptx beside the source."""
    source = SOURCE.read_bytes()
    header = f"// NVRTC's output of {SOURCE.name}, SHA-256 {hashlib.sha256(source).hexdigest()}\n"
    ptx = re.sub(
        r"^\.version .*$", f".version {PTX_VERSION}", compiled(ctypes.CDLL(library), source), flags=re.MULTILINE
    )
    unused = ("//", ".global ")  # NVRTC's own constants
    ptx = "\n".join(line for line in ptx.splitlines() if line.strip() and not line.startswith(unused))
    SOURCE.with_suffix(".ptx").write_text(header + ptx + "\n", encoding="ascii")


def compiled(nvrtc: ctypes.CDLL, source: bytes) -> str:
    """The PTX of a source."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={OLDEST_GPU}".encode())
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, SOURCE.name.encode(), 0, None, None))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), options)
    check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetProgramLog(program, log))
    if failed:
        raise SystemExit(log.value.decode())
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx.value.decode()


def check(status: int) -> None:
    """Raise what NVRTC returns, but for success."""
    if status:
        raise SystemExit(f"NVRTC ended with status {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
