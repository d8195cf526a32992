"""Tests of building an engine: it is accepted before it is written, completely or not at all."""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Tuple

import msgspec
import pytest
import torch
from torch import Tensor

from known import metadata_like, typed
from ssdtrt import compile as compiling
from ssdtrt.artifact.cache_folder import list_cache
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.artifact.precision import BACKENDS, PRECISIONS
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.compile import compile_engine
from ssdtrt.engine import cached_build
from ssdtrt.engine.build import Built
from ssdtrt.engine.cache import graph_digest, timing_cache_file
from ssdtrt.errors import ArtifactError, BuilderError, CompileError, ParityError
from ssdtrt.images.tensors import synthetic_pictures
from ssdtrt.runners import torchscript
from ssdtrt.runners.runner import load_engine
from ssdtrt.system.progress import silent

OTHER = b"what was here before"


def metadata_of(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        return json.loads(archive.read(name))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return the folder in which the build process has its job and its log."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def out(tmp_path):
    """Return an output path in a separate folder, with an older file there."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.engine.ts").write_bytes(OTHER)
    return folder / "a.engine.ts"


def untouched(out, scratch=None):
    """Return whether only the unchanged older file is left, and no folder of the process."""
    return (
        out.read_bytes() == OTHER
        and os.listdir(out.parent) == [out.name]
        and (scratch is None or os.listdir(scratch) == [])
    )


def test_bf16_halves_the_file(engine, engine_bf16):
    assert 3.9 < engine.stat().st_size / 714_282 < 4.5
    assert 1.9 < engine_bf16.stat().st_size / 714_282 < 2.5


def test_only_what_was_asked_for_lies_in_the_folder(module, engine):
    """The folder is that of the whole run: other tests have their files there, and hidden ones while they build."""
    names = {name for name in os.listdir(module.parent) if not name.startswith(".")}
    assert {"ssd300.engine.ts", "ssd300.ts"} <= names
    assert names <= {"bf16.engine.ts", "hub.detector.ts", "ssd300.detector.ts", "ssd300.engine.ts", "ssd300.ts"}
    assert engine.stat().st_mode & 0o444 == module.stat().st_mode & 0o444


@pytest.mark.parametrize("name, precision, bound", [("engine", "fp32", 1e-4), ("engine_bf16", "bf16", 2e-2)])
def test_metadata_says_what_it_was_built_from_how_and_how_near_it_came(request, module, name, precision, bound):
    metadata, base = metadata_of(request.getfixturevalue(name)), metadata_of(module)
    assert set(metadata) == {
        "schema", "kind", "format", "created", "versions", "machine", "model", "inputs", "outputs", "export", "module",
        "request", "build", "parity", "plan", "layers", "int8"
    }  # fmt: skip
    assert metadata["plan"] is metadata["int8"] is None
    assert metadata["schema"] == 2 and metadata["kind"] == "engine"
    assert metadata["created"] >= base["created"]
    assert [metadata[key] for key in ("model", "inputs", "outputs", "versions")] == [
        base[key] for key in ("model", "inputs", "outputs", "versions")
    ]
    assert metadata["module"] == {"file": "ssd300.ts", "sha256": hashlib.sha256(module.read_bytes()).hexdigest()}
    seconds = metadata["build"].pop("seconds")
    assert 0 < seconds < 300
    assert metadata["build"].pop("cached") in (False, True)  # Another worker may have built it.
    assert metadata["build"] == {"front_end": None, "disable_tf32": True, "merged_projections": None}
    assert metadata["request"].pop("graph") == graph_digest(module)
    assert metadata["request"] == {
        "weights": base["model"]["weights"]["sha256"],
        "preprocess": "eval",
        "backend": "torchscript",
        "precision": precision,
        "batch": None,
        "front_end": None,
        "streams": None,
        "workspace_mib": 4096,
        "format": "torchscript",
        "detector": False,
        "quantization": None,
    }
    assert metadata["export"] == {"method": "trace"}
    parity = metadata["parity"]
    assert set(parity) == {
        "precision", "images", "batch_sizes", "bound", "floor", "outputs", "detections", "repeatability", "passed"
    }  # fmt: skip
    assert (parity["precision"], parity["bound"], parity["passed"]) == (precision, bound, True)
    assert (parity["images"], parity["batch_sizes"]) == (2, [1, 2])
    assert [output["name"] for output in parity["outputs"]] == ["loc", "conf"]
    assert all(output["finite"] and 0 < output["relative_l2"] <= bound for output in parity["outputs"])
    found = parity["repeatability"]
    assert found["batch_sizes"] == [1, 3] and found["in_batch"] <= found["batch_bound"] < bound
    assert found["again"] <= 1e-6 and found["cuda_graph"] is None
    found = parity["detections"]
    assert set(found) == {"reference", "engine", "matched", "max_score_change", "match_rate"}
    assert found["reference"] > 0 and found["match_rate"] == found["matched"] / max(found["reference"], found["engine"])
    assert found["match_rate"] > 0.9
    nearest = min(output["relative_l2"] for output in parity["outputs"])
    if precision == "fp32":
        assert parity["floor"] == 0
    else:
        assert 1e-3 < parity["floor"] < nearest


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
def test_a_module_whose_name_is_no_text_becomes_an_engine_that_loads(module, tmp_path):
    source, out = tmp_path / os.fsdecode(b"m\xff\n\\.ts"), tmp_path / os.fsdecode(b"e\xff.ts")
    shutil.copyfile(module, source)
    assert load_engine(compile_engine(source, out, backend="torchscript")).metadata.module.file == "m?__.ts"


def test_an_engine_beyond_the_bound_is_refused_with_the_figures(module, out, scratch, monkeypatch, ssdtrt):
    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], bound=1e-12))
    done = ssdtrt("compile", module, "--backend", "torchscript", "-o", out)
    assert (done.exit_code, done.stdout) == (1, "") and isinstance(done.exception, SystemExit)
    lines = done.stderr.splitlines()
    assert lines[0] == "building the FP32 engine for any batch, 0 s"
    assert "comparing with FP32 eager" in lines
    assert "FP32 against FP32 eager on 2 pictures, batch 1, 2" in lines and "FAILED" in lines
    message = r"Error: The engine is too far from the FP32 model: relative L2 distance loc (\S+), conf (\S+); "
    figures = re.fullmatch(message + "expected at most 1e-12 for FP32.", lines[-1]).groups()
    assert all(1e-12 < float(figure) < 1e-4 for figure in figures)
    shown = [line.split()[:2] for line in lines]
    assert ["loc", figures[0]] in shown and ["conf", figures[1]] in shown
    assert untouched(out, scratch)


def asking(job, **changes):
    """Return the job with another request."""
    return msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, **changes))


def test_an_fp32_engine_passed_off_as_bf16_is_refused_and_leaves_nothing(module, out, scratch, monkeypatch):
    build = cached_build.build_in_child
    monkeypatch.setattr(compiling, "emulates_bf16", lambda: False)  # The engine is refused before it runs.
    monkeypatch.setattr(
        cached_build, "build_in_child", lambda job, progress: build(asking(job, precision="fp32"), progress)
    )
    with pytest.raises(ParityError, match="The engine is not BF16: it takes 4[.].* bytes per parameter, as FP32"):
        compile_engine(module, out, backend="torchscript", precision="bf16")
    assert untouched(out, scratch)


def test_a_detector_says_what_goes_in_and_comes_out(detector_file, engine, module):
    metadata, plain = metadata_of(detector_file), metadata_of(engine)
    assert (metadata["kind"], metadata["schema"]) == ("detector", 2)
    assert metadata["inputs"] == [{"name": "images", "shape": ["N", 3, 300, 300], "dtype": "uint8"}]
    assert metadata["outputs"] == [
        {"name": "boxes", "shape": ["N", 200, 4], "dtype": "float32"},
        {"name": "labels", "shape": ["N", 200], "dtype": "int64"},
        {"name": "scores", "shape": ["N", 200], "dtype": "float32"},
        {"name": "counts", "shape": ["N"], "dtype": "int64"},
    ]
    assert metadata["model"] == plain["model"] and metadata["module"] == plain["module"]
    assert metadata["parity"]["passed"] and metadata["parity"]["precision"] == "fp32"
    found = torchscript.load(detector_file)(synthetic_pictures(2))
    for part, said in zip(found, metadata["outputs"]):
        assert [2, *part.shape[1:]] == [2, *said["shape"][1:]] and str(part.dtype) == f"torch.{said['dtype']}"


def test_a_detector_that_normalizes_otherwise_is_refused_and_leaves_nothing(module, out, scratch, monkeypatch):
    build = cached_build.build_in_child
    monkeypatch.setattr(
        cached_build, "build_in_child", lambda job, progress: build(asking(job, preprocess="hub"), progress)
    )
    with pytest.raises(
        ParityError, match="The detector's .* differ by .* from those of its own engine; .* Nothing was written"
    ):
        compile_engine(module, out, detector=True, backend="torchscript")
    assert untouched(out, scratch)


def test_a_detector_has_a_name_of_its_own(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cached_build, "build_in_child", lambda job, progress: stop(job))
    with pytest.raises(KeyError, match="True ssd300.detector.ts"):
        compile_engine(module, detector=True, backend="torchscript")
    with pytest.raises(KeyError, match="False ssd300.engine.ts"):
        compile_engine(module, backend="torchscript")
    assert os.listdir(tmp_path) == []


def stop(job):
    raise KeyError(f"{job.request.detector} {re.sub('^[.]|[.][^.]*[.]tmp$', '', Path(job.out).name)}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"backend": "onnx"}, "Unknown backend 'onnx'; expected tensorrt or torchscript."),
        ({"backend": "onnx", "precision": "fp16"}, "Unknown backend 'onnx'; expected tensorrt or torchscript."),
        ({"precision": "fp16"}, "The backend torchscript builds fp32 or bf16, not fp16."),
        ({"backend": "tensorrt", "precision": "bf16"}, "The backend tensorrt builds fp16 or fp32 or int8, not bf16."),
        ({"workspace_mib": 0}, "The workspace is in MiB and at least 1; found 0."),
        ({"device": "cuda"}, "The backend torchscript does not build for cuda."),
        ({"front_end": "tensorrt"}, "The front end of the backend torchscript is auto; found 'tensorrt'."),
        ({"streams": 17}, "Auxiliary streams are 0 to 16; found 17."),
        ({"streams": -1}, "Auxiliary streams are 0 to 16; found -1."),
        ({"streams": 1}, "Auxiliary streams need the backend tensorrt; found torchscript."),
        ({"batch": "1:2"}, "A batch is a number or MIN:OPT:MAX, such as 8 or 1:8:32; found '1:2'."),
        ({"batch": 0}, "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found 0."),
        ({"batch": "8:1:32"}, "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found 8:1:32."),
    ],
)
def test_what_cannot_be_built_is_refused_before_any_work(module, out, arguments, message):
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out, **{"backend": "torchscript", **arguments})
    assert str(caught.value) == message
    assert untouched(out)


def test_streams_need_tensorrts_own_api():
    tensorrt = BACKENDS["tensorrt"]
    with pytest.raises(CompileError, match="^Auxiliary streams need the front end tensorrt; found torchscript.$"):
        compiling._check_streams(4, tensorrt, "torchscript")
    with pytest.raises(CompileError, match="is auto or tensorrt or torchscript; found 'onnx'.$"):
        compiling._choose_front_end("onnx", tensorrt, 0, silent)
    assert compiling._choose_front_end("auto", BACKENDS["torchscript"], None, silent) is None


@pytest.mark.parametrize(
    "asked, front_end, expected",
    [
        (None, "tensorrt", 4), (0, "tensorrt", 0), (2, "tensorrt", 2), (None, "torchscript", 0), (0, "torchscript", 0),
        (None, None, None),
    ],
)  # fmt: skip
def test_the_streams_are_chosen(asked, front_end, expected):
    assert compiling._choose_streams(asked, front_end) == expected


def test_without_the_api_the_front_end_torchscript_is_taken_and_that_is_said(monkeypatch):
    tensorrt, notes = BACKENDS["tensorrt"], []
    monkeypatch.setattr("ssdtrt.runners.runtime.lacking_in_tensorrt", lambda: "TensorRT 8.5.3 has none (8.6 has them)")
    assert compiling._choose_front_end("auto", tensorrt, None, notes.append) == "torchscript"
    assert notes == [
        "the network goes through the front end torchscript, without auxiliary streams: TensorRT 8.5.3 has none "
        "(8.6 has them)"
    ]
    assert (
        compiling._choose_front_end("auto", tensorrt, 4, notes.append) == "tensorrt"
    )  # Which then fails, and says why.
    monkeypatch.setattr("ssdtrt.runners.runtime.lacking_in_tensorrt", lambda: None)
    assert compiling._choose_front_end("auto", tensorrt, None, notes.append) == "tensorrt" and len(notes) == 1


@pytest.mark.parametrize(
    "front_end, cache, kept", [("tensorrt", True, True), ("tensorrt", False, False), ("torchscript", True, False)]
)
def test_the_times_of_kernels_are_kept_where_there_are_any_unless_there_is_no_cache(
    module, out, monkeypatch, front_end, cache, kept
):
    asked = []

    def build(job, progress):
        asked.append(job)
        raise CompileError("no further")

    monkeypatch.setenv("SSDTRT_CACHE", str(out.parent / "engines"))
    monkeypatch.setattr("ssdtrt.runners.runtime.why_not", lambda *_: None)
    monkeypatch.setattr(compiling, "pick_device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(cached_build, "build_in_child", build)
    with pytest.raises(CompileError, match="no further"):
        compile_engine(module, out, front_end=front_end, cache=cache)
    (job,) = asked
    expected = timing_cache_file(torch.device("cpu"))
    assert expected.parent == out.parent / "engines"
    assert (job.request.front_end, job.timing_cache) == (front_end, str(expected) if kept else None)


@pytest.mark.parametrize("front_end, streams", [("torchscript", 0), ("tensorrt", 4), ("tensorrt", 0)])
def test_the_front_end_and_the_streams_are_recorded(module, front_end, streams):
    request = BuildRequest(
        weights="0" * 64,
        graph="1" * 64,
        preprocess="eval",
        backend="tensorrt",
        precision="fp16",
        batch="8",
        front_end=front_end,
        streams=streams,
        workspace_mib=64,
    )
    like = typed(metadata_like("engine", "tensorrt"))
    built = Built(seconds=1.0, versions=like.versions, machine=like.machine)
    engine = cached_build.BuiltEngine(built, like.parity, False)
    found = compiling._engine_metadata(read_metadata(module), module, request, engine, None)
    assert (found.request, found.build.front_end) == (request, front_end)
    more = f" --front-end {front_end} --streams {streams}"
    assert found.rebuild_command == f"ssdtrt compile ssd300.ts --fp16 --batch-size 8{more} --workspace-mib 64"


@pytest.fixture
def on_a_gpu(module, engine, monkeypatch):
    """Builds of TensorRT give the CPU engine as TensorRT's; `refuse(job)` may raise or change it. The layouts asked for."""
    asked, refusals = [], []
    bare = torchscript.load(engine)
    like = typed(metadata_like("engine", "tensorrt"))

    def build(job, progress):
        asked.append(job.merged_projections)
        network = (refusals[0](job) if refusals else None) or bare
        with torchscript.quiet():
            torchscript.save(network, job.out)
        return Built(
            seconds=80.0, versions=like.versions, machine=like.machine, merged_projections=job.merged_projections
        )

    monkeypatch.setattr("ssdtrt.runners.runtime.why_not", lambda *_: None)
    monkeypatch.setattr("ssdtrt.runners.runtime.lacking_in_tensorrt", lambda: None)
    monkeypatch.setattr("ssdtrt.runners.runtime.import_torch_tensorrt", lambda: None)
    monkeypatch.setattr(compiling, "pick_device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(cached_build, "build_in_child", build)
    return asked, refusals


def builder_fails(job):
    if job.merged_projections:
        raise BuilderError("TensorRT could not build the engine (no kernel).")


class Wrong(torch.nn.Module):
    """An engine that gives the images of a batch each other's outputs, and is right about one alone."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        loc, conf = self.engine(images)
        return loc.flip(0), conf.flip(0)


@pytest.mark.parametrize(
    "why, reason",
    [
        (builder_fails, "TensorRT could not build the engine (no kernel)."),
        (None, "The engine is too far from the FP32 model: relative L2 distance loc "),
    ],
)
def test_where_the_merged_projections_are_refused_the_plainer_layout_is_built_and_recorded(
    module, engine, out, on_a_gpu, monkeypatch, why, reason
):
    asked, refusals = on_a_gpu
    monkeypatch.setenv("SSDTRT_CACHE", str(out.parent / "engines"))
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "1kB")
    (out.parent / "engines").mkdir()
    (out.parent / "engines" / f"{'0' * 64}.ts").write_bytes(b"old")
    with torchscript.quiet():
        wrong = torch.jit.script(Wrong(torchscript.load(engine)).eval())
    refusals.append(why or (lambda job: wrong if job.merged_projections else None))
    for taken in (False, True):
        notes = []
        compile_engine(module, out, precision="fp32", batch="1:2:2", note=notes.append)
        found = read_metadata(out)
        assert (found.build.merged_projections, found.build.cached, asked) == (False, taken, [True, False])
        assert found.parity.repeatability.batch_sizes == (1, 2) and found.parity.passed
        assert len(notes) == 2 * (not taken)
        assert taken or notes[1].startswith("1 least recently used entry was removed from the cache (0.0 kB)")
        (entry,) = list_cache().entries
        assert (entry.request, entry.versions) == (found.request, found.versions)
        said = "TensorRT gets the network once more, with the projections apart: "
        assert taken or (notes[0].startswith(said + reason) and "\n" not in notes[0])


def test_merged_projections_that_are_accepted_are_recorded_too(module, out, on_a_gpu):
    compile_engine(module, out, precision="fp32", front_end="torchscript", note=lambda text: 1 / 0)
    assert read_metadata(out).build.merged_projections is True and on_a_gpu[0] == [True]


def test_where_both_layouts_are_refused_the_first_reason_is_the_error(module, engine, out, on_a_gpu):
    asked, refusals = on_a_gpu

    def refuse(job):
        builder_fails(job)
        with torchscript.quiet():
            return torch.jit.script(Wrong(torchscript.load(engine)).eval())

    refusals.append(refuse)
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out, precision="fp32", batch=2)
    assert str(caught.value).startswith(
        "TensorRT could not build the engine (no kernel). With the projections apart it was refused too: The engine is too "
        "far from the FP32 model"
    )
    assert asked == [True, False] and untouched(out)


def test_without_a_gpu_the_default_backend_says_what_is_missing(module, out, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out)
    message = str(caught.value)
    assert message.startswith("A TensorRT engine cannot be built or run here; missing: a CUDA GPU")
    assert message.endswith(f"For a CPU engine: ssdtrt compile {module} --backend torchscript -o {out}")
    assert untouched(out)


def test_an_engine_is_not_compiled_again(engine, out):
    with pytest.raises(ArtifactError) as caught:
        compile_engine(engine, out, backend="torchscript")
    assert str(caught.value) == (
        f"{engine} is an engine; expected a file of kind module. "
        "An engine is not compiled again: give the module that ssdtrt export wrote."
    )
    assert untouched(out)


def test_an_unwritable_output_is_refused_before_any_work(module, tmp_path):
    nowhere = tmp_path / "nowhere"
    for path, reason in ((tmp_path, "it is a directory"), (nowhere / "b", f"there is no directory {nowhere}")):
        with pytest.raises(ArtifactError) as caught:
            compile_engine(module, path, backend="torchscript")
        assert str(caught.value) == f"{path} cannot be written: {reason}. Give another path with -o."
