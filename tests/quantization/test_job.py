"""compile --int8 from pictures to a plan, and what it refuses: a stand-in of TensorRT runs the quantized network in torch."""

import json
import os

import pytest
import tensorrt_stand_in
import torch
from coco_files import IDS, write_annotations
from command_line import strict
from PIL import Image

from conftest import script
from ssdtrt import config
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.artifact.quantization import CalibrationTable, LayerCost
from ssdtrt.compile import compile_engine
from ssdtrt.engine.cached_build import EngineBuilder
from ssdtrt.errors import CalibrationError, CompileError, ParityError
from ssdtrt.export import export_module
from ssdtrt.images.tensors import prepare
from ssdtrt.model.weights import build_model
from ssdtrt.quantization import job
from ssdtrt.quantization.agreement import run
from ssdtrt.quantization.calibration import calibrate
from ssdtrt.quantization.judge import Judge
from ssdtrt.quantization.options import Int8Options
from ssdtrt.quantization.pictures import CalibrationPictures
from ssdtrt.rewriting.fused import FusedSSD300
from ssdtrt.rewriting.quantized import convolutions
from ssdtrt.system.digests import sha256_file

scenes = script("scenes")
SLOW = 0.2  # seconds that the slower engine takes longer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write_val(folder, 8, 3)
    return folder / "images"


@pytest.fixture(scope="module")
def pictures(folder):
    paths = sorted(folder.iterdir())
    return CalibrationPictures(
        torch.stack([prepare(Image.open(path)) for path in paths]), tuple(map(sha256_file, paths))
    )


@pytest.fixture(scope="module")
def table(model, pictures):
    """A table of the first six."""
    ranges, exponents = calibrate(model, pictures.images[:6], "max", "eval")
    return CalibrationTable(
        weights=model.source.sha256,
        preprocess="eval",
        calibrator="max",
        pictures=pictures.digests[:6],
        ranges=ranges,
        exponents=exponents,
    )


@pytest.fixture
def table_file(table, tmp_path):
    table.write(tmp_path / "t.json")
    return tmp_path / "t.json"


@pytest.fixture(scope="module")
def annotations(model, folder, pictures, tmp_path_factory):
    """What FP32 finds in the last two, as their truth: its own AP is high, and INT8's less so."""
    found = run(model, pictures.images[6:], "eval", torch.device("cpu"), 4)
    names = {number: path.name for number, path in enumerate(sorted(folder.iterdir())[6:], 1)}
    objects = []
    for number, (boxes, labels, scores) in enumerate(found, 1):
        with Image.open(folder / names[number]) as picture:
            width, height = picture.size
        for (left, top, right, bottom), label in zip(boxes[scores > 0.3].tolist(), labels[scores > 0.3].tolist()):
            box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            objects.append((number, IDS[label - 1], box))
    assert len(objects) > 20
    return write_annotations(tmp_path_factory.mktemp("truth") / "a.json", names, objects)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """The cache of these tests, so that each engine is built once."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def out(tmp_path):
    """An empty folder for the engine."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def notes():
    return []


@pytest.fixture
def requests(monkeypatch):
    """The requests that are built."""
    asked, build = [], EngineBuilder.build
    monkeypatch.setattr(
        EngineBuilder, "build", lambda self, request, out: asked.append(request) or build(self, request, out)
    )
    return asked


@pytest.fixture
def compiled(monkeypatch, module, out, notes, engines):
    """Compiles a plan in INT8; `slower` is the engine that takes longer while they are timed."""
    tensorrt_stand_in.install_machine(monkeypatch)
    monkeypatch.setenv("SSDTRT_CACHE", str(engines))

    def call(slower=None, module=module, **options):
        def progress(text):
            takes = {slower: SLOW} if text == "timing INT8 and FP16" else {}
            monkeypatch.setattr(tensorrt_stand_in.Engine, "takes", takes)

        return compile_engine(
            module,
            out / "a.plan",
            precision="int8",
            file_format="plan",
            batch=1,
            int8=Int8Options(**options),
            progress=progress,
            note=notes.append,
        )

    return call


@pytest.fixture
def no_build(monkeypatch):
    monkeypatch.setattr(EngineBuilder, "build", lambda *_: pytest.fail("it was built"))


def test_what_is_accurate_and_faster_is_written_with_its_table(
    compiled, monkeypatch, folder, pictures, module, model, out, notes, requests
):
    monkeypatch.setattr(config, "MIN_CALIBRATION_PICTURES", 8)
    path = compiled("fp16", calibration=folder, calibrator="max")
    assert sorted(os.listdir(out)) == ["a.plan", "a.plan.calibration.json", "a.plan.json"]
    assert notes[0].startswith("8 pictures to calibrate on; ")
    metadata = read_metadata(path)
    table = CalibrationTable.read(out / "a.plan.calibration.json", model.source.sha256, "eval")
    assert table.calibrator == "max" and table.pictures == pictures.measured.digests
    assert [request.precision for request in requests][:2] == ["fp16", "int8"] and requests[-1] == metadata.request
    quantization, verdict = metadata.request.quantization, metadata.int8
    assert (quantization.table, quantization.ranges) == ("a.plan.calibration.json", table.ranges)
    assert 0 < len(quantization.keep_fp16) < 40
    assert quantization.keep_fp16 == tuple(one.name for one in verdict.costs if one.fp16)
    assert verdict.passed and verdict.agreement.pictures == 2 and verdict.ap is None and verdict.calibrator == "max"
    assert (verdict.calibration_pictures, verdict.int8_layers, verdict.int8_share, verdict.batch_size) == (6, 1, 1.0, 1)
    assert verdict.int8_ms < verdict.fp16_ms and verdict.fp16_ms > 1e3 * SLOW
    written = strict(json.dumps(inspect_file(path).document()))["metadata"]
    assert written["int8"] == verdict.as_dict() and written["request"]["quantization"] == quantization.as_dict()
    kept = ",".join(quantization.keep_fp16)
    assert metadata.rebuild_command == (
        "ssdtrt compile ssd300.ts --int8 --batch-size 1 --front-end tensorrt --streams 4 --format plan "
        f"--calibration-table a.plan.calibration.json --keep-fp16 {kept} --calibration {folder}"
    )
    assert metadata.parity.precision == "int8" and 1e-3 < metadata.parity.floor < metadata.parity.outputs[0].relative_l2


def test_a_given_table_is_taken_and_not_written_again(
    compiled, ssdtrt, module, folder, table_file, annotations, monkeypatch, out
):
    """With annotated pictures alone to judge on, and all the layers kept that the names say."""
    monkeypatch.setattr(config, "MIN_AP_PICTURES", 2)
    names = [f"feature_extractor.feature_extractor.{n}.{k}.conv3" for n, k in ((4, 1), (4, 2), (5, 1), (5, 2), (5, 3))]
    keep = ["feature_extractor.feature_extractor.5.0.downsample.0", *names]
    options = {"calibration_table": table_file, "images": folder, "annotations": annotations}
    path = compiled("fp16", keep_fp16=" , ".join(keep), min_ap_ratio=0.5, **options)
    assert sorted(os.listdir(out)) == ["a.plan", "a.plan.json"]
    metadata = read_metadata(path)
    assert metadata.request.quantization.table == "t.json" and metadata.request.quantization.keep_fp16 == tuple(keep)
    assert metadata.int8.ap.pictures == 2 and metadata.int8.ap.decided and 0.5 <= metadata.int8.ap.ratio < 0.999
    assert metadata.int8.costs == () and metadata.int8.calibration_pictures == 6
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = ssdtrt(
        *("-q", "compile", module, "--int8", *given, "--keep-fp16", ",".join(keep), "--min-ap-ratio", "0.9999"),
        *("--batch-size", "1", "--format", "plan", "-o", out / "b.plan"),
    )
    assert (done.exit_code, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: The INT8 engine is not accurate enough: its AP is ")
    assert f", {metadata.int8.ap.ratio:.4f} of FP32's " in done.stderr
    assert "expected at least 0.9999 (--min-ap-ratio)" in done.stderr and done.stderr.endswith("Nothing was written.\n")
    assert sorted(os.listdir(out)) == ["a.plan", "a.plan.json"]


def test_one_that_is_not_accurate_is_refused(compiled, folder, table_file, out):
    with pytest.raises(CompileError) as caught:
        compiled(calibration=folder, calibration_table=table_file, keep_fp16="none")
    message = str(caught.value)
    assert message.startswith("The INT8 engine is not accurate enough: 0.") and message.endswith("Nothing was written.")
    assert os.listdir(out) == []


def test_one_that_is_slower_is_refused(compiled, folder, table_file, out, monkeypatch):
    """Its detections would be accepted."""
    monkeypatch.setattr(Judge, "_detect", lambda self, *given: run(self.model, self.pictures, "eval", self.device, 4))
    with pytest.raises(CompileError) as caught:
        compiled("int8", calibration=folder, calibration_table=table_file, keep_fp16="none")
    message = str(caught.value)
    assert message.startswith("The INT8 engine is not faster: ") and " ms at batch 1, FP16 " in message
    assert message.endswith("Nothing was written.") and os.listdir(out) == []


def test_one_without_a_layer_in_int8_is_refused(compiled, folder, table_file, out, monkeypatch):
    monkeypatch.setattr(tensorrt_stand_in, "QUANTIZED", ("Half", "Half"))
    with pytest.raises(ParityError) as caught:
        compiled(calibration=folder, calibration_table=table_file, keep_fp16="heads.5")
    assert str(caught.value) == (
        "The engine is not INT8: of its multiplications 100.0 % in fp16; expected at least 95 % in int8 or in "
        "layers kept in FP16."
    )
    assert os.listdir(out) == []


def test_an_engine_that_is_not_accurate_is_built_with_more_layers_in_fp16_three_times_in_all(
    compiled, model, folder, table_file, out, notes, monkeypatch, requests
):
    """Where the fake-quantized network promises more than the engine keeps."""
    names = [name for name, _ in convolutions(FusedSSD300(model))][::-1]
    monkeypatch.setattr(job, "measure_costs", lambda *_: [LayerCost(name, 1.0, 0.01) for name in names])
    monkeypatch.setattr(Judge, "agrees", lambda *_: True)
    with pytest.raises(CompileError, match="^The INT8 engine is not accurate enough: "):
        compiled(calibration=folder, calibration_table=table_file)
    kept = [request.quantization.keep_fp16 for request in requests[1:]]
    assert kept == [(), tuple(names[:4]), tuple(names[:8])]
    assert [note.endswith(": built again with more layers in FP16") for note in notes] == [True, True]
    assert os.listdir(out) == []


def test_what_cannot_be_is_refused_before_anything_is_built(
    compiled, no_build, folder, pictures, table, table_file, annotations, tmp_path, out, model, module
):
    given = {"calibration": folder, "calibration_table": table_file, "keep_fp16": "none"}
    stale, elsewhere = tmp_path / "stale.json", sorted(folder.iterdir())
    CalibrationTable(**{**table.as_dict(), "weights": "0" * 64, "pictures": table.pictures}).write(stale)
    few = tmp_path / "few.txt"
    few.write_text("\n".join(map(str, elsewhere[:6])))
    refusals = [
        ({"calibration": folder}, f"{folder} has 8 pictures; INT8 is calibrated on 500 or more like "),
        ({**given, "calibration_table": stale}, f"{stale} is stale: it was measured with the weights {'0' * 64}; "),
        ({**given, "keep_fp16": "heads.0,heads.9"}, "The network has no convolution 'heads.9' to keep in FP16; "),
        ({**given, "calibration": few}, "The calibration table was measured on all of the pictures; give others to "),
        ({**given, "images": folder, "annotations": annotations}, "2 of the 2 annotated pictures were calibrated on"),
    ]  # fmt: skip
    for options, message in refusals:
        with pytest.raises(CalibrationError) as caught:
            compiled(**options)
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert os.listdir(out) == []


def test_pictures_that_are_noise_to_a_trained_network_are_refused(
    compiled, no_build, model, folder, table, tmp_path, out
):
    """A network that finds only background in them, from a checkpoint."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for number, boxes in enumerate(config.BOXES_PER_CELL):
        state[f"conf.{number}.bias"][:boxes] += 20  # Those of the background.
    torch.save({"model": state}, tmp_path / "blind.pt")
    blind = build_model(tmp_path / "blind.pt", trust=True)
    export_module(blind, tmp_path / "blind.ts")
    CalibrationTable(**{**table.as_dict(), "weights": blind.source.sha256, "pictures": table.pictures}).write(
        tmp_path / "t.json"
    )
    with pytest.raises(CalibrationError) as caught:
        compiled(module=tmp_path / "blind.ts", calibration=folder, calibration_table=tmp_path / "t.json")
    assert str(caught.value) == (
        "FP32 detects something in 0 of 2 pictures; calibrate on pictures like those that the network was trained for, with "
        "objects in a tenth of them at least."
    )
    assert os.listdir(out) == []
