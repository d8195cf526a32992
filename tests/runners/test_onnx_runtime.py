"""Tests of ONNX files as runners: what they compute, what they know of themselves, and what they refuse."""

import ast
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from conftest import ROOT
from known import metadata_like
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.formats.onnx_file import append_record
from ssdtrt.images.decode import load_image
from ssdtrt.images.tensors import normalize, prepare, synthetic_images
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_batch
from ssdtrt.runners import onnx_runtime
from ssdtrt.runners.baseline import eager_model, find_module
from ssdtrt.runners.onnx_runtime import read_weights
from ssdtrt.runners.runner import FileRunner, load_engine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runner(onnx_file):
    return load_engine(onnx_file, "cpu")


@pytest.fixture(scope="module")
def detector(onnx_detector):
    return load_engine(onnx_detector, "cpu")


@pytest.fixture(scope="module")
def pixels(photographs):
    """The sample photographs as uint8 images [3, 3, 300, 300]."""
    return torch.stack([prepare(load_image(path)) for path in photographs])


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch_gives_what_the_model_gives(runner, model, count):
    images = synthetic_images(count, seed=21)
    with torch.no_grad():
        expected = model(images)
    found = runner(images)
    assert [tuple(part.shape) for part in found] == [(count, 4, 8732), (count, 81, 8732)]
    assert [part.dtype for part in found] == [torch.float32, torch.float32]
    assert all(0 < relative(*pair) < 1e-5 for pair in zip(found, expected))


def test_an_output_is_not_overwritten_by_the_next_call(runner):
    first = runner(synthetic_images(1, seed=1))
    copies = [part.clone() for part in first]
    runner(synthetic_images(1, seed=2))
    assert all(torch.equal(*pair) for pair in zip(first, copies))


def test_images_of_other_floats_and_strides_are_taken(runner):
    images = synthetic_images(2, seed=3)
    expected = runner(images)[0]
    assert torch.equal(runner(images.double())[0], expected)
    assert torch.equal(runner(images.to(memory_format=torch.channels_last))[0], expected)
    assert relative(runner(images.half())[0], expected) < 1e-2
    assert torch.equal(runner(runner.place(images))[0], expected)


def test_what_the_runners_know(runner, detector, onnx_file, onnx_detector):
    for one, path, kind in ((runner, onnx_file, "module"), (detector, onnx_detector, "detector")):
        assert isinstance(one, FileRunner)
        assert (one.path, one.name, one.device, one.batch, one.precision) == (path, path.name, CPU, None, "fp32")
        assert (one.metadata.kind, one.metadata.format, one.is_detector) == (kind, "onnx", kind == "detector")
        assert (one.preprocess, one.trained, one.graph) == ("eval", False, None)
        assert one.labels[:2] == ("background", "person") and len(one.labels) == 81


def test_a_detector_detects_what_the_eager_one_does(detector, model, pixels):
    boxes, labels, scores, counts = found = detector.detect(pixels)
    assert [tuple(part.shape) for part in found] == [(3, 200, 4), (3, 200), (3, 200), (3,)]
    assert [part.dtype for part in found] == [torch.float32, torch.int64, torch.float32, torch.int64]
    with torch.no_grad():
        expected = detect_batch(*model(normalize(pixels)), default_boxes())
    assert torch.equal(counts, expected[3]) and int(counts.min()) > 20
    assert float((scores - expected[2]).abs().max()) < 1e-4
    for image in range(3):  # Scores that differ by rounding alone may change places.
        near = (scores[image][:, None] - expected[2][image]).abs() < 1e-5
        same = near & (labels[image][:, None] == expected[1][image])
        same &= (boxes[image][:, None] - expected[0][image]).abs().amax(2) * 300 < 0.1
        assert bool(same.any(0).all()) and bool(same.any(1).all())


def test_a_call_of_a_detector_runs_its_network(detector, runner):
    images = synthetic_images(2, seed=4)
    assert all(relative(*pair) < 1e-6 for pair in zip(detector(images), runner(images)))


def test_a_pickled_runner_loads_the_file_again(runner):
    again = pickle.loads(pickle.dumps(runner))
    assert again is not runner and again.path == runner.path.absolute()
    images = synthetic_images(1, seed=5)
    assert torch.equal(again(images)[1], runner(images)[1])


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(2, 3, 300, 299), "takes images [N, 3, 300, 300]; found [2, 3, 300, 299]."),
        (torch.zeros(0, 3, 300, 300), "takes 1 image or more at once; found 0."),
        (torch.zeros(1, 3, 300, 300, dtype=torch.uint8), "of floats, normalized; found torch.uint8."),
        (np.zeros((1, 3, 300, 300)), "as a torch tensor; found ndarray."),
    ],
)
def test_other_images_are_refused(runner, images, found):
    with pytest.raises(ArtifactError) as caught:
        runner(images)
    assert str(caught.value).endswith(found)


def test_a_module_does_not_detect(runner):
    with pytest.raises(ArtifactError, match="is of the kind module; expected a detector.$"):
        runner.detect(torch.zeros(1, 3, 300, 300, dtype=torch.uint8))


def test_the_weights_are_read_back(onnx_file, onnx_detector, model):
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    for path in (onnx_file, onnx_detector):
        found = read_weights(path)
        assert found.keys() == model.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in state.items())


def test_the_baseline_of_an_onnx_file_has_its_weights(detector, model):
    path, reason = find_module(detector)
    assert (path, reason) == (detector.path, "")
    images = synthetic_images(1, seed=6)
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(eager_model(path, CPU)(images), model(images)))


def test_there_are_no_cuda_graphs(onnx_file, monkeypatch):
    with pytest.raises(ArtifactError, match="runs on the CPU here, where there are no CUDA graphs"):
        load_engine(onnx_file, "cpu", cuda_graph=True)
    monkeypatch.setattr(onnx_runtime, "choose_device", lambda device: torch.device("cuda", 0))
    with pytest.raises(
        ArtifactError, match="runs in ONNX Runtime, which has no CUDA graphs here; leave cuda_graph out"
    ):
        load_engine(onnx_file, cuda_graph=True)


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx"])
def test_a_missing_extra_is_one_line(missing, onnx_file, onnx_detector, monkeypatch):
    find_spec = onnx_runtime.importlib.util.find_spec
    hidden = SimpleNamespace(find_spec=lambda name: None if name == missing else find_spec(name))
    monkeypatch.setattr(onnx_runtime, "importlib", SimpleNamespace(util=hidden))
    with pytest.raises(SsdtrtError) as caught:
        if missing == "onnxruntime":
            load_engine(onnx_file)
        else:  # What the file's own NMS needs is onnxruntime alone; its network alone is cut out by onnx.
            detector = load_engine(onnx_detector, "cpu")
            detector(torch.zeros(1, 3, 300, 300))
    assert str(caught.value) == f"ONNX files need {missing}, not installed here: pip install 'ssdtrt[onnx]'"


@pytest.mark.parametrize("providers, device", [(["CPU"], "cpu"), (["CUDA", "CPU"], None)])
def test_by_default_it_runs_where_onnx_runtime_and_torch_both_can(providers, device, monkeypatch):
    import onnxruntime

    asked = []
    names = [f"{name}ExecutionProvider" for name in providers]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnx_runtime, "pick_device", lambda device: asked.append(device) or CPU)
    assert onnx_runtime.choose_device() == CPU and asked == [device]


def test_a_gpu_that_onnx_runtime_cannot_use(onnx_file, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnx_runtime, "pick_device", torch.device)
    with pytest.raises(SsdtrtError) as caught:
        load_engine(onnx_file, "cuda:1")
    assert str(caught.value) == (
        "ONNX Runtime cannot use cuda:1 here: it has no CUDAExecutionProvider. Install onnxruntime-gpu in place of "
        "onnxruntime, or run on the CPU."
    )


@pytest.mark.parametrize("works", [True, False])
def test_on_a_gpu_tf32_is_disabled_and_a_provider_that_does_not_start_is_said(works, monkeypatch):
    import onnxruntime

    asked = []

    def session(model, options, providers):
        asked.append((model, providers))
        names = ["CUDAExecutionProvider", "CPUExecutionProvider"] if works else ["CPUExecutionProvider"]
        return SimpleNamespace(get_providers=lambda: names)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    module = onnx_runtime.OnnxModule(lambda: b"model", torch.device("cuda", 1), "a.onnx")
    if works:
        assert module.open() is module
    else:
        with pytest.raises(SsdtrtError, match="has a CUDAExecutionProvider, but cannot start it here"):
            module.open()
    settings = {"device_id": 1, "use_tf32": 0}
    assert asked == [(b"model", [("CUDAExecutionProvider", settings), "CPUExecutionProvider"])]


def small(path, node):
    """Write an ONNX file of ours whose checksums are right, with one node and its output twice."""
    names = ("images", "loc", "conf")
    images, *outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 300, 300]) for name in names]
    graph = helper.make_graph([node, helper.make_node("Identity", ["loc"], ["conf"])], "small", [images], outputs)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    append_record(path, json.dumps({**metadata_like(), "format": "onnx"}).encode())
    return path


def test_a_graph_that_onnx_runtime_refuses(tmp_path):
    path = small(tmp_path / "a.onnx", helper.make_node("NoSuchOperator", ["images"], ["loc"]))
    with pytest.raises(ArtifactError) as caught:
        load_engine(path, "cpu")
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be loaded (") and message.endswith(". Make it again.")
    assert "NoSuchOperator" in message and "\n" not in message


def test_a_graph_that_fails_when_it_runs(tmp_path):
    path = small(tmp_path / "a.onnx", helper.make_node("Transpose", ["images"], ["loc"], perm=[0, 2, 1, 3]))
    with pytest.raises(ArtifactError, match=r"was loaded but does not run here \(.*\). Make it again.$"):
        load_engine(path, "cpu")


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = small(tmp_path / "a.onnx", helper.make_node("Log", ["images"], ["loc"]))
    with pytest.raises(ArtifactError, match="returns values that are not finite for an image of zeros"):
        load_engine(path, "cpu")


def test_it_takes_as_many_threads_as_torch(runner, monkeypatch):
    import onnxruntime

    seen = []
    make = onnxruntime.InferenceSession

    def session(model, options, providers):
        seen.append((options.intra_op_num_threads, providers))
        return make(model, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    load_engine(runner.path, "cpu")
    assert seen == [(torch.get_num_threads(), ["CPUExecutionProvider"])]


def test_onnx_is_imported_where_it_is_used():
    for path in (ROOT / "ssdtrt").rglob("*.py"):
        first = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.Import)]
        assert not {alias.name.split(".")[0] for node in first for alias in node.names} & {"onnx", "onnxruntime"}, path
