"""What runs in a process of its own: the test build, and an error in one line."""

import pytest
import torch

from ssdtrt.diagnosis import probe
from ssdtrt.diagnosis.probe import describe
from ssdtrt.engine import torch_tensorrt_backend
from ssdtrt.errors import CompileError


@pytest.mark.parametrize("scale, low, high", [(1.0, 1e-5, 2e-2), (1.5, 0.45, 0.55)])
def test_the_test_build_measures_the_distance(monkeypatch, scale, low, high):
    class Scaled(torch.nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers
            self.scale = scale

        def forward(self, images):
            return self.layers(images) * self.scale

    def compile_module(module, precision, batch, workspace_mib, device):
        assert (precision, str(batch)) == ("fp16", "1") and workspace_mib > 0
        assert module.layers[0].weight.dtype == torch.half
        return torch.jit.script(Scaled(module.layers.float()))  # Weights rounded to FP16, arithmetic in FP32.

    monkeypatch.setattr(torch_tensorrt_backend, "compile_module", compile_module)
    found = probe.test_build()
    assert low < found.relative_l2 < high and found.seconds >= 0


def test_a_test_build_that_is_not_finite(monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, images):
            return images[:, :1, ::2, ::2] * float("nan")

    monkeypatch.setattr(torch_tensorrt_backend, "compile_module", lambda *_: torch.jit.script(Broken()))
    assert probe.test_build().relative_l2 is None


@pytest.mark.parametrize(
    "error, line",
    [
        (CompileError("One sentence: found, expected, what to do."), "One sentence: found, expected, what to do."),
        (OSError("libnvinfer.so: no such file\nmore"), "OSError: libnvinfer.so: no such file"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_error_in_one_line(error, line):
    assert describe(error) == line
