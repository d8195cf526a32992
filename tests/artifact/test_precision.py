"""Tests of the precisions and back ends: each precision can be built, and an unknown back end is named."""

import pytest

from ssdtrt.artifact.precision import BACKENDS, PRECISIONS, find_backend
from ssdtrt.errors import CompileError


def test_every_precision_is_one_of_torchs_and_some_back_end_builds_it():
    for name, precision in PRECISIONS.items():
        assert precision.name == name and precision.dtype.is_floating_point
        assert any(name in backend.precisions for backend in BACKENDS.values())
        assert (precision.floor_share > 0) == (name != "fp32")  # What is not FP32 must not be as near to it as FP32 is,
        # and holds no FP32 weights. TensorRT keeps those of INT8 as it likes: its layers tell the types.
        assert (precision.max_bytes_per_parameter is not None) == (name in ("fp16", "bf16"))
        assert (precision.bound_share > 0) == (name == "int8")  # A distance that depends on the weights.


def test_an_unknown_back_end_is_one_line():
    with pytest.raises(CompileError, match=r"^Unknown backend 'tpu'; expected tensorrt or torchscript\.$"):
        find_backend("tpu")
