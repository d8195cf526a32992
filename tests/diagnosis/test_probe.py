"""What runs in a process of its own: the test build, and an error in one line."""

import copy

import pytest
import torch
from network_stand_in import Network, stand_in

from ssdtrt.artifact.request import BatchRange
from ssdtrt.diagnosis import probe
from ssdtrt.diagnosis.probe import describe
from ssdtrt.engine import tensorrt_backend
from ssdtrt.engine.network_writer import NetworkWriter
from ssdtrt.errors import CompileError
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.runners import runtime


class Rounded(torch.nn.Module):
    """In place of an engine: the weights that the writer gets, which are of FP16, and arithmetic in FP32."""

    def __init__(self, network, scale):
        super().__init__()
        self.layers = torch.nn.Sequential(copy.deepcopy(network.feature_extractor).float(), torch.nn.Flatten(2))
        self.scale = scale

    def forward(self, images):
        return self.layers(images) * self.scale


def with_scale(monkeypatch, scale):
    def build_plan(network, batch, limits):
        assert str(batch) == "1" and limits.workspace_mib > 0
        assert {each.dtype for each in network.parameters()} == {network.compute_dtype} == {torch.float16}
        return network

    monkeypatch.setattr(runtime, "import_torch_tensorrt", lambda: None)
    monkeypatch.setattr(runtime, "check_front_end", lambda _: None)
    monkeypatch.setattr(tensorrt_backend, "build_plan", build_plan)
    monkeypatch.setattr(tensorrt_backend, "embed", lambda network, _: torch.jit.script(Rounded(network, scale)))


def test_the_tiny_network_is_written_for_tensorrt_like_the_whole_one(model):
    tiny, images = probe.tiny_network(), torch.rand(1, 3, 300, 300)
    assert [name for name in vars(FusedSSD300(model)) if not hasattr(tiny, name)] == []
    network = Network(images, any_size=False)
    with torch.no_grad():
        NetworkWriter(stand_in(), network).write(tiny, BatchRange.parse(1))
        assert torch.equal(network.outputs[0].as_subclass(torch.Tensor), tiny(images))


@pytest.mark.parametrize("scale, low, high", [(1.0, 1e-5, 2e-2), (1.5, 0.45, 0.55)])
def test_the_test_build_measures_the_distance(monkeypatch, scale, low, high):
    with_scale(monkeypatch, scale)
    found = probe.test_build()
    assert low < found.relative_l2 < high and found.seconds >= 0


def test_a_test_build_that_is_not_finite(monkeypatch):
    with_scale(monkeypatch, float("nan"))
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
