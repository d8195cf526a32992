"""Tests of recognizing the errors of a GPU."""

import pytest
import torch

from ssdtrt.errors import GpuError
from ssdtrt.system.gpu_errors import AFTER_FORK, gpu_error, gpu_errors, out_of_memory

INTERPRETER = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript, serialized code (most recent call last):
  File "code/__torch__/ssdtrt/engine/modules.py", line 41, in forward
RuntimeError: {}
"""
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.72 GiB"
FULL_SAID = "Free some (nvidia-smi shows who has it), or use smaller batches."
LOST_SAID = "What was finished is kept. Look at nvidia-smi and the system's log, and run again in a new process."


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.cuda.OutOfMemoryError(FULL), FULL),
        (torch.cuda.OutOfMemoryError("no text that is known"), "OutOfMemoryError"),
        (RuntimeError(INTERPRETER.format(FULL)), FULL),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), "CUDA error: out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
         "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)  # fmt: skip
def test_no_memory(error, reason):
    assert out_of_memory(error)
    assert str(gpu_error(error)) == f"The GPU has not enough memory ({reason}). {FULL_SAID}"


@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: unspecified launch failure",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA driver error: unknown error",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
@pytest.mark.parametrize("form", ["{}\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1", INTERPRETER])
def test_a_gpu_that_fails(line, form):
    error = RuntimeError(form.format(line))
    assert not out_of_memory(error)
    assert str(gpu_error(error)) == f"The GPU failed ({line}). {LOST_SAID}"


def test_torchs_own_class_of_newer_versions():
    kind = getattr(torch, "AcceleratorError", RuntimeError)
    assert issubclass(kind, RuntimeError)
    assert isinstance(gpu_error(RuntimeError("CUDA error: device-side assert triggered")), GpuError)


def test_a_forked_process():
    text = "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use 'spawn'"
    assert str(gpu_error(RuntimeError(text))) == AFTER_FORK


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[7]' is invalid for input of size 8"),
        RuntimeError(
            "CUDA error: no kernel image is available for execution on the device"
        ),  # The file was built for another GPU.
        RuntimeError(),
    ],
)
def test_everything_else_is_left_alone(error):
    assert gpu_error(error) is None and not out_of_memory(error)
    with pytest.raises(RuntimeError) as caught, gpu_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:83] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[Error thrown at core/runtime.cpp:78] Out of memory"),
    ],
)
def test_memory_of_the_host_is_memory_but_no_failure_of_the_gpu(error):
    assert out_of_memory(error)
    assert not isinstance(error, RuntimeError) or gpu_error(error) is None


def test_what_led_to_an_error_counts_as_memory():
    def ended(error, cause):
        try:
            try:
                raise error
            except type(error):
                if cause:
                    raise RuntimeError("capture failed") from error
                raise RuntimeError("capture failed")  # noqa: B904
        except RuntimeError as last:
            return last

    for cause in (True, False):
        assert out_of_memory(ended(torch.cuda.OutOfMemoryError(FULL), cause))
        assert out_of_memory(ended(MemoryError(), cause))
        assert not out_of_memory(ended(RuntimeError("operation not permitted when stream is capturing"), cause))
    assert not out_of_memory(None) and not out_of_memory(ValueError("out of memory"))


def test_errors_of_another_type_pass():
    with pytest.raises(ValueError), gpu_errors():
        raise ValueError("CUDA error: unknown error")


def test_the_cause_is_kept():
    error = RuntimeError("CUDA error: unknown error")
    with pytest.raises(GpuError) as caught, gpu_errors():
        raise error
    assert caught.value.__cause__ is error
