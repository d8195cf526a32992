"""torch.hub's entries: the calls of NVIDIA's notebook work here."""

import configparser
import doctest
import io
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from nvidia_utilities import nvidias_crop
from packaging.requirements import Requirement
from PIL import Image

from conftest import ROOT
from ssdtrt import hub
from ssdtrt.errors import ImageError, WeightsError
from ssdtrt.hub import nvidia_ssd, nvidia_ssd_processing_utils
from ssdtrt.images.tensors import prepare

# The notebook's calls, in a folder that holds this package alone, with known outputs in the network's place.
NOTEBOOK = """
import sys
import numpy, torch
network = torch.hub.load({folder!r}, "nvidia_ssd", source="local", pretrained=False)
utils = torch.hub.load({folder!r}, "nvidia_ssd_processing_utils", source="local")
network.eval()
inputs = [utils.prepare_input(uri) for uri in ["picture.png", "gray.png"]]
tensor = utils.prepare_tensor(inputs)
conf = torch.zeros(2, 81, 8732)
conf[:, 0] = 9
conf[1, 17, 8700] = 20
results_per_input = utils.decode_results((torch.zeros(2, 4, 8732), conf))
best = [utils.pick_best(results, 0.40) for results in results_per_input]
classes_to_labels = utils.get_coco_object_dictionary()
boxes, classes, confidences = best[1]
print([len(part) for part in best[0]], classes_to_labels[classes[0] - 1], tuple(tensor.shape), type(network).__name__)
import ssdtrt
print(ssdtrt.__file__)
"""


@pytest.fixture
def utils():
    return nvidia_ssd_processing_utils()


def test_examples():
    result = doctest.testmod(hub)
    assert result.attempted > 5 and result.failed == 0


def test_torch_hub_loads_both_entries_from_a_folder(tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copy(ROOT / "hubconf.py", folder)
    shutil.copytree(ROOT / "ssdtrt", folder / "ssdtrt", ignore=shutil.ignore_patterns("__pycache__"))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "picture.png")
    Image.new("L", (30, 40), 9).save(tmp_path / "gray.png")
    code = NOTEBOOK.format(folder=str(folder))
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "[0, 0, 0] dog (2, 3, 300, 300) SSD300", str(folder / "ssdtrt" / "__init__.py")
    ]  # fmt: skip


def test_dependencies_are_those_of_the_package():
    """torch.hub looks for them before it runs an entry. click is for the command line alone."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = {Requirement(line).name for line in setup["options"]["install_requires"].split()}
    names = runpy.run_path(str(ROOT / "hubconf.py"))["dependencies"]
    assert {{"PIL": "pillow"}.get(name, name) for name in names} == needed - {"click"}


def test_pretrained_is_the_checkpoint_ready_to_run(model, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "build_model", lambda weights: asked.append(weights) or model)
    assert nvidia_ssd() is model and nvidia_ssd(weights="mine.pt") is model
    assert asked == ["coco", "mine.pt"]


def test_pretrained_that_cannot_be_fetched():
    with pytest.raises(WeightsError, match="nothing-listens-here.pt cannot be fetched"):
        nvidia_ssd()


def test_not_pretrained_is_to_be_trained_and_fetches_nothing():
    model = nvidia_ssd(pretrained=False)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    heads = model.conf[2].weight.detach()  # [6 * 81, channels, 3, 3]
    bound = (6 / (9 * (heads.shape[1] + 6 * 81))) ** 0.5  # Xavier, uniform
    assert float(heads.abs().max()) == pytest.approx(bound, rel=1e-3)


def test_half_precision_but_for_the_norms():
    state = nvidia_ssd(pretrained=False, model_math="fp16").state_dict()
    assert state["conf.0.weight"].dtype == state["additional_blocks.0.0.weight"].dtype == torch.float16
    assert state["additional_blocks.0.1.weight"].dtype == torch.float32
    assert state["feature_extractor.feature_extractor.1.running_var"].dtype == torch.float32
    assert nvidia_ssd(pretrained=False).state_dict()["conf.0.weight"].dtype == torch.float32


def test_what_makes_no_sense_is_refused():
    with pytest.raises(WeightsError, match="model_math is 'int8'; expected 'fp32' or 'fp16'"):
        nvidia_ssd(model_math="int8")
    with pytest.raises(WeightsError, match="force_reload is not supported: remove nvidia_ssdpyt_amp_200703.pt from"):
        nvidia_ssd(force_reload=True)
    with pytest.raises(TypeError, match="backbone"):
        nvidia_ssd(backbone="resnet18")


@pytest.mark.parametrize("size", [(427, 640), (600, 400)])
def test_input_is_what_nvidias_utilities_prepare(utils, tmp_path, size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    picture.save(tmp_path / "picture.png")
    found = utils.prepare_input(str(tmp_path / "picture.png"))
    assert found.shape == (300, 300, 3) and found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
    assert np.abs(found - (nvidias_crop(np.asarray(picture)) * 256 - 128) / 128).max() < 2e-6
    levels = prepare(picture, "hub").permute(1, 2, 0).numpy()  # What a detector gets.
    assert np.abs((found + 1) * 127.5 - levels).max() < 0.5001


def test_pictures_of_every_kind(utils, tmp_path):
    Image.new("L", (30, 60), 51).save(tmp_path / "gray.png")
    Image.new("RGBA", (60, 30), (255, 0, 0, 0)).save(tmp_path / "alpha.png")
    assert np.allclose(utils.prepare_input(tmp_path / "gray.png"), -0.6)
    assert np.allclose(utils.prepare_input(tmp_path / "alpha.png"), 1)
    with open(tmp_path / "gray.png", "rb") as file:
        assert np.allclose(utils.prepare_input(file), -0.6)
    assert np.allclose(utils.prepare_input(io.BytesIO((tmp_path / "gray.png").read_bytes())), -0.6)


def test_pictures_from_the_web(utils, server, photographs):
    address, folder = server
    shutil.copy(photographs[0], folder / "photograph.jpg")
    (folder / "text.jpg").write_text("no picture")
    found = utils.prepare_input(f"{address}/photograph.jpg")
    assert np.array_equal(found, utils.prepare_input(photographs[0]))
    with pytest.raises(ImageError) as caught:
        utils.prepare_input(f"{address}/none.jpg")
    assert str(caught.value) == f"{address}/none.jpg answered 404 (File not found)."
    with pytest.raises(ImageError) as caught:
        utils.prepare_input(f"{address}/text.jpg")
    assert str(caught.value).startswith(f"{address}/text.jpg cannot be read as a picture (")
    with pytest.raises(ImageError) as caught:
        utils.prepare_input("http://127.0.0.1:9/nothing.jpg")
    assert str(caught.value).startswith("http://127.0.0.1:9/nothing.jpg cannot be fetched (")
    with pytest.raises(ImageError, match="cannot be fetched"):
        utils.prepare_input("http://[/nothing.jpg")


def test_pictures_too_large_to_fetch(utils, server, monkeypatch):
    address, folder = server
    (folder / "large.jpg").write_bytes(bytes(1001))
    monkeypatch.setattr(hub, "_MAX_BYTES", 1000)
    with pytest.raises(ImageError) as caught:
        utils.prepare_input(f"{address}/large.jpg")
    assert str(caught.value) == f"{address}/large.jpg is larger than 1,000 bytes."


def test_missing_file(utils, tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        utils.prepare_input(tmp_path / "none.jpg")


def test_tensor_is_channels_first(utils):
    inputs = [np.random.default_rng(i).random((300, 300, 3), dtype=np.float32) for i in range(2)]
    found = utils.prepare_tensor(inputs)
    assert found.dtype == torch.float32 and found.is_contiguous()
    assert found.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert np.array_equal(found.cpu().numpy(), np.stack(inputs).transpose(0, 3, 1, 2))
    assert utils.prepare_tensor(inputs, fp16=True).dtype == torch.float16
    assert torch.equal(utils.prepare_tensor(np.stack(inputs)), found)
    assert utils.prepare_tensor([inputs[0].astype(np.float64)]).dtype == torch.float32


@pytest.mark.parametrize("inputs, found", [
    ([], "none"), ([np.zeros((3, 300, 300))], r"\(3, 300, 300\)"), (np.zeros((300, 300, 3)), r"\(300, 3\)"),
])  # fmt: skip
def test_wrong_inputs(utils, inputs, found):
    with pytest.raises(ImageError, match=f"of shape \\(300, 300, 3\\); found {found}"):
        utils.prepare_tensor(inputs)


def test_decoded_results(utils):
    """Two boxes of the last two maps, where nothing is moved: the middle one, and a cell of the 3x3 map."""
    loc, conf = torch.zeros(2, 4, 8732), torch.zeros(2, 81, 8732)
    conf[:, 0] = 12
    conf[0, 17, 8728] = 13  # The 1x1 map's first box: center 0.5, side 261 / 300.
    conf[0, 3, 8692] = 15  # The 3x3 map's first box in its first cell: center 1 / 6, side 207 / 300.
    conf.requires_grad_()
    found = utils.decode_results((loc, conf))
    assert [[type(part) for part in picture] for picture in found] == [[np.ndarray] * 3] * 2
    boxes, labels, scores = found[0]
    assert labels.tolist() == [17, 3]
    expected = [np.exp(logit) / (np.exp(logit) + np.exp(12) + 79) for logit in (13, 15)]
    assert scores == pytest.approx(expected, abs=1e-5)  # A sum of 81 float32 numbers.
    assert boxes[0] == pytest.approx([0.065, 0.065, 0.935, 0.935], abs=1e-6)
    assert boxes[1] == pytest.approx([1 / 6 - 0.345, 1 / 6 - 0.345, 1 / 6 + 0.345, 1 / 6 + 0.345], abs=1e-6)
    assert [part.shape for part in found[1]] == [(0, 4), (0,), (0,)]


def test_at_most_twenty_results(utils):
    conf = torch.zeros(1, 81, 8732)
    conf[:, 0] = 12
    for i in range(30):
        conf[0, 1 + i, 40 * i] = 14 + i / 10
    (found,) = utils.decode_results((torch.zeros(1, 4, 8732), conf))
    assert found[1].tolist() == list(range(11, 31))  # The lowest score first, as NVIDIA's.
    assert all(torch.from_numpy(part).shape[0] == 20 for part in found)


def test_best_results(utils):
    detections = [np.arange(16.0).reshape(4, 4), np.array([1, 2, 3, 4]), np.array([0.9, 0.3, 0.31, 0.1])]
    boxes, labels, scores = utils.pick_best(detections)
    assert boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert (labels.tolist(), scores.tolist()) == ([1, 3], [0.9, 0.31])
    assert [len(part) for part in utils.pick_best(detections, threshold=0.95)] == [0, 0, 0]
    assert utils.pick_best(detections, 0.05)[1].tolist() == [1, 2, 3, 4]


def test_names_of_the_classes(utils):
    names = utils.get_coco_object_dictionary()
    assert len(names) == 80 and (names[0], names[16], names[79]) == ("person", "dog", "toothbrush")
