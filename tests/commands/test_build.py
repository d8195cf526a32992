"""export, compile and verify: what is given as weights and what is said of it, and what was built and how near it is."""

import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest
import torch
from checkpoints import OLD_TORCH, WritesFile, prefixed, tiny, training_state
from command_line import TRUST, assert_refused, strict
from torch import nn

from known import metadata_like, typed, write_metadata
from ssdtrt import config
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.artifact.quantization import Agreement, ApRatio, Int8Verdict, LayerCost
from ssdtrt.artifact.request import BatchRange
from ssdtrt.commands.build import parity_text
from ssdtrt.commands.text.tables import engine_text
from ssdtrt.compile import compile_engine
from ssdtrt.errors import CompileError, WeightsError
from ssdtrt.model.weights import build_model, state_sha256
from ssdtrt.quantization.options import Int8Options
from ssdtrt.runners import torchscript
from ssdtrt.system.digests import sha256_file

FITS = "Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it."
DIRECTORY = 2_949_000  # where the directory of the archive below begins, about
ASKS = f"torch {torch.__version__} cannot read a checkpoint safely (CVE-2025-32434, fixed in 2.6). Update torch or, "


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A whole checkpoint in the published format; a test that changes it puts it right again."""
    path = tmp_path_factory.mktemp("checkpoint") / "whole.pt"
    torch.save({"model": model.state_dict()}, path)
    return path


def export(ssdtrt, path, trust=TRUST):
    return ssdtrt("-q", "export", "--weights", path, *trust)


def flips():
    """Twenty places: ten anywhere, and ten where no weights are, in the pickle and in the archive's directory."""
    generator = random.Random(5)
    anywhere = [generator.randrange(DIRECTORY) for _ in range(10)]
    pickled = [generator.randrange(54_000) for _ in range(5)]
    return [*anywhere, *pickled, *(-generator.randrange(18_000) for _ in range(5))]


@pytest.mark.slow
@pytest.mark.parametrize("place", flips())
def test_a_flipped_bit_is_refused_or_changes_no_weight(place, whole, model, ssdtrt, tmp_path):
    bit = 1 << abs(place) % 8
    with open(whole, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        place %= size
        flip(file, place, bit)
        try:
            found = build_model(whole, trust=OLD_TORCH)
        except WeightsError as error:
            done = export(ssdtrt, whole)
            assert_refused(done, str(error))
            assert "\n" not in str(error) and str(error).startswith(f"{whole} ") and "damaged" in str(error)
            assert os.listdir(tmp_path) == []
        else:
            assert place > DIRECTORY or place < 54_000  # In no weight.
            assert state_sha256(found.state_dict()) == model.source.sha256
        finally:
            flip(file, place, bit)


def flip(file, place, bit):
    file.seek(place)
    byte = file.read(1)[0]
    file.seek(place)
    file.write(bytes([byte ^ bit]))
    file.flush()


def test_a_flipped_bit_in_a_weight_is_named(whole, model, ssdtrt):
    """The same bit, without the check of the sums, would be another weight without a word."""
    wanted = model.conf[0].weight.detach().numpy().tobytes()
    place = whole.read_bytes().index(wanted) + 1000
    with open(whole, "r+b") as file:
        flip(file, place, 1)
        try:
            loaded = torch.load(whole, map_location="cpu", weights_only=False)["model"]
            assert state_sha256(loaded) != model.source.sha256
            done = export(ssdtrt, whole)
        finally:
            flip(file, place, 1)
    assert done.exit_code == 1 and done.stdout == ""
    start = f"Error: {whole} is truncated or damaged ({whole.stat().st_size:,} bytes, wrong checksum of "
    assert done.stderr.startswith(start) and done.stderr.endswith("). Fetch it again.\n")


NOTE = (
    "note: {path} has no checksums (an old format, or they were switched off), so damage to it would not be noticed. "
    "Check the file with --sha256.\n"
)
PREFIX = "note: {}: the prefix {} of every key was removed.\n"


def without_sums(model, path):
    """Saves as torch did before 1.6, and as one kind of distributed training names its keys."""
    torch.save(
        {"model": prefixed(model.state_dict(), "module."), "label_map": dict(enumerate(config.COCO_LABELS))},
        path,
        _use_new_zipfile_serialization=False,
    )


def test_a_file_without_checksums_is_read_with_a_note(model, ssdtrt, tmp_path):
    """A flipped bit cannot be found there, but with a digest it is."""
    path = tmp_path / "old.pt"
    without_sums(model, path)
    good = build_model(path, trust=OLD_TORCH).source
    assert good.sha256 == model.source.sha256
    content = bytearray(path.read_bytes())
    content[content.index(model.conf[0].weight.detach().numpy().tobytes()) + 1000] ^= 1
    path.write_bytes(content)
    done = export(ssdtrt, path)
    assert (done.exit_code, done.stderr) == (0, NOTE.format(path=path) + PREFIX.format(path, "module."))
    assert read_metadata(tmp_path / "ssd300.ts").model.weights.sha256 != model.source.sha256
    done = ssdtrt("-q", "export", "--weights", path, *TRUST, "--sha256", good.file_sha256, "-o", "other.ts")
    assert done.exit_code == 1 and f"; expected {good.file_sha256}, " in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["old.pt", "ssd300.ts"]


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="this torch always writes checksums")
def test_checksums_that_were_switched_off_are_none(model, tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": model.state_dict()}, tmp_path / "off.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    notes = []
    found = build_model(tmp_path / "off.pt", labels=config.COCO_LABELS[1:], trust=OLD_TORCH, note=notes.append)
    assert found.source.sha256 == model.source.sha256
    assert [f"note: {text}\n" for text in notes] == [NOTE.format(path=tmp_path / "off.pt")]


def test_no_note_on_a_file_with_checksums_or_a_digest(whole, model, tmp_path):
    notes = []
    found = build_model(whole, labels=config.COCO_LABELS[1:], trust=OLD_TORCH, note=notes.append)
    assert found.source.sha256 == model.source.sha256
    without_sums(model, tmp_path / "old.pt")
    build_model(tmp_path / "old.pt", trust=OLD_TORCH, sha256=sha256_file(tmp_path / "old.pt"), note=notes.append)
    assert [f"note: {text}\n" for text in notes] == [PREFIX.format(tmp_path / "old.pt", "module.")]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_does_not_run(zipped, ssdtrt, tmp_path):
    path, marker = tmp_path / "crafted.pt", tmp_path / "marker"
    torch.save({"model": tiny(), "extra": WritesFile(marker)}, path, _use_new_zipfile_serialization=zipped)
    done = export(ssdtrt, path, trust=())
    trusted = "if you trust where the file is from, add --trust-weights."
    if OLD_TORCH:
        assert_refused(done, f"{path}: {ASKS}{trusted}")
    else:
        assert done.exit_code == 1 and done.stdout == ""
        last = done.stderr.splitlines()[-1]
        says = f"Error: {path} holds more than tensors and plain values, and reading that could run code ("
        assert last.startswith(says) and last.endswith(f"). I{trusted[1:]}")
        assert len(done.stderr.splitlines()) == (1 if zipped else 2)  # The note on the legacy format.
    assert os.listdir(tmp_path) == ["crafted.pt"]


def test_a_whole_pickled_module(model, ssdtrt, tmp_path):
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 2), path)
    done = export(ssdtrt, path, trust=())
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1 and done.stderr.endswith("add --trust-weights.\n")
    wanted = "expected a state dict, or NVIDIA's format with one under the key 'model'."
    assert_refused(export(ssdtrt, path, trust=["--trust-weights"]), f"{path} holds an object of type Linear; {wanted}")


def changed(state, **changes):
    """The state with some values replaced, and those that are None left out."""
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


WRONG_STATES = {
    "missing": ({"loc.0.bias": None}, "1 missing: loc.0.bias"),
    "extra": ({"loc.9.bias": torch.zeros(1)}, "1 extra: loc.9.bias"),
    "misshapen": ({"loc.0.bias": torch.zeros(15)}, "1 misshapen: loc.0.bias [15] instead of [16]"),
    "all three": (
        {"loc.0.bias": torch.zeros(15), "loc.1.bias": None, "loc.9.bias": torch.zeros(1)},
        "1 missing: loc.1.bias; 1 extra: loc.9.bias; 1 misshapen: loc.0.bias [15] instead of [16]",
    ),
}


@pytest.mark.parametrize("kind", WRONG_STATES)
def test_keys_that_do_not_fit(kind, model, ssdtrt, tmp_path):
    changes, problems = WRONG_STATES[kind]
    torch.save({"model": changed(model.state_dict(), **changes)}, tmp_path / "c.pt")
    where = f"{tmp_path / 'c.pt'} does not fit SSD300 with a ResNet-50 backbone"
    assert_refused(export(ssdtrt, tmp_path / "c.pt"), f"{where} ({problems}). {FITS}")
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, model, ssdtrt, tmp_path):
    bias = model.loc[0].bias.detach().clone()
    bias[3] = value
    torch.save({"model": changed(model.state_dict(), **{"loc.0.bias": bias})}, tmp_path / "c.pt")
    wanted = f"{tmp_path / 'c.pt'} holds NaN or Inf in loc.0.bias; expected finite weights."
    assert_refused(export(ssdtrt, tmp_path / "c.pt"), wanted)
    assert os.listdir(tmp_path) == ["c.pt"]


def test_the_other_prefix_of_distributed_training(model, ssdtrt, tmp_path):
    path = tmp_path / "training.pt"
    torch.save({**training_state(model), "model": prefixed(model.state_dict(), "module.1.")}, path)
    done = export(ssdtrt, path)
    named = f"note: {path} names 2 of its 80 classes (person, bicycle).\n"
    assert (done.exit_code, done.stderr) == (0, PREFIX.format(path, "module.1.") + named)
    assert done.stdout == "ssd300.ts: traced, 80 classes, weights training.pt\n"
    weights = read_metadata(tmp_path / "ssd300.ts").model.weights
    assert (weights.sha256, weights.trained) == (model.source.sha256, True)


def test_class_names_from_the_file_to_its_record(model, ssdtrt, tmp_path):
    """Those of the checkpoint; without any a note at export and in `inspect`; `--labels` before both."""
    path = tmp_path / "fine.pt"
    torch.save({"label_map": {0: "background", 1: "bolt", 2: "nut"}, "model": model.state_dict()}, path)
    done = export(ssdtrt, path)
    assert done.stderr == f"note: {path} names 2 of its 80 classes (bolt, nut).\n"
    assert read_metadata(tmp_path / "ssd300.ts").model.labels[:4] == ("background", "bolt", "nut", "class 3")
    assert "\nnote " not in ssdtrt("inspect", "ssd300.ts").stdout
    torch.save(model.state_dict(), path)
    done = export(ssdtrt, path)
    assert done.stderr == (
        f"note: {path} holds no class names: classes are numbered, 1 to 80. "
        "--labels FILE names them (--labels coco: COCO's 80).\n"
    )
    assert read_metadata(tmp_path / "ssd300.ts").model.labels[80] == "class 80"
    note = "the classes have no names, only numbers (ssdtrt export --labels FILE names them)"
    assert f"\nnote                        {note}\n" in ssdtrt("inspect", "ssd300.ts").stdout
    assert json.loads(ssdtrt("inspect", "ssd300.ts", "--json", "-").stdout)["notes"] == [note]
    done = ssdtrt("-q", "export", "--weights", path, "--labels", "coco", *TRUST)
    assert done.stderr == "" and read_metadata(tmp_path / "ssd300.ts").model.labels[17] == "dog"
    assert json.loads(ssdtrt("inspect", "ssd300.ts", "--json", "-").stdout)["notes"] == []
    (tmp_path / "labels.txt").write_bytes(
        b"\xff\xfe" + "\r\n".join(f"k\u00e4{n}" for n in range(80)).encode("utf-16-le")
    )
    done = ssdtrt("-q", "export", "--weights", path, "--labels", "labels.txt", *TRUST)
    assert done.stderr == "" and read_metadata(tmp_path / "ssd300.ts").model.labels[1:3] == ("k\u00e40", "k\u00e41")


def test_a_pipe_in_a_checkpoints_place_does_not_hang(ssdtrt, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    wanted = f"{tmp_path / 'pipe.pt'} is a pipe or a device; expected a checkpoint file."
    assert_refused(export(ssdtrt, tmp_path / "pipe.pt"), wanted)


@pytest.fixture(scope="module")
def bad(model, tmp_path_factory):
    """Files that are no weights, by what they are."""
    folder = tmp_path_factory.mktemp("bad")
    names = (
        "missing.ts",
        "folder",
        "empty.ts",
        "text.ts",
        "linear.pt",
        "truncated.pt",
        "page.pt",
        "plain.ts",
        "data.zip",
    )
    files = {name: folder / name for name in names}
    files["folder"].mkdir()
    files["empty.ts"].touch()
    files["text.ts"].write_text("not a module, but some text\n")
    torch.save({"bias": torch.ones(4)}, files["linear.pt"])
    torch.save(model.state_dict(), files["truncated.pt"])
    os.truncate(files["truncated.pt"], 50_000_000)
    files["page.pt"].write_text("<!DOCTYPE html><title>404</title>")
    with torchscript.quiet():
        torchscript.save(torch.jit.script(nn.Linear(2, 2)), files["plain.ts"])
    with zipfile.ZipFile(files["data.zip"], "w") as archive:
        archive.writestr("readme.txt", "hello")
    return files


BAD_WEIGHTS = {
    "missing.ts": "{path}: no such file. Give a checkpoint's path, `coco`, `scenes` or `random` as weights.",
    "folder": "{path} is a directory; expected a checkpoint file.",
    "empty.ts": "{path} is empty; expected a checkpoint. Fetch it again.",
    "text.ts": "{path} is not a PyTorch checkpoint (it begins with b'not a module').",
    "page.pt": "{path} is an HTML or XML page, not a checkpoint. Fetch it again and look at what came.",
    "truncated.pt": "{path} is truncated or damaged (50,000,000 bytes, File is not a zip file). Fetch it again.",
    "plain.ts": "{path} is a TorchScript module, not a checkpoint. Give it to ssdtrt compile instead.",
    "data.zip": "{path} is a zip archive but not a PyTorch checkpoint (it holds no data.pkl).",
    "linear.pt": "{path} does not fit SSD300 with a ResNet-50 backbone ({missing} missing: "
    "feature_extractor.feature_extractor.0.weight, feature_extractor.feature_extractor.1.weight, "
    "feature_extractor.feature_extractor.1.bias, feature_extractor.feature_extractor.1.running_mean "
    "and {more} more; 1 extra: bias). Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it.",
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_are_none(kind, bad, model, ssdtrt, tmp_path):
    done = ssdtrt("-q", "export", "--weights", bad[kind], *TRUST)
    keys = len(model.state_dict())
    assert_refused(done, BAD_WEIGHTS[kind].format(path=bad[kind], missing=keys, more=keys - 4))
    assert os.listdir(tmp_path) == []


def test_labels_that_cannot_be_used(ssdtrt, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    for name, message in (
        ("none.txt", "none.txt cannot be read as a list of labels (No such file or directory)."),
        ("empty.txt", "empty.txt names no class; expected one name a line, without the background."),
    ):
        assert_refused(ssdtrt("-q", "export", "--weights", "random", "--labels", name), message)


def test_export_passes_its_options_on(ssdtrt, monkeypatch, model, module):
    calls = []

    def take(model, output, **options):
        calls.append(options)
        return Path(shutil.copyfile(module, output))

    monkeypatch.setattr("ssdtrt.model.weights.build_model", lambda *_, **__: model)
    monkeypatch.setattr("ssdtrt.export.export_module", take)
    done = ssdtrt("-q", "export", "--weights", "random", "--preprocess", "hub", "--method", "script", "-o", "hub.ts")
    assert (done.exit_code, done.stdout) == (0, "hub.ts: scripted, 80 classes, weights random\n")
    done = ssdtrt("-q", "export", "--weights", "random", "--json", "-")
    assert done.exit_code == 0 and strict(done.stdout) == inspect_file("ssd300.ts").document()
    assert strict(done.stdout)["kind"] == "inspection" and strict(done.stdout)["metadata"]["kind"] == "module"
    assert [(call["preprocess"], call["method"]) for call in calls] == [("hub", "script"), ("eval", "trace")]


def test_onnx_files_from_export_to_detections(ssdtrt, model, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("ssdtrt.model.weights.build_model", lambda *_, **__: model)
    done = ssdtrt("-q", "export", "--weights", "random", "--format", "onnx")
    assert (done.exit_code, done.stdout) == (0, "ssd300.onnx: ONNX module, opset 17, 80 classes, weights random\n")
    done = ssdtrt("-q", "export", "--weights", "random", "--format", "onnx", "--detector", "--preprocess", "hub")
    assert (done.exit_code, done.stdout) == (
        0, "ssd300.detector.onnx: ONNX detector, opset 17, 80 classes, weights random\n"
    )  # fmt: skip
    assert read_metadata("ssd300.detector.onnx").model.preprocess == "hub"
    done = ssdtrt("-q", "detect", "ssd300.onnx", *photographs, "--jsonl", "found.jsonl", "--threshold", "0.2")
    lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    assert done.exit_code == 0 and [len(line["detections"]) > 3 for line in lines] == [True] * 3
    done = ssdtrt("-q", "verify", "ssd300.onnx")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "passed")
    what = "an ONNX file; an engine is built from a TorchScript module: ssdtrt export."
    assert_refused(ssdtrt("-q", "compile", "ssd300.onnx", "--backend", "torchscript"), f"ssd300.onnx is {what}")
    whole = Path("ssd300.onnx").read_bytes()
    Path("ssd300.onnx").write_bytes(whole[: len(whole) // 2])
    reason = "truncated, damaged or not one of ssdtrt's files (it ends inside a field). Make it again."
    for command in (["detect", "ssd300.onnx", photographs[0]], ["inspect", "ssd300.onnx"], ["bench", "ssd300.onnx"]):
        assert_refused(ssdtrt("-q", *command), f"ssd300.onnx is {reason}")


def test_onnx_that_is_missing_is_said_before_the_weights_are_read(ssdtrt, monkeypatch, onnx_file, photographs):
    missing = "not installed here: pip install 'ssdtrt[onnx]'"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("ssdtrt.model.weights.build_model", lambda *_, **__: pytest.fail("the weights were read"))
    assert_refused(ssdtrt("-q", "export", "--format", "onnx"), f"ONNX files need onnx and onnxruntime, {missing}")
    assert_refused(ssdtrt("-q", "detect", onnx_file, photographs[0]), f"ONNX files need onnxruntime, {missing}")


def test_export_does_not_fall_back(ssdtrt, tmp_path):
    done = ssdtrt("-q", "export")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {os.environ['SSDTRT_COCO_URL']} cannot be fetched (")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(
        "Fetch it by hand and give its path with --weights, or set SSDTRT_COCO_URL to a mirror.\n"
    )
    assert not (tmp_path / "ssd300.ts").exists()


# compile


def test_an_engine_is_not_compiled(tmp_path, ssdtrt):
    path = tmp_path / "a.engine.ts"
    with torchscript.quiet():
        torchscript.save(torch.jit.script(nn.Identity()), path)
    write_metadata(path, metadata_like("engine"))
    done = ssdtrt("-q", "compile", path, "--backend", "torchscript")
    assert_refused(
        done,
        f"{path} is an engine; expected a file of kind module. "
        "An engine is not compiled again: give the module that ssdtrt export wrote.",
    )


def test_compile_without_a_gpu_says_what_is_missing_and_what_there_is(module, ssdtrt, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # As where Torch-TensorRT is not installed.
    for precision in ("--fp16", "--fp32"):
        assert_refused(
            ssdtrt("compile", module, precision),
            "A TensorRT engine cannot be built or run here; missing: a CUDA GPU "
            f"(torch {torch.__version__} sees none), and Torch-TensorRT: pip install 'ssdtrt[tensorrt]' "
            "(or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10). "
            f"For a CPU engine: ssdtrt compile {module} --backend torchscript",
        )
    assert os.listdir(tmp_path) == []


@pytest.fixture
def compiled(monkeypatch, engine):
    """What `compile` asks of `compile_engine`, and the words of its hint."""
    calls, hints = [], []

    def take(module, output, **settings):
        calls.append(settings)
        return Path(shutil.copyfile(engine, "a.engine.ts"))

    monkeypatch.setattr("ssdtrt.compile.compile_engine", take)
    monkeypatch.setattr(
        "ssdtrt.commands.build.terminal.hint", lambda *words: hints.append([str(word) for word in words])
    )
    return calls, hints


@pytest.mark.parametrize("asked, streams", [(["--streams", "4"], 4), (["--streams", "0"], 0), ([], None)])
def test_compile_asks_for_streams(ssdtrt, compiled, asked, streams):
    done = ssdtrt("compile", "--fp16", "--batch-size", "8", *asked)
    assert done.exit_code == 0, done.stderr
    ((settings,), (hint,)) = compiled
    assert (settings["streams"], settings["batch"], settings["precision"]) == (streams, 8, "fp16")
    assert hint == ["bench", "a.engine.ts"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--front-end", "torchscript", "--streams", "4"], "--streams needs --front-end tensorrt."),
        (
            ["--front-end", "tensorrt", "--backend", "torchscript"],
            "The backend torchscript has no front ends: leave out --front-end.",
        ),
    ],
)
def test_a_front_end_that_cannot_be_is_wrong_usage(options, message, ssdtrt):
    done = ssdtrt("compile", *options)
    assert done.exit_code == 2 and done.stderr.endswith(f"Error: {message}\n")


def test_the_front_end_is_passed_on(ssdtrt, compiled):
    assert ssdtrt("compile", "--front-end", "tensorrt", "--batch-range", "1:8:32").exit_code == 0
    assert compiled[0][0]["front_end"] == "tensorrt"


def test_compile_asks_for_what_is_the_default_and_for_what_is_not(ssdtrt, compiled):
    assert ssdtrt("compile", "--json", "built.json").exit_code == 0
    built = strict(Path("built.json").read_text())
    assert (built["kind"], built["file"], built["metadata"]["kind"]) == ("inspection", "a.engine.ts", "engine")
    assert built["metadata"]["parity"]["bound"] == 1e-4
    done = ssdtrt("compile", "--json", "ssd300.engine.ts")
    assert done.exit_code == 2 and "Only one of -o and --json can be written to ssd300.engine.ts." in done.stderr
    more = ("--batch-range", "1:8:32", "--detector", "--no-cache", "--workspace-mib", "9", "--sha256", "0", "--device")
    assert ssdtrt("compile", *more, "cuda:1").exit_code == 0
    first, second = compiled[0]
    common = {
        "precision": None, "front_end": "auto", "streams": None, "backend": "tensorrt", "file_format": "torchscript",
        "int8": None,
    }  # fmt: skip
    assert {name: value for name, value in first.items() if name not in ("progress", "note")} == {
        **common, "detector": False, "batch": 1, "workspace_mib": 4096, "device": None, "sha256": None, "cache": True,
    }  # fmt: skip
    assert {name: value for name, value in second.items() if name not in ("progress", "note")} == {
        **common, "detector": True, "batch": BatchRange(1, 8, 32), "workspace_mib": 9, "device": "cuda:1",
        "sha256": "0", "cache": False,
    }  # fmt: skip


def test_compile_asks_for_int8_with_the_options_that_were_given(ssdtrt, compiled):
    given = (
        "--calibration",
        "a",
        "--keep-fp16",
        "heads.0",
        "--images",
        "b",
        "--annotations",
        "c.json",
        "--min-ap-ratio",
        "0.5",
    )
    for options in (
        given[:2],
        (*given, "--calibration-table", "t.json"),
        ("--calibration", "a", "--calibrator", "entropy"),
    ):
        done = ssdtrt("compile", "--int8", "--batch-size", "8", *options)
        assert done.exit_code == 0, done.stderr
    first, second, third = compiled[0]
    assert first["precision"] == second["precision"] == "int8" and first["int8"] == Int8Options(calibration="a")
    assert second["int8"] == Int8Options(
        calibration="a", calibration_table="t.json", keep_fp16="heads.0", images="b", annotations="c.json",
        min_ap_ratio=0.5,
    )  # fmt: skip
    assert third["int8"] == Int8Options(calibration="a", calibrator="entropy")


@pytest.mark.parametrize(
    "options, code, message",
    [
        (["--calibration", "a"], 2, "--calibration is for --int8."),
        (["--fp16", "--min-ap-ratio", "0.9"], 2, "--min-ap-ratio is for --int8."),
        (["--keep-fp16", "none"], 2, "--keep-fp16 is for --int8."),
        (["--int8", "--calibration", "a", "--fp16"], 2, "Give only one of --fp16 and --int8."),
        (["--int8", "--calibration", "a", "--backend", "torchscript"], 2,
         "The backend torchscript takes --fp32 or --bf16, not --int8."),
        (["--int8", "--calibration-table", "t.json", "--calibration", "a", "-o", "t.json"], 2,
         "t.json is an input; give another path for -o."),
        (["--int8"], 1, "INT8 needs pictures like those that it will see: --calibration DIR, 500 or more. With "
         "--calibration-table some are needed to judge the engine on: --calibration DIR, or --images DIR --annotations FILE."),
        (["--int8", "--calibration", "a", "--images", "b"], 1,
         "Annotated pictures take both: --images DIR and --annotations FILE."),
        (["--int8", "--calibration", "a", "--front-end", "torchscript"], 1,
         "INT8 is built through TensorRT's own API: the front end is tensorrt, or auto."),
    ],
)  # fmt: skip
def test_int8_that_cannot_be_is_one_line(options, code, message, ssdtrt, monkeypatch, module, tmp_path):
    monkeypatch.setattr("ssdtrt.runners.runtime.why_not", lambda *_: None)
    done = ssdtrt("compile", module, *options)
    assert (done.exit_code, done.stdout) == (code, "") and done.stderr.endswith(f"Error: {message}\n"), done.stderr
    assert os.listdir(tmp_path) == []


def test_int8_without_its_options_and_the_reverse(module, tmp_path, monkeypatch):
    monkeypatch.setattr("ssdtrt.runners.runtime.why_not", lambda *_: None)
    for options, message in (
        (
            {"precision": "int8"},
            "INT8 needs calibration pictures: give int8=Int8Options(calibration=...), or --calibration DIR.",
        ),
        ({"int8": Int8Options(calibration="a")}, "The options of INT8 are for the precision int8; found fp16."),
    ):
        with pytest.raises(CompileError) as caught:
            compile_engine(module, tmp_path / "e.ts", **options)
        assert str(caught.value) == message


def test_emulated_bf16_is_refused(ssdtrt, monkeypatch):
    monkeypatch.setattr("ssdtrt.compile.emulates_bf16", lambda: True)
    assert_refused(
        ssdtrt("-q", "compile", "missing.ts", "--backend", "torchscript", "--bf16"),
        "This processor has no BF16 arithmetic, and emulating it takes many times as long as FP32. Build in FP32, or "
        "build on the machine where the engine will run.",
    )


# What was built, and how near it is


def test_engine_text():
    cpu, gpu = typed(metadata_like("engine")), typed(metadata_like("engine", "tensorrt"))
    assert engine_text(Path("a.ts"), cpu, 100).splitlines() == [
        "a.ts: FP32 torchscript, any batch, built in 2 s",
        "relative L2 to FP32 eager: loc 1.2e-06 (bound 1e-04)",
        "detections: 10 FP32, 10 engine, 100.0 % matched",
    ]
    assert engine_text(Path("b.ts"), gpu, 100).splitlines()[0] == "b.ts: FP16 tensorrt, batch 1:8:32, built in 2 s"
    data = metadata_like("engine")
    data["build"]["cached"], data["parity"]["detections"] = True, {"reference": 0, "engine": 0}
    lines = engine_text(Path("a.ts"), typed(data), 100).splitlines()
    assert lines[0].endswith(", built in 2 s before, taken from the cache")
    assert lines[2] == "detections: 0 FP32, 0 engine, none to compare"


def judged(costs=(), ap=None):
    """Metadata of an INT8 engine."""
    data = metadata_like("engine", "tensorrt")
    data["request"].update(
        precision="int8",
        front_end="tensorrt",
        quantization={"table": "t.json", "ranges": {}, "exponents": {}, "keep_fp16": []},
    )
    verdict = Int8Verdict(
        calibrator="max", calibration_pictures=500, int8_layers=55, int8_share=0.9751, batch_size=8, int8_ms=0.5,
        fp16_ms=0.75, agreement=Agreement(100, 1234, 0.98765, 0.01), costs=costs, ap=ap,
    )  # fmt: skip
    data["int8"] = verdict.as_dict()
    return typed(data)


COSTS = tuple(LayerCost(f"{'long.' * 4}{number}.conv1", 0.0123 / (number + 1), 0.25) for number in range(7))


def test_the_verdict_on_an_int8_engine():
    lines = engine_text(Path("a.ts"), judged(), 100).splitlines()
    assert lines[0].startswith("a.ts: INT8 tensorrt, batch 1:8:32")
    assert lines[3:] == [
        "INT8: 55 convolutions, 97.5 % of the multiplications",
        "speed: 0.500 ms at batch 8, FP16 0.750 ms (1.50x)",
        "agreement with FP32: 98.8 % of 1,234 detections in 100 pictures",
    ]
    lines = engine_text(Path("a.ts"), judged(COSTS, ApRatio(500, 0.75, 0.7425, 0.99)), 100).splitlines()
    assert lines[6] == "AP: 0.7425, 0.9900 of FP32's 0.7500 (500 pictures)"
    assert lines[7].split() == ["most", "costly", "layer", "cost", "share"] and len(lines) == 8 + 5
    assert lines[8].split() == [COSTS[0].name, "1.2e-02", "25.0", "%"]
    kept = tuple(msgspec.structs.replace(one, fp16=number < 6) for number, one in enumerate(COSTS))
    lines = engine_text(Path("a.ts"), judged(kept, ApRatio(50, 0.0, 0.0, 0.99)), 100).splitlines()
    assert lines[6] == "AP: 0.0000 (50 pictures: undecided, too few)"
    assert lines[7].split()[:3] == ["kept", "in", "FP16"] and [line.split()[0] for line in lines[8:]] == [
        one.name for one in COSTS[:6]
    ]


@pytest.mark.parametrize("width", [60, 40])
def test_the_verdict_on_an_int8_engine_in_few_columns(width):
    lines = engine_text(Path("a.ts"), judged(COSTS, ApRatio(50, 0.75, 0.74, 0.99)), width).splitlines()
    assert max(map(len, lines)) <= width
    assert "too few" in " ".join(lines) and ("  cost: 1.2e-02" in lines) == (width == 40)


def parity(detections=(40, 39, 38, 0.0123), loc=1.23e-3, finite=True):
    outputs = (OutputDistance("loc", loc, 0.5 if finite else None, finite), OutputDistance("conf", 4.56e-4, 0.25))
    return ParityReport("fp16", 8, (1, 8), 2e-2, 1e-4, outputs, DetectionAgreement(*detections))


def test_parity_text():
    assert parity_text(parity(), 80).splitlines() == [
        "FP16 against FP32 eager on 8 pictures, batch 1, 8",
        "output  relative L2  bound   max abs  finite",
        "loc        1.23e-03  2e-02  5.00e-01     yes",
        "conf       4.56e-04  2e-02  2.50e-01     yes",
        "detections: 40 FP32, 39 engine, 38 matched (95.0 %)",
        "largest score change: 0.0123",
        "passed",
    ]


def test_failed_parity_text():
    text = parity_text(parity((0, 0), loc=None, finite=False), 80)
    assert text.splitlines()[2].split() == ["loc", "-", "2e-02", "-", "NO"]
    assert "none to compare" in text and "%" not in text
    assert text.endswith("largest score change: -\nFAILED")


def test_narrow_parity_text():
    lines = parity_text(parity(), 40).splitlines()
    assert "  relative L2: 1.23e-03" in lines and max(map(len, lines)) <= 40
    lines = engine_text(Path("a.ts"), typed(metadata_like("engine", "tensorrt")), 40).splitlines()
    assert max(map(len, lines)) <= 40 and len(lines) > 3


def test_verify_ends_with_1_and_the_reason(ssdtrt, monkeypatch):
    monkeypatch.setattr("ssdtrt.verify.verify_engine", lambda *_, **__: parity(loc=0.5))
    done = ssdtrt("-q", "verify", "a.engine.ts")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stdout.endswith("FAILED\n")
    assert done.stderr == (
        "Error: The engine is too far from the FP32 model: relative L2 distance loc 5.00e-01, conf 4.56e-04; expected at "
        "most 2e-02 for FP16.\n"
    )
    monkeypatch.setattr("ssdtrt.verify.verify_engine", lambda *_, **__: parity())
    assert ssdtrt("-q", "verify", "a.engine.ts").exit_code == 0
