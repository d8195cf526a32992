"""Plans from the command that builds them to their outputs, with a stand-in of TensorRT that runs torch on the CPU."""

import importlib.machinery
import json
import os
import sys
from types import ModuleType, SimpleNamespace

import msgspec
import pytest
import tensorrt_stand_in
import torch

from known import metadata_like, typed
from ssdtrt.artifact import inspection
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.compile import compile_engine
from ssdtrt.engine import tensorrt_backend
from ssdtrt.errors import ArtifactError, CompileError, ParityError
from ssdtrt.formats.plan_file import PlanInfo, record_path
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.runners import runner
from ssdtrt.runners.runner import load_engine

LIKE = typed(metadata_like("engine", "tensorrt"))
PLAN = ("--format", "plan")


@pytest.fixture(params=["no front end", "not installed"])
def torch_tensorrt(request, monkeypatch):
    """Have a Torch-TensorRT without its TorchScript front end, or none."""
    package = None
    if request.param == "no front end":
        package = ModuleType("torch_tensorrt")
        package.__spec__ = importlib.machinery.ModuleSpec("torch_tensorrt", None)
        package.__version__ = "3.0.0"
        package.ENABLED_FEATURES = SimpleNamespace(torchscript_frontend=False)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    return package


@pytest.fixture
def tensorrt(monkeypatch):
    """Have a GPU's machine and a TensorRT, whose builder and runtime are the stand-in's."""
    return tensorrt_stand_in.install_machine(monkeypatch)


@pytest.fixture
def fp32(tensorrt, monkeypatch):
    """Options of a plan in FP32, whose arithmetic is the quickest on a CPU."""
    convolution, copied = tensorrt_stand_in.LAYERS
    single = [{**convolution, "Weights": {"Type": "Float", "Count": 1000}}, copied]
    monkeypatch.setattr(tensorrt_stand_in, "LAYERS", single)
    return {"file_format": "plan", "precision": "fp32", "cache": False}


@pytest.fixture(scope="module")
def older_plan():
    """The files of a plan, once a test has made it."""
    return {}


def assert_near(path, model, bound, sizes=(1, 2, 3)):
    loaded = load_engine(path, cuda_graph=False)
    for size in sizes:
        images = synthetic_images(size, seed=size)
        with torch.no_grad():
            expected = model(images)
        for found, part in zip(loaded(images), expected):
            assert found.shape == part.shape and 0 < (found - part).norm() / part.norm() <= bound
    return loaded


def test_from_the_command_to_the_outputs(ssdtrt, tensorrt, torch_tensorrt, module, model, tmp_path, monkeypatch):
    done = ssdtrt("compile", module, *PLAN, "--batch-range", "1:2:3", "--no-cache")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("ssd300.plan: FP16 tensorrt, batch 1:2:3, front end tensorrt, 4 auxiliary streams")
    assert sorted(os.listdir(tmp_path)) == ["ssd300.plan", "ssd300.plan.json"]
    plan = tmp_path / "ssd300.plan"
    assert plan.read_bytes().startswith(tensorrt_stand_in.MAGIC)
    metadata = read_metadata(plan)
    assert (metadata.format, metadata.request.format, metadata.plan) == ("plan", "plan", PlanInfo.of(plan.read_bytes()))
    assert metadata.rebuild_command == (
        "ssdtrt compile ssd300.ts --fp16 --batch-range 1:2:3 --front-end tensorrt --streams 4 --format plan"
    )
    assert json.loads(record_path(plan).read_text()) == metadata.as_dict()
    loaded = assert_near(plan, model, 2e-2)
    assert (loaded.precision, loaded.batch.sizes, loaded.is_detector) == ("fp16", (1, 2, 3), False)
    with pytest.raises(ArtifactError, match="takes 1 to 3 images at once; found 4"):
        loaded(synthetic_images(4))
    monkeypatch.undo()
    os.chdir(tmp_path)
    for options in ((), ("--check",)):
        done = ssdtrt("inspect", plan, *options)
        assert done.exit_code == 0 and "plan.sha256" in done.stdout, done.stderr
    plan.write_bytes(plan.read_bytes() + b"\0")
    done = ssdtrt("inspect", plan, "--check")
    assert done.exit_code == 1 and "is not the plan that ssd300.plan.json is the record of" in done.stderr


def test_one_batch_size_takes_smaller_ones(fp32, module, model, tmp_path):
    plan = compile_engine(module, tmp_path / "a.plan", batch=2, **fp32)
    assert_near(plan, model, 1e-4, sizes=(1, 2))


def test_an_engine_whose_layers_are_of_another_type_is_refused(tensorrt, module, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ParityError) as caught:
        compile_engine(module, out / "a.plan", file_format="plan", precision="fp32", cache=False)
    said = "The engine is not FP32: of its multiplications 100.0 % in fp16; expected at least 95 % in fp32."
    assert str(caught.value) == said and list(out.iterdir()) == []


def test_the_layers_are_recorded_and_shown(tensorrt, ssdtrt, module, tmp_path):
    plan = compile_engine(module, tmp_path / "a.plan", file_format="plan", cache=False)
    done = ssdtrt("inspect", plan, "--layers")
    assert done.exit_code == 0 and done.stdout.splitlines() == [
        "layer              operation  type  arithmetic",
        "conv + relu  CaskConvolution  fp16     100.0 %",
        "to_fp32             Reformat  fp32           -",
        "",
        "fp16 1 of 2 layers, 100.0 % of the arithmetic",
        "fp32 1 of 2 layers, 0.0 % of the arithmetic",
    ]
    assert "layers" in ssdtrt("inspect", plan).stdout and "2 (--layers shows them)" in ssdtrt("inspect", plan).stdout
    done = ssdtrt("inspect", module, "--layers")
    assert done.exit_code == 1 and "records no layers; expected a TensorRT engine" in done.stderr


def test_an_engine_file_needs_the_front_end_and_names_the_plan(tensorrt, module, tmp_path, torch_tensorrt):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out / "a.engine.ts", cache=False)
    if torch_tensorrt is None:
        assert "missing: Torch-TensorRT" in str(caught.value)
    else:
        assert str(caught.value).startswith(
            "Torch-TensorRT 3.0.0 has no TorchScript front end, which writes the engine file; build a plan, which does "
            "without (--format plan)"
        )
    assert os.listdir(out) == []


def test_an_engine_file_is_loaded_without_the_front_end(monkeypatch, tensorrt):
    asked, known = [], object()
    package = ModuleType("torch_tensorrt")
    monkeypatch.setattr(runner.runtime, "import_torch_tensorrt", lambda: asked.append("import") or package)
    monkeypatch.setattr(runner.runtime, "check_front_end", lambda package: pytest.fail("asked for the front end"))
    monkeypatch.setattr(runner.torchscript, "load", lambda path, device: known)
    assert runner._load("a.engine.ts", LIKE, torch.device("cpu"), cuda_graph=True) is known and asked == ["import"]


def test_the_cached_plan_is_taken_with_its_record(fp32, module, tmp_path, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path / "engines"))
    options = {**fp32, "cache": True, "batch": 2}
    first = compile_engine(module, tmp_path / "a.plan", **options)
    monkeypatch.setattr(tensorrt_backend, "serialize", lambda *given: pytest.fail("built again"))
    again = compile_engine(module, tmp_path / "b.plan", **options)
    before, after = read_metadata(first), read_metadata(again)
    assert again.read_bytes() == first.read_bytes() and (before.build.cached, after.build.cached) == (False, True)
    assert after.plan == before.plan == PlanInfo.of(first.read_bytes())
    load_engine(again, cuda_graph=False)


def stop(*given):
    raise KeyboardInterrupt


def refuse(*given):
    raise ParityError("too far")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    "name, replacement, error",
    [("engine.cached_build.build_in_child", stop, KeyboardInterrupt), ("engine.cached_build.accept", stop, KeyboardInterrupt),
     ("engine.cached_build.accept", refuse, ParityError), ("compile._engine_metadata", stop, KeyboardInterrupt)],
)  # fmt: skip
def test_what_fails_half_way_leaves_what_was_there(
    fp32, module, tmp_path, monkeypatch, older, older_plan, name, replacement, error
):
    out, before = tmp_path / "out", {}
    out.mkdir()
    if older:
        if not older_plan:
            compile_engine(module, out / "a.plan", **fp32)
            older_plan.update({path.name: path.read_bytes() for path in out.iterdir()})
        before = older_plan
        assert set(before) == {"a.plan", "a.plan.json"}
        for file, content in before.items():
            (out / file).write_bytes(content)
    monkeypatch.setattr(f"ssdtrt.{name}", replacement)
    with pytest.raises(error):
        compile_engine(module, out / "a.plan", **fp32)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_record_appears_last(fp32, module, tmp_path, monkeypatch):
    renamed, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: renamed.append(os.path.basename(new)) or replace(old, new))
    compile_engine(module, tmp_path / "a.plan", **fp32)
    assert renamed[-2:] == ["a.plan", "a.plan.json"]


@pytest.mark.parametrize("asked", [
    ("--detector",), ("--backend", "torchscript"), ("--front-end", "torchscript"),
])  # fmt: skip
def test_what_is_no_plan_is_wrong_usage(ssdtrt, asked):
    done = ssdtrt("compile", *PLAN, *asked)
    assert done.exit_code == 2
    assert done.stderr.endswith(
        "Error: --format plan is TensorRT's engine alone: no --detector, and --front-end tensorrt.\n"
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "{} has the name of a plan; give --format plan, or another name."),
        ({"file_format": "onnx"}, "The format of an engine is torchscript or plan; found 'onnx'."),
        ({"file_format": "plan", "detector": True}, "A plan holds the network alone, without NMS; leave out the "
                                                    "detector, or --format plan."),
        ({"file_format": "plan", "backend": "torchscript"}, "A plan is TensorRT's; the backend torchscript builds none. "
                                                            "Leave out --format plan."),
        ({"file_format": "plan", "front_end": "torchscript"}, "A plan is built through TensorRT's own API: the front end "
                                                              "is tensorrt, or auto."),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_before_any_work(module, tmp_path, options, message):
    out = tmp_path / "x.plan"
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out, **options)
    assert str(caught.value) == message.format(out) and os.listdir(tmp_path) == []


def test_an_engine_is_not_called_like_an_onnx_file(module, tmp_path):
    with pytest.raises(CompileError, match=r"x\.onnx has the name of an ONNX file, which ssdtrt export --format onnx"):
        compile_engine(module, tmp_path / "x.onnx", backend="torchscript")
    assert os.listdir(tmp_path) == []


def test_a_record_that_cannot_be_written_is_refused_before_any_work(tensorrt, module, tmp_path):
    (tmp_path / "a.plan.json").mkdir()
    with pytest.raises(ArtifactError, match=r"a\.plan\.json cannot be written: it is a directory"):
        compile_engine(module, tmp_path / "a.plan", file_format="plan")


@pytest.mark.parametrize("version, differs", [("2.5.0", ()), (None, ())])
def test_another_torch_tensorrt_does_not_matter(fp32, module, tmp_path, monkeypatch, version, differs):
    plan = compile_engine(module, tmp_path / "a.plan", **fp32)
    here = msgspec.structs.replace(LIKE.versions, torch_tensorrt=version)
    monkeypatch.setattr(inspection, "installed_versions", lambda: here)
    monkeypatch.setattr(inspection, "installed", lambda name: version)
    monkeypatch.setattr(inspection, "tensorrt_version", lambda: "8.6.0")
    assert not [line for line in inspection.inspect_file(plan).differs if "TensorRT" in line]
    load_engine(plan, cuda_graph=False)
    here = msgspec.structs.replace(here, tensorrt="10.3.0")
    with pytest.raises(ArtifactError, match="was built for TensorRT 8.6.0; this machine has 10.3.0. Build it again"):
        load_engine(plan, cuda_graph=False)
