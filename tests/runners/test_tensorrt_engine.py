"""Tests of TensorRT's own runtime on torch's memory, with a stand-in of it that runs torch networks on the CPU."""

import base64
import gc
import pickle
import sys
import zipfile

import pytest
import tensorrt_stand_in
import torch

from ssdtrt.artifact.request import BatchRange
from ssdtrt.errors import ArtifactError, CompileError
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.runners.cuda_graph import CudaGraphRunner, _Captured
from ssdtrt.runners.tensorrt_engine import PlanNetwork, TensorRTEngine, plan_in_archive
from ssdtrt.runners.torchscript import quiet

CPU = torch.device("cpu")
VERSIONS = ["8.6.0", "10.0.0", "10.3.0"]


@pytest.fixture(scope="module")
def plan(model):
    """Return an FP32 plan for 2 to 4 images."""
    return tensorrt_stand_in.serialize(FusedSSD300(model), BatchRange.parse("2:2:4"))


def assert_is_eager(found, model, images):
    with torch.no_grad():
        expected = model(images)
    assert [part.shape for part in found] == [part.shape for part in expected]
    for part, other in zip(found, expected):
        assert part.dtype == torch.float32 and (part - other).norm() / other.norm() < 1e-5


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plan_runs_on_torchs_memory(plan, model, monkeypatch, version):
    package = tensorrt_stand_in.install(monkeypatch, version)
    engine = TensorRTEngine(plan, CPU)
    network = PlanNetwork(engine, 2)
    for count in (2, 4, 3, 2):
        images = synthetic_images(count, seed=count)
        assert_is_eager(network(images), model, images)
    (loaded,) = package.engines
    (context,) = loaded.contexts
    pointer = engine._memory.data_ptr()
    assert context().memory == ((pointer, 1000) if version == "10.3.0" else pointer)
    assert context().streams == [5] * 4


def test_both_outputs_are_parts_of_one_tensor(plan, monkeypatch):
    tensorrt_stand_in.install(monkeypatch)
    loc, conf = PlanNetwork(TensorRTEngine(plan, CPU), 2)(synthetic_images(2))
    assert conf.data_ptr() == loc.data_ptr() + 4 * 8732 * 4 and loc.stride() == conf.stride()


def test_a_smaller_batch_is_padded_with_zeros(plan, model, monkeypatch):
    package = tensorrt_stand_in.install(monkeypatch)
    network, images = PlanNetwork(TensorRTEngine(plan, CPU), 2), synthetic_images(1, seed=3)
    assert_is_eager(network(images), model, images)
    assert package.engines[0].contexts[0]().shape == (2, 3, 300, 300)


def test_other_floats_and_strides_are_taken(plan, model, monkeypatch):
    tensorrt_stand_in.install(monkeypatch)
    network, images = PlanNetwork(TensorRTEngine(plan, CPU), 2), synthetic_images(2, seed=3)
    assert_is_eager(network(images.double()), model, images)
    assert_is_eager(network(images.to(memory_format=torch.channels_last)), model, images)


def test_from_the_default_stream_it_runs_in_one_of_its_own(plan, model, monkeypatch):
    recorded = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded.append((tensor, stream)))
    package = tensorrt_stand_in.install(monkeypatch, caller=0)
    network, images = PlanNetwork(TensorRTEngine(plan, CPU), 2), synthetic_images(2)
    assert_is_eager(network(images), model, images)
    own = network._stream
    assert package.engines[0].contexts[0]().streams == [own.cuda_stream] == [7]
    assert own.waited == [package.caller] and package.caller.waited == [own]
    assert [stream for _, stream in recorded] == [own, own] and recorded[0][0] is images


@pytest.mark.parametrize("version", VERSIONS)
def test_what_tensorrt_does_not_load_is_one_clear_line(monkeypatch, version, capsys):
    tensorrt_stand_in.install(monkeypatch, version)
    with pytest.raises(ArtifactError) as caught:
        TensorRTEngine(b"other", CPU)
    assert str(caught.value) == "TensorRT cannot load the engine (magicTag does not match). Build it again."
    assert capsys.readouterr().err == "TensorRT: magicTag does not match\nin parseMagic\n"


def test_without_tensorrt_that_is_said(plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(CompileError, match="^TensorRT cannot be imported"):
        TensorRTEngine(plan, CPU)


def test_other_tensors_are_refused(plan, monkeypatch):
    tensorrt_stand_in.install(monkeypatch)
    monkeypatch.setattr(tensorrt_stand_in.Engine, "names", ("images", "loc", "conf"))
    with pytest.raises(ArtifactError) as caught:
        TensorRTEngine(plan, CPU)
    assert str(caught.value) == "The engine has the tensors images, loc, conf; expected one input and one output."


@pytest.mark.parametrize("version", VERSIONS)
def test_a_context_that_cannot_be_made_is_one_clear_line(plan, monkeypatch, version):
    tensorrt_stand_in.install(monkeypatch, version)
    monkeypatch.setattr(tensorrt_stand_in.Engine, "_create", lambda engine, kind: lambda *strategy: None)
    with pytest.raises(ArtifactError) as caught:
        PlanNetwork(TensorRTEngine(plan, CPU), 2)
    assert str(caught.value) == "TensorRT could not create an execution context (no reason reported)."


def test_what_a_context_refuses_is_one_clear_line(plan, monkeypatch):
    package = tensorrt_stand_in.install(monkeypatch)
    network = PlanNetwork(TensorRTEngine(plan, CPU), 2)
    with pytest.raises(RuntimeError, match=r"^TensorRT refused the shape \[5, 3, 300, 300\]$"):
        network(torch.zeros(5, 3, 300, 300))
    package.engines[0].contexts[0]().accepts = False
    with pytest.raises(RuntimeError, match="^TensorRT refused the call$"):
        network(torch.zeros(2, 3, 300, 300))


class Graphs(CudaGraphRunner):
    """Call the function again, in place of a captured graph."""

    def _capture(self, inputs):
        function = self._renew()
        return _Captured(inputs, lambda: None, function(*inputs), function)


def test_each_graph_has_a_context_of_its_own_which_is_dropped_with_it(model, monkeypatch):
    package = tensorrt_stand_in.install(monkeypatch)
    engine = TensorRTEngine(tensorrt_stand_in.serialize(FusedSSD300(model), BatchRange.parse("1:1:4")), CPU)
    network = PlanNetwork(engine, 1)
    runner = Graphs(network, CPU, limit=2, renew=network.another)
    for count in (1, 2, 3):
        images = synthetic_images(count, seed=count)
        assert_is_eager(runner(images), model, images)
        gc.collect()
    contexts = [reference() for reference in package.engines[0].contexts]
    assert len(package.engines) == 1 and len(contexts) == 4
    assert contexts[0] is network._context and contexts[1] is None
    kept = [graph.function for graph in runner.graphs.values()]
    assert [each._context for each in kept] == contexts[2:] and all(each.engine is engine for each in kept)
    assert contexts[2].memory == contexts[3].memory == contexts[0].memory


# A plan inside an engine file


class Holder(torch.nn.Module):
    """A module whose state is a text, as that of an engine of Torch-TensorRT is."""

    text: str

    def __init__(self, text):
        super().__init__()
        self.text = text

    def forward(self, images: torch.Tensor):
        return images


@pytest.mark.parametrize("size", [5, 1000, 1001, 1002])
def test_a_plan_in_base64_is_found_in_what_torch_saves(tmp_path, size):
    serialized = b"ftrt" + bytes(number * 7 % 256 for number in range(size))
    with quiet():
        torch.jit.script(Holder(base64.b64encode(serialized).decode())).save(tmp_path / "a.ts")
    assert plan_in_archive(tmp_path / "a.ts") == serialized


def write_archive(path, *texts, name="a/data.pkl"):
    pickled = pickle.dumps([], protocol=2)[:-1]
    for text in texts:
        pickled += b"X" + len(text).to_bytes(4, "little") + text
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr(name, pickled + b".")
    return path


PLAN = b"ftrt" + bytes(range(256))


def test_a_plan_as_it_is_is_found(tmp_path):
    assert plan_in_archive(write_archive(tmp_path / "a.ts", b"10.3", PLAN, b"after")) == PLAN


@pytest.mark.parametrize(
    "texts, name",
    [
        ((), "a/data.pkl"),
        ((b"no plan",), "a/data.pkl"),
        ((b"0" + PLAN,), "a/data.pkl"),  # Not at the beginning of a text.
        ((base64.b64encode(PLAN)[:-1] + b"\xff",), "a/data.pkl"),
        ((PLAN,), "a/other.pkl"),
    ],
)
def test_where_it_is_not_expected_there_is_none(tmp_path, texts, name):
    assert plan_in_archive(write_archive(tmp_path / "a.ts", *texts, name=name)) is None


def test_a_text_that_ends_before_its_length_is_no_plan(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ts", "w") as archive:
        archive.writestr("a/data.pkl", b"X" + (1000).to_bytes(4, "little") + PLAN)
    assert plan_in_archive(tmp_path / "a.ts") is None
