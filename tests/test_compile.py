"""Building an engine: proven before it appears, whole or not at all, and ended with whoever asked for it."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
import torch

import ssdtrt
from known import Known
from ssdtrt import compile as compiling
from ssdtrt import config
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.request import BatchRange
from ssdtrt.compile import check_detector, check_size, compile_engine, prove
from ssdtrt.engine.modules import DetectorModule, EngineModule
from ssdtrt.errors import ArtifactError, CompileError, ParityError
from ssdtrt.images.tensors import normalize, synthetic_pictures

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
REQUEST = {"backend": "torchscript", "batch": "1", "device": "cpu", "detector": False, "preprocess": "eval"}
OTHER = b"what was here before"


def metadata_of(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        return json.loads(archive.read(name))


@pytest.fixture
def few_pictures(monkeypatch):
    """One picture to compare on, where the number does not matter."""
    monkeypatch.setattr(config, "PARITY_IMAGES", 1)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where the building process keeps its request and its log."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def out(tmp_path):
    """An output path in a folder of its own, where an older file lies."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.engine.ts").write_bytes(OTHER)
    return folder / "a.engine.ts"


def untouched(out, scratch=None):
    """Whether the older file is as it was, with nothing beside it and no process folder left."""
    return (
        out.read_bytes() == OTHER
        and os.listdir(out.parent) == [out.name]
        and (scratch is None or os.listdir(scratch) == [])
    )


def building(of="self"):
    """The ids of the building processes that a process has started and that still run."""
    found = []
    for children in Path(f"/proc/{of}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            if b"ssdtrt.engine.worker" in command_of(child):
                found.append(child)
    return found


def command_of(process):
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_bf16_halves_the_file(engine, engine_bf16):
    assert 3.9 < engine.stat().st_size / 22_894_902 < 4.5
    assert 1.9 < engine_bf16.stat().st_size / 22_894_902 < 2.5


def test_only_what_was_asked_for_lies_in_the_folder(module, engine, engine_bf16):
    names = set(os.listdir(module.parent)) - {"ssd300.detector.ts"}  # Where another test has asked for it.
    assert names == {"bf16.engine.ts", "ssd300.engine.ts", "ssd300.ts"}
    assert engine.stat().st_mode & 0o444 == module.stat().st_mode & 0o444


@pytest.mark.parametrize("name, precision, bound", [("engine", "fp32", 1e-4), ("engine_bf16", "bf16", 2e-2)])
def test_metadata_says_what_it_was_built_from_how_and_how_near_it_came(request, module, name, precision, bound):
    metadata, base = metadata_of(request.getfixturevalue(name)), metadata_of(module)
    assert set(metadata) == {
        "schema", "kind", "created", "versions", "machine", "model", "inputs", "outputs", "build", "module", "parity"
    }  # fmt: skip
    assert metadata["schema"] == 1 and metadata["kind"] == "engine"
    assert metadata["created"] >= base["created"]
    assert [metadata[key] for key in ("model", "inputs", "outputs", "versions")] == [
        base[key] for key in ("model", "inputs", "outputs", "versions")
    ]
    assert metadata["module"] == {"file": "ssd300.ts", "sha256": hashlib.sha256(module.read_bytes()).hexdigest()}
    seconds = metadata["build"].pop("seconds")
    assert 0 < seconds < 300
    assert metadata["build"].pop("cached") in (False, True)  # Another worker of this run may have built it.
    assert metadata["build"] == {
        "backend": "torchscript",
        "front_end": "torchscript",
        "streams": None,
        "precision": precision,
        "batch": None,
        "workspace_mib": None,
        "disable_tf32": True,
        "method": "trace",
    }
    parity = metadata["parity"]
    assert set(parity) == {
        "precision", "images", "batch_sizes", "bound", "floor", "outputs", "detections", "passed"
    }  # fmt: skip
    assert (parity["precision"], parity["bound"], parity["passed"]) == (precision, bound, True)
    assert (parity["images"], parity["batch_sizes"]) == (8, [1, 2])
    assert [output["name"] for output in parity["outputs"]] == ["loc", "conf"]
    assert all(output["finite"] and 0 < output["relative_l2"] <= bound for output in parity["outputs"])
    found = parity["detections"]
    assert set(found) == {"reference", "engine", "matched", "max_score_change", "share"}
    assert found["reference"] > 0 and found["share"] == found["matched"] / max(found["reference"], found["engine"])
    assert found["share"] > 0.9
    nearest = min(output["relative_l2"] for output in parity["outputs"])
    if precision == "fp32":
        assert parity["floor"] == 0
    else:
        assert 1e-3 < parity["floor"] < nearest


def test_an_engine_beyond_the_bound_is_refused_with_the_figures(
    module, out, scratch, few_pictures, monkeypatch, ssdtrt
):
    monkeypatch.setitem(config.PARITY_BOUND, "fp32", 1e-12)
    done = ssdtrt("compile", module, "--backend", "torchscript", "-o", out)
    assert (done.exit_code, done.stdout) == (1, "") and isinstance(done.exception, SystemExit)
    lines = done.stderr.splitlines()
    assert lines[0] == "building the FP32 engine for any batch, 0 s"
    assert "proving the engine against FP32 eager" in lines
    assert "FP32 against FP32 eager on 2 pictures, batch 1, 2" in lines and "FAILED" in lines
    message = r"Error: The engine is too far from the FP32 model: relative L2 distance loc (\S+), conf (\S+); "
    figures = re.fullmatch(message + "expected at most 1e-12 for FP32.", lines[-1]).groups()
    assert all(1e-12 < float(figure) < 1e-4 for figure in figures)
    shown = [line.split()[:2] for line in lines]
    assert ["loc", figures[0]] in shown and ["conf", figures[1]] in shown
    assert untouched(out, scratch)


def test_an_fp32_engine_passed_off_as_bf16_is_refused_and_leaves_nothing(
    module, out, scratch, few_pictures, monkeypatch
):
    build = compiling.build_in_child
    monkeypatch.setattr("ssdtrt.system.devices.emulates_bf16", lambda: False)  # It is refused before it is run.
    monkeypatch.setattr(
        compiling, "build_in_child", lambda request, progress: build({**request, "precision": "fp32"}, progress)
    )
    with pytest.raises(ParityError, match="The engine is not BF16: it takes 4[.].* bytes a parameter, as FP32"):
        compile_engine(module, out, backend="torchscript", precision="bf16")
    assert untouched(out, scratch)


def test_the_distance_alone_tells_that_it_is_not_bf16(module, engine, few_pictures, monkeypatch):
    monkeypatch.setattr(config, "MAX_BYTES_PER_PARAMETER_16", 100)
    with pytest.raises(ParityError) as caught:
        prove(engine, module, {**REQUEST, "precision": "bf16"}, lambda text: None)
    report = caught.value.report
    assert report.passed and 0 < report.distance < 1e-4 < report.floor
    assert str(caught.value) == (
        f"The engine is not BF16: its relative L2 distance to FP32 (loc {report.outputs[0].relative_l2:.2e}, "
        f"conf {report.outputs[1].relative_l2:.2e}) is below {report.floor:.1e}, nearer than arithmetic in that "
        "precision can come."
    )


def test_the_size_alone_tells_that_it_is_not_bf16(model, engine, engine_bf16):
    check_size(engine_bf16, model, "bf16")
    with pytest.raises(ParityError) as caught:
        check_size(engine, model, "bf16")
    per_parameter = engine.stat().st_size / 22_894_902
    assert str(caught.value) == (
        f"The engine is not BF16: it takes {per_parameter:.2f} bytes a parameter, as FP32 weights do; "
        "expected at most 3.5."
    )


def test_a_bf16_engine_passed_off_as_fp32_is_refused(module, engine_bf16, few_pictures):
    with pytest.raises(ParityError, match="too far from the FP32 model.*expected at most 1e-04 for FP32"):
        prove(engine_bf16, module, {**REQUEST, "precision": "fp32"}, lambda text: None)


def test_a_building_process_that_cannot_start_shows_the_end_of_its_log(module, out, scratch, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(out.parent / "nowhere"))
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out, backend="torchscript")
    lines = str(caught.value).split("\n")
    assert lines[0] == "The building process ended with 1 and no engine."
    assert any("No module named 'encodings'" in line for line in lines[1:]) and len(lines) <= 16
    assert untouched(out, scratch)


def test_a_detector_says_what_goes_in_and_comes_out(detector_file, engine, module):
    metadata, plain = metadata_of(detector_file), metadata_of(engine)
    assert (metadata["kind"], metadata["schema"]) == ("detector", 1)
    assert metadata["inputs"] == [{"name": "images", "shape": ["N", 3, 300, 300], "dtype": "uint8"}]
    assert metadata["outputs"] == [
        {"name": "boxes_xyxy", "shape": ["N", 200, 4], "dtype": "float32"},
        {"name": "labels", "shape": ["N", 200], "dtype": "int64"},
        {"name": "scores", "shape": ["N", 200], "dtype": "float32"},
        {"name": "counts", "shape": ["N"], "dtype": "int64"},
    ]
    assert metadata["model"] == plain["model"] and metadata["module"] == plain["module"]
    assert metadata["parity"]["passed"] and metadata["parity"]["precision"] == "fp32"
    found = torchscript.load(detector_file)(synthetic_pictures(2))
    for part, said in zip(found, metadata["outputs"]):
        assert [2, *part.shape[1:]] == [2, *said["shape"][1:]] and str(part.dtype) == f"torch.{said['dtype']}"


def test_a_detector_that_normalizes_otherwise_is_refused_and_leaves_nothing(
    module, out, scratch, few_pictures, monkeypatch
):
    build = compiling.build_in_child
    monkeypatch.setattr(
        compiling, "build_in_child", lambda request, progress: build({**request, "preprocess": "hub"}, progress)
    )
    with pytest.raises(ParityError, match="The detector's .* are .* from those of its own engine; nothing was written"):
        compile_engine(module, out, detector=True, backend="torchscript")
    assert untouched(out, scratch)


def test_a_detector_whose_outputs_differ_is_refused():
    pictures = synthetic_pictures(2)
    images = normalize(pictures)
    for change, name in (
        (lambda detector: None, None),
        (lambda detector: detector.default_boxes.add_(0.01), "boxes"),
        (lambda detector: detector.default_boxes.fill_(float("nan")), "boxes"),
        (lambda detector: setattr(detector, "forward", lambda images: swapped(detector, images)), "labels"),
    ):
        detector = DetectorModule(EngineModule(Known(), torch.float32, None, channels_last=False), "eval")
        change(detector)
        if name is None:
            check_detector(detector, pictures, images)
        else:
            with pytest.raises(ParityError, match=f"The detector's {name} are .* from those of its own engine"):
                check_detector(detector, pictures, images)


def swapped(detector, images):
    boxes, labels, scores, counts = DetectorModule.forward(detector, images)
    return boxes, labels.flip(1), scores, counts


def test_a_detector_has_a_name_of_its_own(module, few_pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "build_in_child", lambda request, progress: stop(request))
    with pytest.raises(KeyError, match="True ssd300.detector.ts"):
        compile_engine(module, detector=True, backend="torchscript")
    with pytest.raises(KeyError, match="False ssd300.engine.ts"):
        compile_engine(module, backend="torchscript")
    assert os.listdir(tmp_path) == []


def stop(request):
    raise KeyError(f"{request['detector']} {re.sub('^[.]|[.][^.]*[.]tmp$', '', Path(request['out']).name)}")


@LINUX
def test_a_building_process_that_is_killed_is_reported(module, out, scratch):
    def kill(text):
        for child in building():
            os.kill(child, signal.SIGKILL)

    with pytest.raises(CompileError, match="The building process ended with -9 and no engine."):
        compile_engine(module, out, backend="torchscript", progress=kill)
    assert untouched(out, scratch)


@LINUX
def test_breaking_off_ends_the_building_process_at_once_and_leaves_nothing(module, out, scratch):
    seen = []

    def interrupt(text):
        seen.extend(building())
        if len(seen) >= 2:  # It has been there for a second.
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compile_engine(module, out, backend="torchscript", progress=interrupt)
    assert time.monotonic() - started < 5
    assert len(set(seen)) == 1 and command_of(seen[0]) == b""
    assert untouched(out, scratch)


PARENT = """
import sys
from ssdtrt import compile_engine
compile_engine(sys.argv[1], sys.argv[2], backend="torchscript")
"""


@LINUX
@pytest.mark.parametrize("moment", ["as it starts", "while it builds"])
def test_a_building_process_whose_parent_is_killed_dies_too(module, out, scratch, moment):
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(ssdtrt.__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PARENT, str(module), str(out)], env=environment)
    try:
        wait_for(lambda: building(parent.pid))
        (child,) = building(parent.pid)
        if moment == "while it builds":  # It has taken Python's handler of Ctrl-C off by then.
            wait_for(lambda: catches_interrupts(child))
            wait_for(lambda: not catches_interrupts(child))
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not command_of(child))
    assert not list(scratch.glob("*/result.json"))  # It ended before it was done.
    assert out.read_bytes() == OTHER


def catches_interrupts(process):
    """Whether a process handles SIGINT itself; False when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGINT - 1) & 1)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"backend": "onnx"}, "Unknown backend 'onnx'; expected tensorrt or torchscript."),
        ({"backend": "onnx", "precision": "fp16"}, "Unknown backend 'onnx'; expected tensorrt or torchscript."),
        ({"precision": "fp16"}, "The backend torchscript builds fp32 or bf16, not fp16."),
        ({"backend": "tensorrt", "precision": "bf16"}, "The backend tensorrt builds fp16 or fp32, not bf16."),
        ({"workspace_mib": 0}, "The workspace is in MiB and at least 1; found 0."),
        ({"device": "cuda"}, "The backend torchscript does not build for cuda."),
        ({"streams": 17}, "More streams are 0 to 16; found 17."),
        ({"streams": -1}, "More streams are 0 to 16; found -1."),
        ({"streams": 1}, "More streams are for the backend tensorrt; found torchscript."),
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


def test_streams_are_for_one_batch_size():
    assert compiling.check_streams(4, "tensorrt", BatchRange.parse(8)) is None
    assert compiling.check_streams(0, "tensorrt", BatchRange.parse("1:8:32")) is None
    with pytest.raises(CompileError, match="^More streams are for one batch size; found the range 1:8:32.$"):
        compiling.check_streams(4, "tensorrt", BatchRange.parse("1:8:32"))


@pytest.mark.parametrize("streams, cache, kept", [(4, True, True), (4, False, False), (0, True, False)])
def test_the_times_of_kernels_are_kept_for_streams_unless_there_is_no_cache(
    module, out, monkeypatch, streams, cache, kept
):
    asked = []

    def build(request, progress):
        asked.append(request)
        raise CompileError("no further")

    monkeypatch.setenv("SSDTRT_CACHE", str(out.parent / "engines"))
    monkeypatch.setattr(compiling.trt, "why_not", lambda: None)
    monkeypatch.setattr(compiling.machine, "pick_device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(compiling, "build_in_child", build)
    with pytest.raises(CompileError, match="no further"):
        compile_engine(module, out, streams=streams, cache=cache)
    (request,) = asked
    expected = compiling.timings.file_for(torch.device("cpu"))
    assert expected.parent == out.parent / "engines"
    assert (request["streams"], request["timings"]) == (streams, str(expected) if kept else None)


@pytest.mark.parametrize("streams, front_end", [(0, "torchscript"), (4, None)])
def test_the_metadata_of_a_tensorrt_engine_names_its_streams(module, streams, front_end):
    batch = {"batch": "8", "workspace_mib": 64}
    request = {"backend": "tensorrt", "precision": "fp16", "streams": streams, "detector": False, **batch}
    built = {"seconds": 1.0, "versions": {}, "machine": {}, "parity": {}}
    found = compiling.engine_metadata(metadata_of(module), module, request, built, False)["build"]
    assert (found["streams"], found["front_end"], found["batch"]) == (streams, front_end, "8")


def test_without_a_gpu_the_default_backend_says_what_is_missing(module, out, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CompileError) as caught:
        compile_engine(module, out)
    message = str(caught.value)
    assert message.startswith("A TensorRT engine cannot be built or run here; missing: a CUDA GPU")
    assert message.endswith("For a CPU engine: ssdtrt compile --backend torchscript")
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
