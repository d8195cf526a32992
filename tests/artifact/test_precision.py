"""Tests of the precisions and back ends: each precision can be built, and an unknown back end is named."""

import pytest

from ssdtrt.artifact.precision import BACKENDS, PRECISIONS, find_backend
from ssdtrt.errors import CompileError


def test_every_precision_is_one_of_torchs_and_some_back_end_builds_it():
    for name, precision in PRECISIONS.items():
        assert precision.name == name and precision.dtype.is_floating_point
        assert any(name in backend.precisions for backend in BACKENDS.values())
        assert (precision.floor_share > 0) == (precision.max_bytes_per_parameter is not None) == (name != "fp32")


def test_an_unknown_back_end_is_one_line():
    with pytest.raises(CompileError, match=r"^Unknown backend 'tpu'; expected tensorrt or torchscript\.$"):
        find_backend("tpu")
