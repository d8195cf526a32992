"""Tests of loading a saved file as a runner."""

import contextlib
import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from known import metadata_like, typed
from ssdtrt.artifact.inspection import check_fits
from ssdtrt.artifact.request import BatchRange
from ssdtrt.errors import ArtifactError, CompileError, GpuError, SsdtrtError
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.runners.baseline import eager_model, find_module
from ssdtrt.runners.cuda_graph import copy_outputs
from ssdtrt.runners.runner import FileRunner, _warm_up, load_engine
from ssdtrt.system.versions import Machine, Versions

CPU = torch.device("cpu")
OTHER = "it was built from; name that with --module, or compile again"


@pytest.fixture(scope="module")
def images():
    return synthetic_images(2, seed=21)


@pytest.fixture(scope="module")
def expected(model, images):
    with torch.no_grad():
        return model(images)


@pytest.fixture
def no_gpu(monkeypatch):
    """Make torch report no GPU, also on a machine that has one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def metadata_of(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        return json.loads(archive.read(name))


def rewritten(source, target, change):
    """Copy a file, and change its metadata with `change`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("/extra/ssdtrt.json"):
                metadata = json.loads(content)
                change(metadata)
                content = json.dumps(metadata)
            new.writestr(name, content)
    return target


@pytest.fixture(scope="module")
def tensorrt_engine(engine, tmp_path_factory):
    """A CPU engine with the metadata of a TensorRT engine, in a folder without its module."""

    def change(metadata):
        metadata["request"].update(backend="tensorrt", precision="fp16", batch="1:8:32")
        metadata["machine"].update(gpu="NVIDIA H200", sm="9.0")
        metadata["versions"].update(tensorrt="8.6.0", torch_tensorrt="2.2.0")

    return rewritten(engine, tmp_path_factory.mktemp("tensorrt") / "gpu.engine.ts", change)


def distance(found, wanted):
    found, wanted = found.double().numpy(), wanted.double().numpy()
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_a_module_answers_as_the_eager_model_bit_for_bit(module, images, expected):
    runner = load_engine(module, "cpu")
    loc, conf = runner(images)
    assert torch.equal(loc, expected[0]) and torch.equal(conf, expected[1])
    assert not loc.requires_grad and not conf.requires_grad
    assert (runner.path, runner.device, runner.batch, runner.precision) == (module, CPU, None, "fp32")
    assert runner.labels[:2] == ("background", "person") and len(runner.labels) == 81
    assert runner.trained is False
    assert runner.metadata.kind == "module"


@pytest.mark.parametrize(
    "name, precision, nearest, farthest", [("engine", "fp32", 0, 1e-4), ("engine_bf16", "bf16", 3e-3, 2e-2)]
)
def test_an_engine_answers_within_its_precision(request, fusing, images, expected, name, precision, nearest, farthest):
    runner = load_engine(str(request.getfixturevalue(name)))
    assert (runner.precision, runner.batch, runner.device) == (precision, None, CPU)
    for found, wanted in zip(runner(images), expected):
        assert found.dtype == torch.float32 and found.shape == wanted.shape
        assert nearest <= distance(found, wanted) <= farthest
    one = runner(images[1:])
    assert one[1].shape == (1, 81, 8732) and distance(one[1], expected[1][1:]) <= farthest


def test_a_cpu_engine_is_fused_and_the_processs_switch_is_left_as_it_was(engine, fusing, images):
    runner = load_engine(engine)
    for _ in range(3):
        runner(images[:1])
        assert torch.jit.onednn_fusion_enabled() is False
    assert "oneDNNFusionGuard" in str(torch.jit.last_executed_optimized_graph())


def test_trained_weights_are_told_from_random_ones(engine, tmp_path):
    def change(metadata):
        metadata["model"]["weights"].update(name="coco", trained=True)

    assert load_engine(rewritten(engine, tmp_path / "coco.engine.ts", change)).trained is True


def test_a_cpu_engine_is_not_run_on_a_gpu(engine):
    with pytest.raises(ArtifactError) as caught:
        load_engine(engine, "cuda:0")
    assert str(caught.value) == f"{engine} is a CPU engine and cannot run on cuda:0; leave --device out."


def test_a_tensorrt_engine_is_not_run_on_the_cpu(tensorrt_engine):
    with pytest.raises(ArtifactError) as caught:
        load_engine(tensorrt_engine, "cpu")
    assert str(caught.value) == f"{tensorrt_engine} is a TensorRT engine and cannot run on cpu; leave --device out."


@pytest.mark.parametrize("device", [None, "cuda"])
def test_a_tensorrt_engine_without_a_gpu_says_what_is_missing_and_how_to_get_it(
    tensorrt_engine, device, no_gpu, without_torch_tensorrt
):
    with pytest.raises(CompileError) as caught:
        load_engine(tensorrt_engine, device)
    assert str(caught.value) == (
        f"{tensorrt_engine} is a TensorRT engine. A TensorRT engine cannot be built or run here; missing: "
        f"a CUDA GPU (torch {torch.__version__} sees none), and Torch-TensorRT: pip install 'ssdtrt[tensorrt]' "
        "(or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10). "
        "For a CPU engine: ssdtrt compile --backend torchscript"
    )


def test_a_tensorrt_engine_on_a_gpu_without_torch_tensorrt_says_that(
    tensorrt_engine, monkeypatch, without_torch_tensorrt
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr("ssdtrt.system.versions.installed", {"torchvision": "0.29.0"}.get)
    with pytest.raises(CompileError, match="missing: Torch-TensorRT: pip install"):
        load_engine(tensorrt_engine, "cuda:0")


@pytest.fixture
def without_torch_tensorrt(monkeypatch):
    """Make Torch-TensorRT appear as not installed: for None in sys.modules the import fails."""
    monkeypatch.setitem(__import__("sys").modules, "torch_tensorrt", None)


def test_a_module_asked_onto_a_gpu_that_is_not_there_says_so(module, no_gpu):
    with pytest.raises(SsdtrtError) as caught:
        load_engine(module, "cuda")
    assert str(caught.value) == f"There is no device cuda here: torch {torch.__version__} sees 0 CUDA GPUs."


HERE = {"os": "Linux", "architecture": "x86_64", "sm": "9.0", "tensorrt": "10.3.0", "torch_tensorrt": "2.5.0"}


def engine_built_with(**changes):
    """Return the metadata of an engine of batch 8 that was built on the machine HERE, with changes."""
    metadata = metadata_like("engine", "tensorrt")
    metadata["request"]["batch"] = "8"
    for key, value in {**HERE, **changes}.items():
        metadata["machine" if key in ("os", "architecture", "sm") else "versions"][key] = value
    return typed(metadata)


@pytest.fixture
def here(monkeypatch):
    """Make this machine appear as HERE."""
    versions = Versions(torch="2.5.0", tensorrt="10.3.0", torch_tensorrt="2.5.0")
    place = Machine(os="Linux", architecture="x86_64", sm="9.0")
    monkeypatch.setattr("ssdtrt.artifact.inspection.installed_versions", lambda: versions)
    monkeypatch.setattr("ssdtrt.artifact.inspection.this_machine", lambda device: place)


def test_an_engine_of_this_machine_fits(here):
    assert check_fits("b8.engine.ts", engine_built_with(), CPU) is None
    assert check_fits("b8.engine.ts", engine_built_with(driver="1.2.3", python="3.12.0"), CPU) is None


@pytest.mark.parametrize(
    "key, name",
    [
        ("os", "operating system"),
        ("architecture", "architecture"),
        ("sm", "compute capability"),
        ("tensorrt", "TensorRT"),
        ("torch_tensorrt", "Torch-TensorRT"),
    ],
)
def test_an_engine_of_another_machine_is_refused_with_both_values_and_the_command(key, name, here):
    with pytest.raises(ArtifactError) as caught:
        check_fits(Path("b8.engine.ts"), engine_built_with(**{key: "8.6"}), CPU)
    assert str(caught.value) == (
        f"b8.engine.ts was built for {name} 8.6; this machine has {HERE[key]}. "
        "Build it again here: ssdtrt compile ssd300.ts --fp16 --batch-size 8 -o b8.engine.ts"
    )


def test_an_engine_takes_its_batches_from_the_metadata(tensorrt_engine):
    runner = FileRunner(tensorrt_engine, typed(metadata_of(tensorrt_engine)), None, CPU)
    assert runner.batch == BatchRange(1, 8, 32)


WRONG_IMAGES = [
    (np.zeros((1, 3, 300, 300), dtype=np.float32), "as a torch tensor; found ndarray."),
    (torch.zeros(3, 300, 300), "; found [3, 300, 300]."),
    (torch.zeros(1, 300, 300, 3), "; found [1, 300, 300, 3]."),
    (torch.zeros(1, 3, 512, 512), "; found [1, 3, 512, 512]."),
    (torch.zeros(1, 3, 300, 300, dtype=torch.uint8), " of floats, normalized; found torch.uint8."),
]


@pytest.mark.parametrize("images, end", WRONG_IMAGES, ids=["array", "unbatched", "NHWC", "other size", "uint8"])
@pytest.mark.parametrize("call", ["__call__", "place"])
def test_images_that_the_network_does_not_take_are_one_line(known, images, end, call):
    runner = load_engine(known, "cpu")
    with pytest.raises(ArtifactError) as caught:
        getattr(runner, call)(images)
    message = str(caught.value)
    assert message.startswith(f"{known} takes images [N, 3, 300, 300]") and message.endswith(end)


def test_a_batch_beyond_the_range_is_one_line(tensorrt_engine):
    runner = FileRunner(tensorrt_engine, typed(metadata_of(tensorrt_engine)), None, CPU)
    for count in (0, 33):
        with pytest.raises(ArtifactError) as caught:
            runner(torch.zeros(count, 3, 300, 300))
        assert str(caught.value) == f"{tensorrt_engine} takes 1 to 32 images at once; found {count}."


def test_a_detector_answers_the_same_in_every_call(detector_file):
    runner, images = load_engine(detector_file), synthetic_pictures(1)
    first, *more = [runner.detect(images) for _ in range(4)]  # TorchScript optimizes it until the third.
    assert first[3].item() > 0
    for found in more:
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, first))


@pytest.mark.parametrize(
    "images, end",
    [
        (torch.zeros(1, 3, 300, 300), "uint8; found torch.float32."),
        (torch.zeros(1, 300, 300, 3, dtype=torch.uint8), "uint8; found [1, 300, 300, 3]."),
        (torch.zeros(3, 300, 300, dtype=torch.uint8), "uint8; found [3, 300, 300]."),
    ],
    ids=["floats", "NHWC", "unbatched"],
)
def test_pictures_that_a_detector_does_not_take_are_one_line(detector_file, images, end):
    runner = load_engine(detector_file)
    with pytest.raises(ArtifactError) as caught:
        runner.detect(images)
    message = str(caught.value)
    assert message.startswith(f"{detector_file} takes images [N, 3, 300, 300]") and message.endswith(end)


def test_only_a_detector_detects(known):
    with pytest.raises(ArtifactError, match="is of the kind module; expected a detector"):
        load_engine(known, "cpu").detect(torch.zeros(1, 3, 300, 300, dtype=torch.uint8))


@pytest.fixture
def loads(tensorrt_engine, monkeypatch):
    """Makes the TensorRT engine load as on a GPU; what happens meanwhile, in order."""
    events = []

    @contextlib.contextmanager
    def current(device):
        events.append(("enter", str(device)))
        yield
        events.append(("leave", str(device)))

    for name in ("check_fits", "_warm_up", "runtime.import_torch_tensorrt"):
        monkeypatch.setattr(f"ssdtrt.runners.runner.{name}", lambda *_: None)
    monkeypatch.setattr("ssdtrt.runners.runner._device_for", lambda *_: torch.device("cuda:1"))
    monkeypatch.setattr("ssdtrt.runners.runner.current_device", current)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("the current device was set for good"))
    monkeypatch.setattr("ssdtrt.runners.torchscript.load", lambda path, device: events.append("load"))
    return events


def test_loading_leaves_the_current_gpu_as_it_was(tensorrt_engine, loads):
    """The engine's GPU is the current device only during the load."""
    load_engine(tensorrt_engine)
    assert loads == [("enter", "cuda:1"), "load", ("leave", "cuda:1")]


def test_a_tensorrt_engine_is_launched_as_a_cuda_graph_unless_that_is_off(tensorrt_engine, loads):
    assert (
        load_engine(tensorrt_engine).graph is not None and load_engine(tensorrt_engine, cuda_graph=False).graph is None
    )
    loaded = load_engine(tensorrt_engine, reuse_outputs=True)
    function, (path,) = loaded.__reduce__()
    options = {"device": None, "sha256": None, "cuda_graph": None, "reuse_outputs": True}
    assert function.keywords == options and path == tensorrt_engine.absolute()


@pytest.mark.parametrize("count", [1, 3])
def test_outputs_that_are_one_tensor_are_copied_at_once(count):
    whole = torch.randn(count, 85, 10)
    for parts in (
        (whole[:, :4], whole[:, 4:]),
        (whole[:, :4].clone(), whole[:, 4:].clone()),
        (whole[:, :4], whole[:, 5:]),
    ):
        found = copy_outputs(*parts)
        assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(found, parts))
        at_once = found[0].untyped_storage().data_ptr() == found[1].untyped_storage().data_ptr()
        assert at_once is (parts[1].data_ptr() == whole[:, 4:].data_ptr())


@pytest.mark.parametrize("reuse", [False, True])
def test_outputs_of_a_graph_belong_to_the_caller_unless_they_may_be_reused(module, images, reuse):
    runner = load_engine(module, "cpu", reuse_outputs=reuse)
    own = torch.zeros(1, 4, 8732), torch.zeros(1, 81, 8732)
    runner.graph = lambda images: own
    first, second = runner(images), runner(images)
    for a, b, tensor in zip(first, second, own):
        assert (a is tensor) is reuse and (a.data_ptr() == b.data_ptr()) is reuse and torch.equal(a, tensor)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with an empty current folder `here` and a folder `engines`."""
    (tmp_path / "here").mkdir()
    (tmp_path / "engines").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def runner_in(folder, content=b"the module"):
    metadata = metadata_like("engine")
    metadata["module"] = {"file": "ssd300.ts", "sha256": hashlib.sha256(content).hexdigest()}
    return SimpleNamespace(path=folder / "engines" / "a.engine.ts", metadata=typed(metadata))


class Late(torch.Tensor):
    """An output of a GPU that failed after the call returned: reading it raises."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nIt may be reported late.")


def test_a_gpu_that_fails_while_a_file_is_warmed_up_is_no_damaged_file():
    late = torch.zeros(1).as_subclass(Late)
    runner = SimpleNamespace(path="x.ts", batch=None, device=CPU, is_detector=True, detect=lambda images: (late,))
    with pytest.raises(GpuError, match=r"^The GPU failed \(CUDA error: an illegal memory access was encountered\)\. "):
        _warm_up(runner)


def test_the_module_is_found_beside_the_engine(folder):
    beside = folder / "engines" / "ssd300.ts"
    beside.write_bytes(b"the module")
    assert find_module(runner_in(folder)) == (beside, "")


def test_the_module_is_found_in_the_current_folder(folder):
    (folder / "here" / "ssd300.ts").write_bytes(b"the module")
    place, reason = find_module(runner_in(folder))
    assert place.resolve() == folder / "here" / "ssd300.ts" and reason == ""


def test_the_current_folder_helps_where_another_file_lies_beside(folder):
    (folder / "engines" / "ssd300.ts").write_bytes(b"another module")
    (folder / "here" / "ssd300.ts").write_bytes(b"the module")
    place, _ = find_module(runner_in(folder))
    assert place.resolve() == folder / "here" / "ssd300.ts"


def test_the_module_may_be_named_and_have_another_name(folder):
    (folder / "engines" / "ssd300.ts").write_bytes(b"the module")
    elsewhere = folder / "renamed.ts"
    elsewhere.write_bytes(b"the module")
    assert find_module(runner_in(folder), elsewhere) == (elsewhere, "")
    assert find_module(runner_in(folder), str(elsewhere)) == (elsewhere, "")


def test_another_file_of_that_name_is_not_taken(folder):
    beside = folder / "engines" / "ssd300.ts"
    beside.write_bytes(b"another module")
    assert find_module(runner_in(folder)) == (None, f"{beside} is not the module {OTHER}")


def test_a_named_module_that_is_another_is_not_taken_though_the_right_one_lies_beside(folder):
    (folder / "engines" / "ssd300.ts").write_bytes(b"the module")
    other = folder / "other.ts"
    other.write_bytes(b"another module")
    assert find_module(runner_in(folder), other) == (None, f"{other} is not the module {OTHER}")


def test_a_missing_module_is_said_with_what_to_do(folder):
    assert find_module(runner_in(folder)) == (
        None,
        "its module ssd300.ts was not found; name it with --module",
    )


def test_a_named_module_that_is_missing_is_said_by_its_own_name(folder):
    place, reason = find_module(runner_in(folder), "nowhere.ts")
    assert place is None and "nowhere.ts" in reason


def test_real_files_know_each_other(module, engine, engine_bf16):
    recorded = metadata_of(engine)["module"]
    assert recorded == {"file": "ssd300.ts", "sha256": hashlib.sha256(module.read_bytes()).hexdigest()}
    for path in (engine, engine_bf16, module):
        assert find_module(load_engine(path, "cpu")) == (module, "")


def test_the_eager_model_comes_back_bit_for_bit(model, module, images, expected):
    again = eager_model(module, CPU)
    state, original = again.state_dict(), model.state_dict()
    assert state.keys() == original.keys() and all(torch.equal(state[key], original[key]) for key in original)
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())
    with torch.no_grad():
        found = again(images)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_flipped_bit_in_the_weights_is_noticed(module, tmp_path):
    damaged = tmp_path / "damaged.ts"
    shutil.copyfile(module, damaged)
    with zipfile.ZipFile(damaged) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    with open(damaged, "r+b") as file:
        file.seek(largest.header_offset + largest.file_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    for load in (load_engine, eager_model):
        with pytest.raises(ArtifactError) as caught:
            load(damaged, CPU)
        assert str(caught.value) == (
            f"{damaged} is truncated, damaged or not one of ssdtrt's files (Bad CRC-32 for file {largest.filename!r}). "
            "Make it again."
        )


def test_other_weights_than_the_recorded_are_noticed(module, tmp_path):
    def change(metadata):
        metadata["model"]["weights"]["sha256"] = "0" * 64

    other = rewritten(module, tmp_path / "other.ts", change)
    with pytest.raises(ArtifactError) as caught:
        eager_model(other, CPU)
    assert (
        str(caught.value) == f"{other} is damaged: its weights are not the recorded ones. Make it again: ssdtrt export"
    )


def test_an_engine_is_no_source_of_eager_weights(engine):
    with pytest.raises(ArtifactError, match="is an engine; expected a file of kind module"):
        eager_model(engine, CPU)


def test_what_is_missing_or_not_ours_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such file. Make it first: ssdtrt export && ssdtrt compile"):
        load_engine(tmp_path / "ssd300.engine.ts")
    (tmp_path / "notes.txt").write_text("not an engine")
    with pytest.raises(ArtifactError, match="is not one of ssdtrt's files"):
        load_engine(tmp_path / "notes.txt")
