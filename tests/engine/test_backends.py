"""Tests of the table of back ends: every possible request has a builder, which gets the arguments of the job."""

import importlib
from pathlib import Path

import pytest
import torch

from ssdtrt.artifact import torchscript
from ssdtrt.artifact.precision import BACKENDS, PRECISIONS, find_backend
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.engine import tensorrt_backend, torch_tensorrt_backend
from ssdtrt.engine.backends import _MODULES, build_network
from ssdtrt.engine.build import BuildJob
from ssdtrt.engine.modules import EngineModule
from ssdtrt.engine.rewrite import FusedNetwork, FusedSSD300
from ssdtrt.errors import CompileError


def job_for(timing_cache=None, **options):
    request = BuildRequest(weights="0" * 64, graph="1" * 64, preprocess="eval", workspace_mib=64, **options)
    return BuildJob(request=request, module="m.ts", out="a.ts", device="cpu", timing_cache=timing_cache, parent=1)


def test_every_request_has_a_builder():
    for backend in BACKENDS.values():
        for front_end in backend.front_ends or (None,):
            name = _MODULES[backend.name, front_end]
            assert callable(importlib.import_module(f"ssdtrt.engine.{name}").build)


def test_every_precision_is_one_of_torchs_and_some_back_end_builds_it():
    for name, precision in PRECISIONS.items():
        assert precision.name == name and precision.dtype.is_floating_point
        assert any(name in backend.precisions for backend in BACKENDS.values())
        assert (precision.floor_share > 0) == (precision.max_bytes_per_parameter is not None) == (name != "fp32")


def test_an_unknown_back_end_is_one_line():
    with pytest.raises(CompileError, match=r"^Unknown backend 'tpu'; expected tensorrt or torchscript\.$"):
        find_backend("tpu")


@pytest.mark.parametrize(
    "front_end, batch, streams, cached",
    [
        ("torchscript", "8", 0, None),
        ("torchscript", "1:8:32", 0, None),
        ("tensorrt", "8", 4, None),
        ("tensorrt", "1:8:32", 0, "engines/timings.bin"),
    ],
)
def test_each_front_end_builds_what_was_asked_for(model, monkeypatch, front_end, batch, streams, cached):
    calls = []

    def take(name):
        def called(form, *rest):
            calls.append((name, form, rest))
            with torchscript.quiet():
                return torch.jit.trace(torch.nn.Identity(), torch.zeros(1))

        return called

    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for backend in (torch_tensorrt_backend, tensorrt_backend):
        monkeypatch.setattr(backend, "eager_model", lambda module, device: model)
    monkeypatch.setattr(torch_tensorrt_backend, "compile_module", take("front end"))
    # Tracing runs the network, and a CPU takes minutes for FP16; it has tests of its own.
    monkeypatch.setattr(torch_tensorrt_backend.rewrite, "trace", lambda network, device: network)
    monkeypatch.setattr(tensorrt_backend, "build_module", take("own API"))
    asked = {"front_end": front_end, "batch": batch, "streams": streams}
    engine = build_network(job_for(backend="tensorrt", precision="fp16", timing_cache=cached, **asked))
    sizes = BatchRange.parse(batch)
    assert isinstance(engine, EngineModule) and (engine.min_batch, engine.max_batch) == (sizes.min, sizes.max)
    network = engine.network
    assert type(network) is FusedNetwork and isinstance(network.network, torch.jit.ScriptModule)
    ((name, form, rest),) = calls
    device = torch.device("cpu")
    assert isinstance(form, FusedSSD300)
    assert {parameter.dtype for parameter in form.parameters()} == {torch.float16}
    if front_end == "tensorrt":
        assert (name, rest) == ("own API", (sizes, streams, 64, device, cached and Path(cached)))
    else:
        assert (name, rest) == ("front end", ("fp16", sizes, 64, device))
