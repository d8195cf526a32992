"""Tests of building through TensorRT's own API, with a stand-in that runs the layers with torch."""

import enum
import gc
import sys
import weakref
from types import ModuleType, SimpleNamespace

import pytest
import torch
from network_stand_in import Network, stand_in
from torch import Tensor
from torch_tensorrt_stand_in import SIGNATURES
from torch_tensorrt_stand_in import stand_in as package_stand_in

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine import tensorrt_backend
from ssdtrt.engine.cache import read_timing_cache
from ssdtrt.engine.network_writer import NetworkWriter
from ssdtrt.engine.tensorrt_backend import BuildLimits, serialize
from ssdtrt.errors import BuilderError, CompileError
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.quantization.calibration import calibrate
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import convolutions, quantize


def written(fused: FusedSSD300, images: Tensor, batch: str = "") -> Tensor:
    """Return the output of the network that is written for a batch range, or the batch size of the images."""
    network = Network(images, any_size=bool(batch))
    with torch.no_grad():
        NetworkWriter(stand_in(), network).write(fused, BatchRange.parse(batch or len(images)))
    (found,) = network.outputs
    assert found.name == "loc_conf"
    return found.as_subclass(Tensor)


@pytest.mark.parametrize("projections, batch", [(True, ""), (False, ""), (True, "1:2:4")])
def test_what_is_written_is_the_network(model, projections, batch):
    images = synthetic_images(2, seed=5)
    fused = FusedSSD300(model, fold_projections=projections)
    with torch.no_grad():
        assert torch.equal(written(fused, images, batch), fused(images))


def test_in_half_all_but_the_edges_is_half(model):
    images = synthetic_images(1, seed=5)
    with torch.no_grad():
        expected = FusedSSD300(model)(images)
    found = written(FusedSSD300(model, torch.float16), images)
    assert found.dtype == torch.float32
    assert 5e-4 < (found - expected).norm() / expected.norm() < 1e-2


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("projections", [True, False])
def test_a_quantized_network_is_written_as_it_computes_in_torch(model, projections, typed):
    images = synthetic_images(1, seed=5)
    ranges = calibrate(model, synthetic_pictures(1, seed=6), "max", "eval").ranges
    fused = quantize(FusedSSD300(model, fold_projections=projections), ranges)
    network = Network(images, any_size=False, typed=typed)
    with torch.no_grad():
        NetworkWriter(stand_in(), network, typed).write(fused, ONE)
        assert torch.equal(network.outputs[0].as_subclass(Tensor), fused(images))
    activations = [(name, *scale) for name, scale in network.quantized if len(scale) == 1]
    assert len(activations) == len(set(activations))  # One pair for all that read a tensor in one scale.
    # 57 convolutions with the projections folded, of which 6 read what another one reads too, and 59 with 8 of them apart;
    # and the projections that are added: one, or three.
    assert len(activations) == (57 - 6 + 1 if projections else 59 - 8 + 3)


@pytest.mark.parametrize("typed", [False, True])
def test_layers_that_stay_are_half_by_casts_where_types_are_the_networks(model, typed):
    images = synthetic_images(1, seed=5)
    ranges = calibrate(model, synthetic_pictures(1, seed=6), "max", "eval").ranges
    fused = quantize(FusedSSD300(model), ranges, {name for name, _ in convolutions(FusedSSD300(model))})
    network = Network(images, any_size=False, typed=typed)
    with torch.no_grad():
        NetworkWriter(stand_in(), network, typed).write(fused, ONE)
        expected = fused(images)
    distance = (network.outputs[0].as_subclass(Tensor) - expected).norm() / expected.norm()
    assert network.quantized == [] and (5e-4 < distance < 1e-2 if typed else distance == 0)


def test_another_module_is_refused(model):
    fused = FusedSSD300(model)
    fused.additional_blocks[2][2] = torch.nn.Sigmoid()
    with pytest.raises(TypeError, match="^Sigmoid is not a layer of FusedSSD300$"):
        written(fused, synthetic_images(1, seed=5))


class Severity(enum.IntEnum):
    """TensorRT's severities, in the same order."""

    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Logger:
    """The base class of TensorRT's loggers."""

    ERROR, WARNING = Severity.ERROR, Severity.WARNING


def fake_tensorrt(messages=(), plan=b"plan", accepts=lambda times: True, sharing=True):
    """Return a TensorRT that logs messages, and returns or raises `plan`.

    `accepts` decides whether it accepts a timing cache; `sharing` says whether it is 8.6, where several contexts on one
    optimization profile are a preview. Its attribute `recorded` has the settings of the build.
    """
    recorded = SimpleNamespace(flags=set(), cleared=set(), limits={}, profiles=[], previews=set())

    class Config:
        max_aux_streams = None

        def set_flag(self, flag):
            recorded.flags.add(flag)

        def clear_flag(self, flag):
            recorded.cleared.add(flag)

        def set_preview_feature(self, feature, enabled):
            assert enabled is True
            recorded.previews.add(feature)

        def set_memory_pool_limit(self, pool, limit):
            recorded.limits[pool] = limit

        def add_optimization_profile(self, profile):
            recorded.profiles.append(profile.shapes)

        def create_timing_cache(self, timing_cache):
            recorded.timing_cache = timing_cache
            return SimpleNamespace(serialize=lambda: bytearray(timing_cache + b"+"))

        def set_timing_cache(self, cache, ignore_mismatch):
            assert ignore_mismatch is False
            recorded.attached = recorded.timing_cache if accepts(recorded.timing_cache) else None
            return accepts(recorded.timing_cache)

    class Builder:
        def __init__(self, log):
            self.log = log

        def create_network(self, flags):
            recorded.network_flags = flags
            return "network"

        def create_optimization_profile(self):
            profile = SimpleNamespace(shapes={})
            profile.set_shape = lambda name, *shapes: profile.shapes.update({name: shapes})
            return profile

        def create_builder_config(self):
            recorded.settings = Config()
            return recorded.settings

        def build_serialized_network(self, network, settings):
            assert network == "network" and settings is recorded.settings
            for severity, message in messages:
                self.log.log(severity, message)
            if isinstance(plan, Exception):
                raise plan
            return plan

    package = ModuleType("tensorrt")
    package.__version__ = "8.6.0"
    package.recorded, package.ILogger, package.Builder, package.IBuilderConfig = recorded, Logger, Builder, Config
    package.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
    package.BuilderFlag = SimpleNamespace(FP16="FP16", INT8="INT8", TF32="TF32")
    package.PreviewFeature = SimpleNamespace(**({"PROFILE_SHARING_0806": "sharing"} if sharing else {}))
    package.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    package.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    return package


@pytest.fixture
def fused(model, monkeypatch):
    """Return a fused network, and make the writer write nothing; other tests cover it."""
    monkeypatch.setattr(NetworkWriter, "write", lambda self, fused, batch: None)
    return FusedSSD300(model)


ONE, EIGHT = BatchRange.parse(1), BatchRange.parse(8)


def test_what_is_asked_of_tensorrt(model, fused):
    tensorrt = fake_tensorrt()
    assert serialize(tensorrt, fused, EIGHT, BuildLimits(4, 64), b"times") == (b"plan", b"times+")
    recorded = tensorrt.recorded
    assert (recorded.flags, recorded.cleared, recorded.limits) == (set(), {"TF32"}, {"workspace": 67_108_864})
    assert (recorded.settings.max_aux_streams, recorded.settings.avg_timing_iterations, recorded.timing_cache) == (
        4,
        16,
        b"times",
    )
    assert recorded.attached == b"times" and recorded.profiles == []
    assert (recorded.settings.profiling_verbosity, recorded.previews) == ("detailed", {"sharing"})
    serialize(tensorrt, FusedSSD300(model, torch.float16), BatchRange.parse("1:128:256"), BuildLimits(0, 1))
    assert recorded.flags == {"FP16"} and recorded.settings.avg_timing_iterations == 1
    assert recorded.settings.max_aux_streams is None  # TensorRT's own choice.
    assert recorded.profiles == [{"images": tuple((size, 3, 300, 300) for size in (1, 128, 256))}]


def test_where_contexts_share_a_profile_anyway_that_is_not_asked_for(fused):
    tensorrt = fake_tensorrt(sharing=False)
    serialize(tensorrt, fused, EIGHT, BuildLimits())
    assert (tensorrt.recorded.settings.profiling_verbosity, tensorrt.recorded.previews) == ("detailed", set())


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    "names, flags, set_by_us",
    [
        ({"EXPLICIT_BATCH": 0}, 1, {"FP16", "INT8"}),  # TensorRT 8.6
        ({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 2, set()),  # 10
        ({"STRONGLY_TYPED": 1}, 2, set()),  # TensorRT-RTX with the API of 11
        ({}, 0, set()),  # 11
    ],
)
def test_the_types_are_the_networks_where_tensorrt_can_do_that(model, fused, names, flags, set_by_us, quantized):
    tensorrt = fake_tensorrt()
    tensorrt.NetworkDefinitionCreationFlag = SimpleNamespace(**names)
    if not set_by_us:
        del tensorrt.BuilderFlag.FP16, tensorrt.BuilderFlag.INT8
    network = FusedSSD300(model, torch.float32 if quantized else torch.float16)
    network.quantized = quantized
    serialize(tensorrt, network, ONE, BuildLimits())
    both = {"FP16", "INT8"} if quantized else {"FP16"}  # What is not quantized may be FP16.
    assert (tensorrt.recorded.network_flags, tensorrt.recorded.flags) == (flags, both & set_by_us)


@pytest.mark.parametrize(
    "messages, reason",
    [
        ([], "no reason reported"),
        ([(Severity.WARNING, "slow")], "no reason reported"),
        ([(Severity.ERROR, ""), (Severity.ERROR, "no memory")], "no memory"),
        ([(Severity.INFO, "x"), (Severity.ERROR, "no memory\nfor this"), (Severity.INTERNAL_ERROR, "b")], "no memory"),
    ],
)
def test_what_tensorrt_calls_an_error_is_the_reason(fused, messages, reason, capsys):
    with pytest.raises(BuilderError) as caught:
        serialize(fake_tensorrt(messages, plan=None), fused, ONE, BuildLimits())
    assert str(caught.value) == f"TensorRT could not build the engine ({reason})."
    assert capsys.readouterr().err == "".join(f"TensorRT: {text}\n" for kind, text in messages if kind != Severity.INFO)


def test_times_that_tensorrt_does_not_take_are_left_out(fused):
    tensorrt = fake_tensorrt(accepts=lambda times: not times)
    assert serialize(tensorrt, fused, ONE, BuildLimits(), b"of another GPU") == (b"plan", b"+")
    assert tensorrt.recorded.attached == b""


@pytest.mark.parametrize(
    "messages, error, reason",
    [
        ([], AttributeError("'NoneType' object has no attribute 'get_output'"), "'NoneType' object has no attribute"),
        ([(Severity.ERROR, "no GPU")], TypeError("factory function returned nullptr"), "no GPU"),
        ([], RuntimeError(), "RuntimeError"),
    ],
)
def test_what_tensorrt_raises_is_the_reason_where_it_says_nothing(fused, messages, error, reason):
    with pytest.raises(BuilderError) as caught:
        serialize(fake_tensorrt(messages, plan=error), fused, ONE, BuildLimits())
    assert str(caught.value).startswith(f"TensorRT could not build the engine ({reason}")


def test_the_weights_are_held_until_the_engine_is_built(model):
    kept = []

    def weights(array):
        kept.append(weakref.ref(array))
        return torch.from_numpy(array.copy())

    images = synthetic_images(1, seed=5)
    writer = NetworkWriter(stand_in(Weights=weights), Network(images, any_size=False))
    with torch.no_grad():
        writer.write(FusedSSD300(model), ONE)
    gc.collect()
    # 57 convolutions, each with a weight and a bias.
    assert len(kept) == 114 and all(array() is not None for array in kept)


def test_another_api_of_tensorrt_is_named(model, fused):
    tensorrt = fake_tensorrt()
    del tensorrt.BuilderFlag.FP16, tensorrt.IBuilderConfig.max_aux_streams
    tensorrt.__version__ = "8.4.0"
    serialize(tensorrt, fused, ONE, BuildLimits())
    with pytest.raises(CompileError) as caught:
        serialize(tensorrt, fused, ONE, BuildLimits(streams=4))
    message = "TensorRT 8.4.0 has no IBuilderConfig.max_aux_streams, which engines with auxiliary streams need"
    assert str(caught.value) == f"{message} (TensorRT 8.6 has it)."
    with pytest.raises(CompileError) as caught:
        serialize(tensorrt, FusedSSD300(model, torch.float16), ONE, BuildLimits())
    message = "TensorRT 8.4.0 has no BuilderFlag.FP16, which engines in FP16 need (TensorRT 8.6 has it)."
    assert str(caught.value) == message


def test_the_times_are_kept(fused, monkeypatch, tmp_path):
    tensorrt, timing_cache = fake_tensorrt(), tmp_path / "engines" / "times.bin"
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    limits = BuildLimits(4, 64)
    assert tensorrt_backend.build_plan(fused, ONE, limits, timing_cache) == b"plan"
    assert read_timing_cache(timing_cache) == b"+"
    tensorrt_backend.build_plan(fused, ONE, limits, timing_cache)
    assert tensorrt.recorded.timing_cache == b"+" and read_timing_cache(timing_cache) == b"++"
    tensorrt_backend.build_plan(fused, ONE, limits)
    assert tensorrt.recorded.timing_cache == b""


@pytest.mark.parametrize("broken", [None, "no libnvinfer.so"])
def test_a_tensorrt_that_cannot_be_imported_is_one_clear_error(fused, monkeypatch, tmp_path, broken):
    if broken:
        (tmp_path / "tensorrt.py").write_text(f"raise OSError({broken!r})")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        CompileError, match=rf"^TensorRT cannot be imported \({broken or 'import of'}.*\)\. pip install [^\n]*$"
    ):
        tensorrt_backend.build_plan(fused, ONE, BuildLimits())


def test_the_engine_is_embedded_by_torch_tensorrt(monkeypatch):
    calls, package = [], package_stand_in("2.2.0")
    package.ts = SimpleNamespace(embed_engine_in_new_module=lambda plan, **arguments: calls.append((plan, arguments)))
    package.Device = lambda name: ("device", name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    tensorrt_backend.embed(b"plan", torch.device("cuda", 1))
    names = {"input_binding_names": ["images"], "output_binding_names": ["loc_conf"]}
    assert calls == [(b"plan", {**names, "device": ("device", "cuda:1")})]
    for version, signatures in SIGNATURES.items():
        parameters = set(signatures["ts.embed_engine_in_new_module"]["parameters"])
        assert {"serialized_engine", *calls[0][1]} == parameters, version


def test_an_engine_that_cannot_be_embedded_is_one_clear_error(monkeypatch):
    def fail(plan, **arguments):
        raise RuntimeError("Unable to deserialize\nthe engine")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    package = package_stand_in("2.2.0")
    package.ts.embed_engine_in_new_module, package.Device = fail, lambda name: name
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    with pytest.raises(CompileError) as caught:
        tensorrt_backend.embed(b"plan", torch.device("cpu"))
    assert str(caught.value) == "Torch-TensorRT could not embed the engine (Unable to deserialize)."
