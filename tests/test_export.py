"""Tests of exporting: the saved file is the eager model, for every program that loads TorchScript or ONNX."""

import datetime
import hashlib
import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import narrow
import numpy as np
import onnx
import pytest
import torch
from forked_builds import forked

import ssdtrt
from conftest import assert_same_detections
from ssdtrt import export as exporting
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.detect import Detector
from ssdtrt.errors import ArtifactError, ImageError, ParityError, SsdtrtError
from ssdtrt.export import export_module, export_onnx
from ssdtrt.exporting import detections, network
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.labels import class_names
from ssdtrt.model.weights import model_from_state
from ssdtrt.runners import onnx_runtime, torchscript
from ssdtrt.runners.baseline import baseline_runners
from ssdtrt.runners.runner import load_engine

PLAIN_LOADER = """
import sys
sys.modules["ssdtrt"] = None  # from here on `import ssdtrt` fails
import torch
images = torch.load("images.pt")
for path in sys.argv[1:]:
    module = torch.jit.load(path)
    with torch.no_grad():
        torch.save([module(batch) for batch in images], path + ".answers")
"""


@pytest.fixture(scope="session")
def scripted(model, tmp_path_factory):
    """The random model, exported by scripting."""
    return export_module(model, tmp_path_factory.mktemp("scripted") / "scripted.ts", method="script")


@pytest.fixture(scope="session")
def metadata(module):
    with zipfile.ZipFile(module) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        return json.loads(archive.read(name))


class Toy(torch.nn.Module):
    """A cheap module with the attributes that the export reads."""

    num_classes = 81

    def forward(self, images):
        mean = images.mean((1, 2, 3))[:, None, None]
        return mean.expand(-1, 4, 10), self.spoil(mean.expand(-1, 81, 10), images)

    def spoil(self, conf, images):
        return conf


class CountsItsCalls(Toy):
    """Return outputs that depend on Python state, which a trace makes constant."""

    calls = 0

    def spoil(self, conf, images):
        self.calls += 1
        return conf * self.calls


class KnowsOneImage(Toy):
    """Return other outputs for one image than for more, which only another batch size than the traced one shows."""

    def spoil(self, conf, images):
        return conf if len(images) == 1 else conf * 3


class AnswersNaN(Toy):
    def spoil(self, conf, images):
        return conf / 0 * 0


class IsALittleOff(Toy):
    """Return outputs that differ by 2e-5 after the first call, which is above the bound of the export."""

    calls = 0

    def spoil(self, conf, images):
        self.calls += 1
        return conf * (1 + 2e-5 * (self.calls > 1))


def test_plain_torch_loads_both_kinds_without_ssdtrt_and_answers_bit_for_bit(model, module, scripted, tmp_path):
    images = [synthetic_images(1, seed=11), synthetic_images(4, seed=12)]
    torch.save(images, tmp_path / "images.pt")
    copies = []
    for path in (module, scripted):
        copies.append(tmp_path / path.name)
        copies[-1].symlink_to(path)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_LOADER, *(path.name for path in copies)], cwd=tmp_path, check=True
    )
    with torch.no_grad():
        expected = [model(batch) for batch in images]
    assert [tuple(part.shape) for part in expected[1]] == [(4, 4, 8732), (4, 81, 8732)]
    for path in copies:
        answers = torch.load(f"{path}.answers")
        for found, wanted in zip(answers, expected):
            assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


@pytest.mark.parametrize(
    "kind, of, parameters",
    [("module", "model", 714_282), ("scripted", "model", 714_282)],
)
def test_the_file_holds_every_weight_unchanged_and_not_frozen(request, kind, of, parameters):
    path = request.getfixturevalue(kind)
    loaded = torchscript.load(path).state_dict()
    original = request.getfixturevalue(of).state_dict()
    weights = {key: value for key, value in loaded.items() if not re.search("running_|num_batches", key)}
    assert sum(value.numel() for value in weights.values()) == parameters == read_metadata(path).model.parameters
    assert loaded.keys() == original.keys()
    assert all(torch.equal(loaded[key], original[key]) for key in original)


def test_metadata_says_everything(metadata):
    assert set(metadata) == {
        "schema", "kind", "format", "created", "versions", "machine", "model", "inputs", "outputs", "export"
    }  # fmt: skip
    assert (metadata["schema"], metadata["kind"], metadata["format"]) == (2, "module", "torchscript")
    created = datetime.datetime.fromisoformat(metadata["created"])
    age = datetime.datetime.now(datetime.timezone.utc) - created
    assert datetime.timedelta(0) <= age + datetime.timedelta(seconds=1) < datetime.timedelta(hours=1)
    assert metadata["export"] == {"method": "trace"}
    assert metadata["inputs"] == [{"name": "images", "shape": ["N", 3, 300, 300], "dtype": "float32"}]
    assert metadata["outputs"] == [
        {"name": "loc", "shape": ["N", 4, 8732], "dtype": "float32"},
        {"name": "conf", "shape": ["N", 81, 8732], "dtype": "float32"},
    ]


def test_metadata_names_the_machine_and_the_versions(metadata):
    versions = metadata["versions"]
    assert set(versions) == {
        "ssdtrt", "python", "torch", "torchvision", "torch_tensorrt", "tensorrt", "cuda", "driver"
    }  # fmt: skip
    assert versions["ssdtrt"] == ssdtrt.__version__ and versions["torch"] == torch.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(metadata["machine"]) == {"os", "architecture", "cpu", "cores", "gpu", "sm"}
    assert metadata["machine"]["cores"] >= 1 and metadata["machine"]["gpu"] is None


def test_metadata_describes_the_model(metadata, model):
    described = metadata["model"]
    assert set(described) == {
        "architecture", "num_classes", "parameters", "labels", "weights", "default_boxes_sha256", "preprocess"
    }  # fmt: skip
    assert (described["architecture"], described["num_classes"]) == ("ssd300-resnet50", 81)
    assert described["parameters"] == 714_282
    assert described["preprocess"] == "eval"
    assert len(described["labels"]) == 81
    assert described["labels"][:3] == ["background", "person", "bicycle"] and described["labels"][80] == "toothbrush"
    weights = described["weights"]
    assert (weights["name"], weights["trained"], weights["file_sha256"]) == ("random", False, None)
    assert weights["sha256"] == digest_of(model.state_dict())


def test_the_way_to_prepare_pictures_is_recorded(tmp_path):
    for asked in ("eval", "hub"):
        with zipfile.ZipFile(export_module(Toy(), tmp_path / "toy.ts", preprocess=asked)) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
            assert json.loads(archive.read(name))["model"]["preprocess"] == asked


def test_another_way_to_prepare_pictures_is_refused(tmp_path):
    with pytest.raises(ImageError) as caught:
        export_module(Toy(), tmp_path / "toy.ts", preprocess="imagenet")
    assert str(caught.value) == "Unknown preprocessing 'imagenet'; expected 'eval' or 'hub'."
    assert list(tmp_path.iterdir()) == []


def test_the_default_boxes_digest_is_that_of_the_formula(metadata):
    boxes = []
    scales = [21, 45, 99, 153, 207, 261, 315]
    ratios = [(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)]
    for k, (cells, step) in enumerate([(38, 8), (19, 16), (10, 32), (5, 64), (3, 100), (1, 300)]):
        small, large = scales[k] / 300, scales[k + 1] / 300
        shapes = [(small, small), (math.sqrt(small * large),) * 2]
        for ratio in ratios[k]:
            wide, narrow = small * math.sqrt(ratio), small / math.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        for width, height in shapes:
            for row in range(cells):
                for column in range(cells):
                    boxes.append(((column + 0.5) / (300 / step), (row + 0.5) / (300 / step), width, height))
    expected = np.clip(np.array(boxes), 0, 1).astype(np.float32)
    assert expected.shape == (8732, 4)
    assert metadata["model"]["default_boxes_sha256"] == hashlib.sha256(expected.tobytes()).hexdigest()


def digest_of(state):
    """Return the SHA-256 of the names, dtypes, shapes and bytes of the tensors, in the order of the names."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def test_torch_itself_reads_the_metadata_too(module, metadata):
    extra = {"ssdtrt.json": ""}
    with torchscript.quiet():
        torch.jit.load(str(module), _extra_files=extra)
    assert json.loads(extra["ssdtrt.json"]) == metadata


def test_the_method_is_recorded_and_used(scripted, module):
    with zipfile.ZipFile(scripted) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        assert json.loads(archive.read(name))["export"]["method"] == "script"
    assert isinstance(torchscript.load(module), torch.jit.ScriptModule)
    # A scripted module has the attribute that its loop reads; a traced one does not.
    assert hasattr(torchscript.load(scripted), "boxes_per_map")
    assert not hasattr(torchscript.load(module), "boxes_per_map")


@pytest.fixture
def small(model):
    """The model with the heads of five classes."""
    state = dict(model.state_dict())
    for i, boxes in enumerate((4, 6, 6, 6, 4, 4)):
        for key in (f"conf.{i}.weight", f"conf.{i}.bias"):
            state[key] = state[key][: 5 * boxes].clone()
    small = model_from_state(state, "five")
    small.labels = class_names(5, ["bolt", "nut", "washer", "screw"])
    return small


def test_five_classes(model, small, tmp_path):
    path = export_module(small, tmp_path / "five.ts")
    extra = {"ssdtrt.json": ""}
    with torchscript.quiet():
        loaded = torch.jit.load(str(path), _extra_files=extra)
    metadata = json.loads(extra["ssdtrt.json"])
    assert metadata["model"]["labels"] == ["background", "bolt", "nut", "washer", "screw"]
    assert metadata["model"]["num_classes"] == 5 and metadata["outputs"][1]["shape"] == ["N", 5, 8732]
    images = synthetic_images(2, seed=3)
    with torch.no_grad():
        loc, conf = loaded(images)
        everything = model(images)
    assert conf.shape == (2, 5, 8732)
    assert torch.equal(loc, everything[0])
    torch.testing.assert_close(conf, everything[1][:, :5], rtol=0, atol=1e-5)


def test_a_model_that_was_not_named_gets_numbered_labels_and_no_source(tmp_path):
    path = export_module(Toy(), tmp_path / "toy.ts")
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        described = json.loads(archive.read(name))["model"]
    assert described["weights"] is None
    assert described["labels"][:2] == ["background", "class 1"] and len(described["labels"]) == 81


def test_a_trace_keeps_tf32_off_whatever_the_switch_says(tmp_path, monkeypatch):
    class Convolution(Toy):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 81, 300)

        def forward(self, images):
            return images, self.conv(images)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    graph = torchscript.load(export_module(Convolution(), tmp_path / "conv.ts")).inlined_graph
    (node,) = graph.findAllNodes("aten::_convolution")
    assert list(node.inputs())[-1].toIValue() is False  # The last argument is allow_tf32.
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize(
    "made, distance",
    [(CountsItsCalls, "5.0e-01"), (KnowsOneImage, "6.7e-01"), (AnswersNaN, "nan"), (IsALittleOff, "2.0e-05")],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_module_that_disagrees_is_refused_and_nothing_is_written(made, distance, tmp_path):
    existing = tmp_path / "existing.ts"
    existing.write_bytes(b"what was here before")
    for path in (existing, tmp_path / "new.ts"):
        with pytest.raises(ParityError) as caught:
            export_module(made(), path)
        assert str(caught.value) == (
            f"The exported module's conf differs from the eager model's by {distance} (relative L2); "
            "expected at most 1e-05. Nothing was written."
        )
    assert [path.name for path in tmp_path.iterdir()] == ["existing.ts"]
    assert existing.read_bytes() == b"what was here before"


def test_an_existing_file_is_replaced_without_litter(tmp_path):
    path = tmp_path / "toy.ts"
    path.write_bytes(b"what was here before")
    said = []
    assert export_module(Toy(), str(path), progress=said.append) == path
    assert zipfile.is_zipfile(path) and [entry.name for entry in tmp_path.iterdir()] == ["toy.ts"]
    assert said == ["exporting the module (trace)"]


def test_an_unwritable_output_is_refused_before_any_work(tmp_path):
    class Unused(Toy):
        def forward(self, images):
            raise AssertionError("the model ran")

    with pytest.raises(ArtifactError) as caught:
        export_module(Unused(), tmp_path / "none" / "toy.ts")
    assert str(caught.value) == (
        f"{tmp_path / 'none' / 'toy.ts'} cannot be written: there is no directory {tmp_path / 'none'}. "
        "Give another path with -o."
    )
    with pytest.raises(ArtifactError) as caught:
        export_module(Unused(), tmp_path)
    assert str(caught.value) == f"{tmp_path} cannot be written: it is a directory. Give another path with -o."
    with pytest.raises(ArtifactError) as caught:
        export_module(Unused(), tmp_path / "toy.onnx")
    assert str(caught.value) == (
        f"{tmp_path / 'toy.onnx'} has the name of an ONNX file; give --format onnx (export_onnx), or another name."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_refused(not_root, tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ArtifactError, match="is not writable"):
        export_module(Toy(), tmp_path / "toy.ts")


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_takes_no_more_is_one_clear_error(tmp_path, monkeypatch):
    """In a process of its own, because the limit stays."""
    import resource

    def fail():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with pytest.raises((ArtifactError, OSError), match="toy.ts.*File too large|File too large.*toy.ts"):
            export_module(Toy(), "toy.ts")

    monkeypatch.chdir(tmp_path)
    assert forked(fail) == 0
    assert list(tmp_path.iterdir()) == []


# ONNX


def test_an_onnx_file_records_what_the_module_does(module, onnx_file, onnx_detector):
    expected, found, whole = (read_metadata(path).as_dict() for path in (module, onnx_file, onnx_detector))
    assert (found["kind"], found["format"], found["export"]) == ("module", "onnx", {"method": "layers"})
    own = ("kind", "format", "created", "export", "inputs", "outputs")
    for name in expected.keys() - set(own):
        assert expected[name] == found[name] == whole[name], name
    assert (found["inputs"], found["outputs"]) == (expected["inputs"], expected["outputs"])
    assert (whole["kind"], whole["format"]) == ("detector", "onnx")
    assert whole["inputs"] == [{"name": "images", "shape": ["N", 3, 300, 300], "dtype": "uint8"}]
    assert whole["outputs"] == [
        {"name": "boxes", "shape": ["N", 200, 4], "dtype": "float32"},
        {"name": "labels", "shape": ["N", 200], "dtype": "int64"},
        {"name": "scores", "shape": ["N", 200], "dtype": "float32"},
        {"name": "counts", "shape": ["N"], "dtype": "int64"},
    ]


@pytest.mark.parametrize("kind", ["onnx_file", "onnx_detector"])
def test_an_onnx_file_is_standard_onnx(kind, request):
    path = request.getfixturevalue(kind)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)] and model.ir_version == 8
    assert (model.producer_name, model.producer_version) == ("ssdtrt", ssdtrt.__version__)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert not {node.op_type for node in model.graph.node} & {"Loop", "If", "Scan"}
    metadata = read_metadata(path)
    for tensors, specs in ((model.graph.input, metadata.inputs), (model.graph.output, metadata.outputs)):
        for tensor, spec in zip(tensors, specs, strict=True):
            shape = [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
            assert (tensor.name, tuple(shape), str(dtype)) == (spec.name, spec.shape, spec.dtype)


def test_an_onnx_file_holds_every_weight_under_its_name(onnx_file, model):
    held = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(onnx_file).graph.initializer}
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {name for name in held if not name.startswith("constant/")} == state.keys()
    assert all(np.array_equal(held[key], value.numpy()) for key, value in state.items())


@pytest.mark.parametrize("kind", ["onnx_file", "onnx_detector"])
def test_detections_of_onnx_files_are_those_of_the_eager_model(kind, request, photographs):
    """The round trip: same classes in the same order, scores to 1e-4, boxes to 0.1 pixel."""
    runner = load_engine(request.getfixturevalue(kind), "cpu")
    eager = baseline_runners(runner, None, ["eager-fp32"])["eager-fp32"]
    found, expected = (Detector(one, threshold=0.2)(photographs) for one in (runner, eager))
    assert sum(len(image.detections) for image in expected) > 100
    for one, other in zip(found, expected, strict=True):
        assert_same_detections(one.detections, other.detections)


@pytest.mark.slow
def test_detections_of_the_whole_network_are_those_of_the_eager_one(full_model, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "check_onnx_file", lambda *_: None)  # It compares the same; the narrow ones show it.
    runner = load_engine(export_onnx(full_model, tmp_path / "full.onnx", detector=True), "cpu")
    with narrow.full_width():
        eager = baseline_runners(runner, None, ["eager-fp32"])["eager-fp32"]
    assert eager.metadata.model.parameters == 22_894_902
    found, expected = (Detector(one, threshold=0.1)(photographs) for one in (runner, eager))
    assert sum(len(image.detections) for image in expected) > 300
    for one, other in zip(found, expected, strict=True):
        assert_same_detections(one.detections, other.detections)


def test_another_number_of_classes_and_the_other_preprocessing(small, tmp_path):
    path = export_onnx(small, tmp_path / "five.onnx", detector=True, preprocess="hub")
    described = read_metadata(path).model
    assert described.labels == ("background", "bolt", "nut", "washer", "screw") and described.preprocess == "hub"
    _, labels, _, counts = load_engine(path, "cpu").detect(torch.full((1, 3, 300, 300), 90, dtype=torch.uint8))
    assert int(counts[0]) > 0 and int(labels[0, 0]) >= 1 and int(labels.max()) <= 4


@pytest.mark.parametrize("is_detector, name", [(False, "ssd300.onnx"), (True, "ssd300.detector.onnx")])
def test_default_names_of_onnx_files(is_detector, name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked, said = [], []
    monkeypatch.setattr(exporting, "check_onnx_file", lambda path, *_: checked.append(path.name))
    assert export_onnx(model, detector=is_detector, progress=said.append) == Path(name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and checked != [name]
    assert said == ["exporting to ONNX"]


def refused(model, tmp_path, **options):
    """The message with which an export to ONNX is refused, after which all is as it was before."""
    existing = tmp_path / "existing.onnx"
    existing.write_bytes(b"what was here before")
    with pytest.raises(ParityError) as caught:
        export_onnx(model, existing, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["existing.onnx"]
    assert existing.read_bytes() == b"what was here before"
    assert str(caught.value).endswith(" Nothing was written.")
    return str(caught.value)


def test_a_changed_weight_is_refused(model, tmp_path, monkeypatch):
    tensor = network.GraphWriter.tensor

    def changed(self, name, array):
        return tensor(self, name, array * np.float32(1.02) if name == "conf.3.weight" else array)

    monkeypatch.setattr(network.GraphWriter, "tensor", changed)
    message = refused(model, tmp_path)
    assert re.fullmatch(
        r"The ONNX file's conf differs from the eager model's by \d\.\de-0[34] \(relative L2\); expected at most 1e-04. "
        "Nothing was written.",
        message,
    )


def test_a_constant_batch_size_is_refused(model, tmp_path, monkeypatch):
    constant = network.GraphWriter.constant

    def one_image(self, name, value, *dtype):
        return constant(self, name, [1, *value[1:]] if name.endswith(".shape") else value, *dtype)

    monkeypatch.setattr(network.GraphWriter, "constant", one_image)
    assert refused(model, tmp_path).startswith("The ONNX file does not run 3 images (")


def test_another_nms_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(detections, "_BELOW_NMS_IOU", 0.45)
    message = refused(model, tmp_path, detector=True)
    assert message.startswith(
        "The ONNX file's detections are not those of the eager detector: of 200 in synthetic image "
    )


def test_a_graph_that_the_checker_refuses(model, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "LOC_CONF", ("loc",))
    assert refused(model, tmp_path).startswith("onnx's checker refuses the graph (")


def test_onnx_that_is_missing_or_an_output_that_cannot_be_written(model, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="there is no directory"):
        export_onnx(model, tmp_path / "none" / "a.onnx")
    with pytest.raises(ImageError, match="Unknown preprocessing 'imagenet'"):
        export_onnx(model, tmp_path / "a.onnx", preprocess="imagenet")
    monkeypatch.setattr(onnx_runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SsdtrtError) as caught:
        export_onnx(model, tmp_path / "a.onnx")
    assert str(caught.value) == ("ONNX files need onnx and onnxruntime, not installed here: pip install 'ssdtrt[onnx]'")
    assert list(tmp_path.iterdir()) == []
