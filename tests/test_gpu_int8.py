"""What only a CUDA GPU with TensorRT can show of INT8: `pytest -m gpu`. Two engines are built, once: FP16 and INT8 of batch 8."""

import os
import subprocess
import sys

import pytest
import torch

from conftest import gpu_marks, script
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.engine.parity import relative_l2
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.rewriting.quantized import quantized_model
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.runner import load_engine
from ssdtrt.verify import verify_engine

scenes = script("scenes")

pytestmark = gpu_marks
TABLE = "int8.engine.ts.calibration.json"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs a command in a folder with a module of the weights in the package, and scenes to calibrate and to judge on."""
    pytest.importorskip("faster_coco_eval")
    folder = tmp_path_factory.mktemp("int8")
    scenes.write_val(folder / "calibration", 125, 2, "cuda")
    scenes.write_val(folder / "judged", 200, 3, "cuda")

    def run(*arguments):
        words = [sys.executable, "-W", "ignore", "-m", "ssdtrt", *map(str, arguments)]
        env = os.environ | {"SSDTRT_CACHE": str(folder / "cache")}
        return subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=folder, env=env)

    run.folder = folder
    assert run("export", "--weights", "scenes", "-o", "scenes.ts").returncode == 0
    return run


JUDGED = ("--images", "judged/images", "--annotations", "judged/annotations.json")


@pytest.fixture(scope="module")
def engine(command):
    """The INT8 engine."""
    options = ("--int8", "--calibration", "calibration/images", *JUDGED, "--batch-size", 8, "-o", "int8.engine.ts")
    done = command("compile", "scenes.ts", *options)
    assert done.returncode == 0, done.stderr
    return command.folder / "int8.engine.ts"


def test_the_engine_is_int8_accurate_and_faster_than_fp16(engine, command):
    metadata = read_metadata(engine)
    verdict, request = metadata.int8, metadata.request
    assert verdict.passed and verdict.int8_layers >= 50 and verdict.int8_share > 0.99
    assert verdict.int8_ms < verdict.fp16_ms and verdict.batch_size == 8
    assert verdict.ap.decided and verdict.ap.pictures == 200 and verdict.ap.ratio >= 0.99 and verdict.ap.fp32 > 0.9
    assert verdict.calibration_pictures == 100 and verdict.agreement.pictures == 25
    assert len(verdict.costs) == 57 and request.quantization.keep_fp16 == ()
    assert engine.stat().st_size < 0.75 * 2 * 14.2e6 + 8e6  # FP16 has two bytes a weight.
    assert (command.folder / TABLE).is_file()


def test_the_engine_computes_what_the_quantized_network_does_in_pytorch(engine, command):
    device = torch.device("cuda", 0)
    images = synthetic_images(8, seed=5).to(device)
    model = eager_model(command.folder / "scenes.ts", device)
    with torch.no_grad():
        found = load_engine(engine)(images)
        expected = quantized_model(model, read_metadata(engine).request.quantization)(images)
        exact = model(images)
    for one, quantized, fp32 in zip(found, expected, exact):
        assert relative_l2(one, quantized) < relative_l2(quantized, fp32)


def test_the_engine_is_verified_with_the_bound_of_its_quantization(engine):
    report = verify_engine(engine)
    assert report.passed and report.bound >= 2e-2 and report.floor > 0 and report.repeatability is None


def test_the_command_in_the_file_builds_it_again_from_the_cache(engine, command):
    words = read_metadata(engine).rebuild_command.split()[1:]
    done = command(*words, "-o", "again.engine.ts")
    assert done.returncode == 0, done.stderr
    again = read_metadata(command.folder / "again.engine.ts")
    assert again.build.cached and again.request.quantization.ranges == read_metadata(engine).request.quantization.ranges


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--min-ap-ratio", "1", *JUDGED), "not accurate enough: its AP is 0."),
        (("--calibration", "judged/images", *JUDGED), "200 of the 200 annotated pictures were calibrated on too"),
    ],
)
def test_an_engine_that_is_refused_leaves_nothing(engine, command, options, said):
    before = sorted(path.name for path in command.folder.iterdir())
    table = () if "--calibration" in options else ("--calibration-table", TABLE, "--keep-fp16", "none")
    done = command("compile", "scenes.ts", "--int8", "--batch-size", 8, *table, *options, "-o", "refused.ts")
    assert done.returncode == 1 and said in done.stderr
    assert sorted(path.name for path in command.folder.iterdir()) == before
