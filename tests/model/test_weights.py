"""From the name of some weights to a network: classes, names, digests, and what does not fit."""

import doctest
import hashlib

import pytest
import torch
from checkpoints import TRUST

from ssdtrt import config
from ssdtrt.errors import WeightsError
from ssdtrt.model import weights
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import build_model, model_from_state, state_sha256


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    """The random model's weights in NVIDIA's format, as a file."""
    path = tmp_path_factory.mktemp("weights") / "coco.pt"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """(state dict, file) of a network of five classes, background included."""
    torch.manual_seed(11)
    state = SSD300(5).state_dict()
    path = tmp_path_factory.mktemp("weights") / "fruit.pt"
    torch.save({"model": state}, path)
    return state, path


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What comes out


def test_example():
    result = doctest.testmod(weights)
    assert result.attempted > 3 and result.failed == 0


def test_model_of_a_checkpoint_is_ready_to_run(checkpoint, model):
    loaded = build_model(checkpoint, trust=TRUST)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    assert loaded.source.as_dict() == {
        "name": "coco.pt",
        "sha256": model.source.sha256,
        "trained": True,
        "file_sha256": sha256_of(checkpoint),
    }
    images = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert all(torch.equal(found, expected) for found, expected in zip(loaded(images), model(images)))


def test_five_classes_are_taken_from_the_heads(fine_tuned):
    state, path = fine_tuned
    loaded = build_model(path, trust=TRUST)
    assert loaded.num_classes == 5
    assert loaded.labels == ("background", "class 1", "class 2", "class 3", "class 4")
    assert loaded.conf[0].weight.shape == (20, 64, 3, 3)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    with torch.no_grad():
        loc, conf = loaded(torch.zeros(1, 3, 300, 300))
    assert (loc.shape, conf.shape) == ((1, 4, 8732), (1, 5, 8732))


@pytest.mark.parametrize("label_map", [{0: "background", 1: "bolt", 2: "nut"}, {1: "bolt", 2: "nut"}])
def test_the_names_in_a_checkpoint_of_81_outputs(label_map, model, tmp_path):
    """They are its own, not COCO's; the outputs that it does not name are numbered. Given labels come before them."""
    path, notes = tmp_path / "fine.pt", []
    torch.save({"label_map": label_map, "model": model.state_dict()}, path)
    loaded = build_model(path, trust=TRUST, note=notes.append)
    assert loaded.labels == ("background", "bolt", "nut", *(f"class {number}" for number in range(3, 81)))
    assert notes == [f"{path} names 2 of its 80 classes (bolt, nut)."]
    given = [f"part {number}" for number in range(1, 81)]
    assert build_model(path, labels=given, trust=TRUST, note=notes.append).labels == ("background", *given)
    assert len(notes) == 1


def test_every_name_in_a_checkpoint(fine_tuned, tmp_path):
    path, notes = tmp_path / "fruit.pt", []
    names = {0: "background", 1: "apple", 2: "pear", 3: "plum", 4: "fig"}
    torch.save({"label_map": names, "model": fine_tuned[0]}, path)
    assert build_model(path, trust=TRUST, note=notes.append).labels == ("background", "apple", "pear", "plum", "fig")
    assert notes == []


def test_a_first_label_background_is_left_out(fine_tuned):
    given = ["background", "apple", "pear", "plum", "fig"]
    assert build_model(fine_tuned[1], labels=given, trust=TRUST).labels == tuple(given)
    assert build_model("random", labels=["background", "cat"]).labels == ("background", "cat")


def test_labels_name_the_classes(fine_tuned):
    loaded = build_model(str(fine_tuned[1]), labels=["apple", "pear", "plum", "fig"], trust=TRUST)
    assert loaded.labels == ("background", "apple", "pear", "plum", "fig")


@pytest.mark.parametrize("labels", [[], ["apple", "pear", "plum"], ["apple", "pear", "plum", "fig", "lime"]])
def test_wrong_number_of_labels(labels, fine_tuned):
    message = f"Found {len(labels)} label{'s' * (len(labels) != 1)}; the weights have 4 classes besides the background."
    with pytest.raises(WeightsError) as caught:
        build_model(fine_tuned[1], labels=labels, trust=TRUST)
    assert str(caught.value) == message


def test_half_precision_weights_become_float32(fine_tuned):
    state = {key: value.half() if value.is_floating_point() else value for key, value in fine_tuned[0].items()}
    found = model_from_state(state, "half.pt").state_dict()
    assert found["loc.0.weight"].dtype == torch.float32
    assert all(torch.equal(found[key], value.to(found[key].dtype)) for key, value in state.items())
    assert found["additional_blocks.0.1.num_batches_tracked"].dtype == torch.int64


def test_the_given_tensors_are_not_written(fine_tuned):
    state = fine_tuned[0]
    before = {key: value.clone() for key, value in state.items()}
    model_from_state(state, "fruit.pt")
    assert all(torch.equal(value, before[key]) for key, value in state.items())


# SHA-256


@pytest.mark.parametrize("digest", ["", "ab", "ab" * 31 + "g0"])
def test_what_is_no_sha256_is_refused(digest, checkpoint):
    """Also an empty one, as from a variable that is not set: it does not switch the check off."""
    with pytest.raises(WeightsError, match="is not a SHA-256; expected 64 hex digits"):
        build_model(checkpoint, sha256=digest, trust=TRUST)
    with pytest.raises(WeightsError, match="no SHA-256 to check"):
        build_model("random", sha256=digest)


def test_right_sha256(checkpoint):
    digest = sha256_of(checkpoint)
    assert build_model(checkpoint, sha256=digest.upper(), trust=TRUST).source.file_sha256 == digest


def test_wrong_sha256(checkpoint):
    with pytest.raises(WeightsError) as caught:
        build_model(checkpoint, sha256="AB" * 32, trust=TRUST)
    start = f"{checkpoint} has the SHA-256 {sha256_of(checkpoint)}; expected {'ab' * 32}, "
    assert str(caught.value).startswith(start)


def test_wrong_sha256_is_reported_before_anything_is_read(tmp_path):
    path = tmp_path / "damaged.pt"
    path.write_bytes(b"\x80damaged")
    with pytest.raises(WeightsError, match="expected 00"):
        build_model(path, sha256="00" * 32, trust=True)


def test_random_weights_have_no_file():
    with pytest.raises(WeightsError, match="Random weights come from no file"):
        build_model("random", sha256="00" * 32)


def test_state_sha256_literal():
    """Names in their order, each with type, shape and bytes; written out once by hand."""
    state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(7)}
    content = b"a torch.int64 []\n" + bytes([7, 0, 0, 0, 0, 0, 0, 0])
    content += b"b torch.float32 [2]\n" + bytes.fromhex("0000803f00000040")
    assert state_sha256(state) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1.0000001])},
        {"a": torch.zeros(2, 3)},
    ],
)
def test_state_sha256_tells_names_shapes_types_and_values_apart(other):
    state = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    assert state_sha256(other) != state_sha256(state)
    strided = torch.zeros(3, 2).t()
    assert state_sha256({"b": torch.ones(2), "a": strided}) == state_sha256(state)


# The package's own


def test_weights_of_the_package(packed_scenes, monkeypatch):
    """They are a packed file, which can be given by its path too."""
    monkeypatch.setattr(config, "SCENES_WEIGHTS", packed_scenes)
    notes = []
    loaded = build_model("scenes", note=notes.append)
    assert loaded.labels == (
        "background", "disc", "rectangle", "triangle", "ring", "cross", "star", "dome", "diamond", "frame", "ell"
    )  # fmt: skip
    assert (loaded.source.name, loaded.source.trained) == ("scenes", True)
    assert loaded.source.file_sha256 == sha256_of(packed_scenes)
    assert not loaded.training and {one.dtype for one in loaded.parameters()} == {torch.float32} and notes == []
    made = build_model("random", labels=loaded.labels).state_dict()
    largest = made["loc.0.weight"].abs().amax((1, 2, 3), keepdim=True)
    assert ((loaded.state_dict()["loc.0.weight"] - made["loc.0.weight"]).abs() <= largest / 63 * 0.5001).all()
    assert torch.equal(loaded.state_dict()["loc.0.bias"], made["loc.0.bias"])
    given = build_model(packed_scenes, sha256=sha256_of(packed_scenes), labels=["a"] * 10)
    assert given.source.sha256 == loaded.source.sha256 and given.labels[-1] == "a"
    with pytest.raises(WeightsError, match="scenes.npz has the SHA-256 .*; expected 00"):
        build_model("scenes", sha256="00" * 32)


def test_a_package_without_its_weights(tmp_path, monkeypatch):
    path = tmp_path / "scenes.npz"
    monkeypatch.setattr(config, "SCENES_WEIGHTS", path)
    with pytest.raises(WeightsError) as caught:
        build_model("scenes")
    assert str(caught.value) == f"{path}: no such file, though it is part of ssdtrt. Install ssdtrt again."


# What does not fit


def fit_error(state, origin="some.pt"):
    with pytest.raises(WeightsError) as caught:
        model_from_state(state, origin)
    message = str(caught.value)
    assert message.startswith(origin) and "\n" not in message
    return message


def test_checkpoint_of_another_model(tmp_path):
    from torchvision.models import resnet18

    path = tmp_path / "resnet18.pt"
    torch.save(resnet18(weights=None).state_dict(), path)
    with pytest.raises(WeightsError) as caught:
        build_model(path, trust=TRUST)
    root = "feature_extractor.feature_extractor"
    assert str(caught.value) == (
        f"{path} does not fit SSD300 with a ResNet-50 backbone (342 missing: {root}.0.weight, {root}.1.weight, "
        f"{root}.1.bias, {root}.1.running_mean and 338 more; 122 extra: conv1.weight, bn1.weight, bn1.bias, "
        "bn1.running_mean and 118 more). Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it."
    )


def test_missing_extra_and_misshapen_keys_are_listed(model):
    state = dict(model.state_dict())
    del state["loc.3.bias"]
    state["fc.weight"] = torch.zeros(1)
    state["loc.0.weight"] = torch.zeros(16, 512, 3, 3)
    state["conf.5.bias"] = torch.zeros(7)
    message = fit_error(state)
    assert "1 missing: loc.3.bias;" in message
    assert "1 extra: fc.weight;" in message
    assert "2 misshapen: loc.0.weight [16, 512, 3, 3] instead of [16, 64, 3, 3], conf.5.bias [7]" in message
    assert "conf.5.bias [7] instead of [324])" in message


def test_only_what_is_wrong_is_listed(model):
    state = {key: value for key, value in model.state_dict().items() if key != "loc.3.bias"}
    message = fit_error(state)
    assert "(1 missing: loc.3.bias)" in message
    assert "extra" not in message and "misshapen" not in message


def test_heads_that_disagree_on_the_classes(model, fine_tuned):
    """The first head has 5 classes and the others 81."""
    state = dict(model.state_dict())
    state["conf.0.weight"] = fine_tuned[0]["conf.0.weight"]
    message = fit_error(state)
    assert "11 misshapen: conf.0.bias [324] instead of [20], conf.1.weight [486, 32, 3, 3]" in message


@pytest.mark.parametrize("shape", [(), (20,), (21, 128, 3, 3), (4, 128, 3, 3), (0, 128, 3, 3)])
def test_class_head_of_no_possible_shape(shape, model):
    state = {**model.state_dict(), "conf.0.weight": torch.zeros(shape)}
    assert f"conf.0.weight {list(shape)} instead of [324, 64, 3, 3]" in fit_error(state)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nan_and_inf(value, model):
    state = dict(model.state_dict())
    for key in ("conf.0.bias", "additional_blocks.1.4.running_var"):
        state[key] = state[key].clone()
        state[key][3] = value
    message = fit_error(state)
    assert "holds NaN or Inf in" in message
    assert "conf.0.bias" in message and "additional_blocks.1.4.running_var" in message


def test_weights_that_are_no_floats(model):
    """One message, as for a wrong shape."""
    state = {**model.state_dict(), "loc.0.weight": torch.zeros(16, 128, 3, 3, dtype=torch.int64)}
    assert "loc.0.weight" in fit_error(state)
