"""Checkpoint files: the formats that are read, and one clear error for everything else."""

import collections
import io
import pickle
import sys
import warnings
import zipfile

import numpy
import pytest
import torch
from checkpoints import OLD_TORCH, TRUST, WritesFile, prefixed, tiny, training_state, write
from torch import nn

from ssdtrt.errors import WeightsError
from ssdtrt.export import _to_torchscript
from ssdtrt.model.checkpoint import read_checkpoint
from ssdtrt.model.contents import CheckpointError
from ssdtrt.model.weights import build_model, state_sha256
from ssdtrt.runners.torchscript import save

new_torch_only = pytest.mark.skipif(OLD_TORCH, reason="below torch 2.6 nothing is read without trust")


# Formats that are read

FORMATS = {
    "nvidia": lambda model, state: {"model": state},
    "training": lambda model, state: {**training_state(model), "model": state},
    "training, module.": lambda model, state: {**training_state(model), "model": prefixed(state, "module.")},
    "training, module.1.": lambda model, state: {**training_state(model), "model": prefixed(state, "module.1.")},
    "state_dict key": lambda model, state: {"epoch": 3, "state_dict": state},
    "plain": lambda model, state: state,
    "plain, module.": lambda model, state: prefixed(state, "module."),
    "compiled": lambda model, state: prefixed(state, "_orig_mod."),
    "compiled in DDP": lambda model, state: {"model": prefixed(state, "module._orig_mod.")},
    "Lightning": lambda model, state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
    "model_state_dict": lambda model, state: {"model_state_dict": state, "epoch": 3},
    "net": lambda model, state: {"net": state, "acc": 0.5},
    "module": lambda model, state: {"module": state},
    "nested": lambda model, state: {"checkpoint": {"model": state, "step": 1}},
    "ema": lambda model, state: {"ema_state_dict": state},
    "without counts": lambda model, state: {key: value for key, value in state.items() if "num_batches" not in key},
    "a count too few": lambda model, state: {key: value for key, value in state.items() if key != COUNT},
}
COUNT = "additional_blocks.1.1.num_batches_tracked"
NOTES = {
    "training, module.": ["the prefix module. of every key was removed."],
    "training, module.1.": ["the prefix module.1. of every key was removed."],
    "plain, module.": ["the prefix module. of every key was removed."],
    "compiled": ["the prefix _orig_mod. of every key was removed."],
    "compiled in DDP": ["the prefix module._orig_mod. of every key was removed."],
    "Lightning": ["the prefix model. of every key was removed."],
    "model_state_dict": ["the weights are those under model_state_dict."],
    "net": ["the weights are those under net."],
    "module": ["the weights are those under module."],
    "nested": ["the weights are those under checkpoint > model."],
    "ema": ["the weights are those under ema_state_dict."],
    "without counts": ["lacks 53 num_batches_tracked, which only training needs; they are 0."],
    "a count too few": ["lacks 1 num_batches_tracked, which only training needs; they are 0."],
}
NO_NAMES = "holds no class names: classes are numbered, 1 to 80. --labels FILE names them (--labels coco: COCO's 80)."


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_back_the_same_tensors(name, model, tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = dict(model.state_dict())
    for key in [key for key in state if "num_batches" in key]:
        state[key] = torch.tensor(0)
    torch.save(FORMATS[name](model, state), path)
    notes = []
    loaded = build_model(path, trust=TRUST, note=notes.append)
    found = loaded.state_dict()
    assert set(found) == set(state)
    for key, value in state.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key
    assert loaded.source.sha256 == state_sha256(state)
    assert (loaded.source.name, loaded.source.trained) == ("checkpoint.pt", True)
    named = "names 2 of its 80 classes (person, bicycle)."
    expected = [*NOTES.get(name, []), named if name.startswith("training") else NO_NAMES]
    assert [note.removeprefix(str(path)).lstrip(": ") for note in notes] == expected
    person = "person" if name.startswith("training") else "class 1"
    assert loaded.num_classes == 81 and loaded.labels[1] == person


@pytest.mark.skipif(not OLD_TORCH, reason="torch from 2.6 on reads checkpoints safely")
@pytest.mark.parametrize("name", ["plain", "training"])
def test_old_torch_asks_for_trust(name, model, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save(FORMATS[name](model, tiny()), path)
    with pytest.raises(WeightsError, match=r"cannot read a checkpoint safely \(CVE-2025-32434.*--trust-weights"):
        build_model(path)


def test_legacy_format(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"model": tiny()}, path, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:1] == b"\x80"
    found = read_checkpoint(path, trust=TRUST).state
    assert list(found) == ["a.weight", "a.bias"]
    assert all(torch.equal(value, tiny()[key]) for key, value in found.items())


@pytest.mark.parametrize("trust", [True, False])
def test_safetensors(trust, model, tmp_path):
    """No code is in them, so they need no trust. Names are read from the metadata, which is text."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    path, notes = tmp_path / "model.safetensors", []
    state = {key: value for key, value in prefixed(model.state_dict(), "model.").items() if COUNT not in key}
    save_file(state, path, metadata={"format": "pt", "label_map": '{"1": "bolt", "2": "nut"}', "names": "bolt, nut",
                                    "labels": "[" * 100_000})  # fmt: skip
    loaded = build_model(path, trust=trust, note=notes.append)
    assert loaded.source.sha256 == state_sha256({**model.state_dict(), COUNT: torch.tensor(0)})
    assert loaded.labels[1:4] == ("bolt", "nut", "class 3")
    assert notes == [
        f"{path} has no checksums (the safetensors format), so damage to it would not be noticed. "
        "Check the file with --sha256.",
        f"{path}: the prefix model. of every key was removed.",
        f"{path} lacks 1 num_batches_tracked, which only training needs; they are 0.",
        f"{path} names 2 of its 80 classes (bolt, nut).",
    ]
    del notes[:]
    build_model(path, labels=[str(n) for n in range(80)], sha256=loaded.source.file_sha256, note=notes.append)
    assert len(notes) == 2 and "checksums" not in notes[0]


def test_damaged_safetensors(tmp_path, monkeypatch):
    save_file = pytest.importorskip("safetensors.torch").save_file
    whole = tmp_path / "whole.safetensors"
    save_file(tiny(), whole)
    content = whole.read_bytes()
    for place in (9, 60, len(content) - 1):
        path = write(tmp_path / "cut.safetensors", content[:place])
        assert_one_line_error(path)
    assert_one_line_error(path, f"is truncated or damaged ({len(content) - 1} bytes, ", "Fetch it again")
    broken = write(tmp_path / "broken.safetensors", content[:8] + b"{" + b"x" * (len(content) - 9))
    assert_one_line_error(broken, "is truncated or damaged")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert_one_line_error(whole, "is of the safetensors format: pip install 'ssdtrt[safetensors]'")


def test_model_key_comes_before_state_dict(tmp_path):
    path = tmp_path / "both.pt"
    torch.save({"state_dict": {"b": torch.zeros(1)}, "model": tiny()}, path)
    assert list(read_checkpoint(path, trust=TRUST).state) == ["a.weight", "a.bias"]


def test_a_prefix_on_some_keys_is_no_prefix(tmp_path):
    path = tmp_path / "mixed.pt"
    torch.save({"module.conf.0.weight": torch.zeros(1), "b": torch.zeros(1)}, path)
    assert list(read_checkpoint(path, trust=TRUST).state) == ["module.conf.0.weight", "b"]


def test_a_checkpoint_that_holds_itself(tmp_path):
    content = {}
    content["model"] = content
    path = tmp_path / "circle.pt"
    torch.save(content, path)
    assert_one_line_error(path, "holds a dict with the keys model; expected a state dict")


def test_a_checkpoint_saved_on_a_gpu_is_read_without_one(tmp_path):
    """The same file with `cuda:0` where torch wrote `cpu`, as it writes on a GPU."""
    path, on_gpu = tmp_path / "cpu.pt", tmp_path / "gpu.pt"
    torch.save({"model": tiny()}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(on_gpu, "w") as edited:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                changed = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
                assert changed != content
                content = changed
            edited.writestr(name, content)
    found = read_checkpoint(on_gpu, trust=TRUST).state
    assert {value.device.type for value in found.values()} == {"cpu"}
    assert all(torch.equal(value, tiny()[key]) for key, value in found.items())


# Files that are no checkpoint


def assert_one_line_error(path, *parts, trust=TRUST):
    """read_checkpoint raises a WeightsError of one line that names the file and holds these parts."""
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path, trust=trust)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    assert "\n" not in message


def test_missing_file(tmp_path):
    assert_one_line_error(tmp_path / "none.pt", "no such file", "`coco`", "`scenes`", "`random`")


def test_damaged_packed_weights(packed_scenes, tmp_path):
    whole, path = packed_scenes.read_bytes(), tmp_path / "scenes.npz"
    path.write_bytes(whole[: len(whole) // 2])
    assert_one_line_error(path, f"is truncated or damaged ({len(whole) // 2:,} bytes, File is not a zip file)")
    with zipfile.ZipFile(packed_scenes) as archive:
        members = [one for one in archive.infolist() if one.compress_size > 500]
    for member in members[::20]:
        place = member.header_offset + 400
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert_one_line_error(path, "is truncated or damaged (")
    numpy.savez(path, record=numpy.array('{"labels": []}'))
    assert_one_line_error(path, "is truncated or damaged (", "missing required field `source_sha256`")


def test_directory(tmp_path):
    assert_one_line_error(tmp_path, "is a directory", "expected a checkpoint file")


def test_empty_file(tmp_path):
    assert_one_line_error(write(tmp_path / "empty.pt", b""), "is empty")


def test_text_file(tmp_path):
    assert_one_line_error(
        write(tmp_path / "notes.txt", "weights: see the wiki"), "is not a PyTorch checkpoint", "b'weights: see'"
    )


@pytest.mark.parametrize("page", ["<!DOCTYPE html><title>404</title>", "\n  <html></html>", "<?xml?><Error/>"])
def test_html_page(page, tmp_path):
    assert_one_line_error(write(tmp_path / "page.pt", page), "is an HTML or XML page, not a checkpoint")


def test_unreadable_file(tmp_path, not_root):
    path = write(tmp_path / "secret.pt", b"\x80")
    path.chmod(0)
    assert_one_line_error(path, "cannot be read: Permission denied")


@pytest.fixture(scope="module")
def whole_file(model):
    """The bytes of a whole checkpoint."""
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict()}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("place", [3, 100, 4096, 0.1, 0.5, 0.9, 0.9999, -1000, -22, -1])
def test_truncated_checkpoint(place, whole_file, tmp_path):
    size = int(place * len(whole_file)) if isinstance(place, float) else place % len(whole_file)
    path = write(tmp_path / "cut.pt", whole_file[:size])
    assert_one_line_error(path, "is truncated or damaged", f"{size:,} bytes", "Fetch it again")


def test_checkpoint_with_a_hole(whole_file, tmp_path):
    half = len(whole_file) // 2
    path = write(tmp_path / "hole.pt", whole_file[:half] + whole_file[half + 65_536 :])
    assert_one_line_error(path)


@pytest.mark.parametrize("trust", [True, pytest.param(False, marks=new_torch_only)])
def test_legacy_checkpoint_truncated_anywhere(trust, tmp_path):
    """At every single byte: always a WeightsError, never another exception, never a result."""
    path = tmp_path / "old.pt"
    torch.save({"model": tiny(), "scheduler": {"milestones": collections.Counter([43])}, "epoch": 1}, path,
               _use_new_zipfile_serialization=False)  # fmt: skip
    content = path.read_bytes()
    others = {}
    for size in range(len(content)):
        write(path, content[:size])
        try:
            read_checkpoint(path, trust=trust)
            others[size] = "no error"
        except WeightsError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        except Exception as error:
            others[size] = repr(error)
    assert not others


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@new_torch_only
@pytest.mark.parametrize("legacy", [True, False])
def test_damaged_bytes_never_raise_anything_else(legacy, tmp_path):
    """One byte changed, at 400 seeded places: the file is read, or there is a WeightsError."""
    path = tmp_path / "damaged.pt"
    torch.save({"model": tiny(), "epoch": 1, "label_map": {1: "person"}}, path,
               _use_new_zipfile_serialization=not legacy)  # fmt: skip
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    others = {}
    for _ in range(400):
        at = int(torch.randint(2, len(content), (), generator=generator))
        value = int(torch.randint(256, (), generator=generator))
        write(path, content[:at] + bytes([value]) + content[at + 1 :])
        try:
            read_checkpoint(path)
        except WeightsError:
            pass
        except Exception as error:
            others[at, value] = repr(error)
    assert not others


def test_torchscript_module(model, tmp_path):
    path = tmp_path / "ssd300.ts"
    save(_to_torchscript(nn.Linear(2, 2), "script"), path)
    assert_one_line_error(path, "is a TorchScript module, not a checkpoint. Give it to ssdtrt compile instead.")


def test_other_zip_archive(tmp_path):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.txt", "a picture")
    assert_one_line_error(path, "is a zip archive but not a PyTorch checkpoint", "no data.pkl")


def test_pickle_of_something_else(tmp_path):
    """Python's own pickles begin as legacy checkpoints do; torch warns of their protocol, which is no help here."""
    path = write(tmp_path / "list.pkl", pickle.dumps([1, 2, 3]))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert_one_line_error(path)
    assert [str(warning.message) for warning in warned] == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.zeros(2)], "an object of type list"),
        (torch.zeros(2), "an object of type Tensor"),
        ({}, "an empty dict"),
        ({"epoch": 3, "loss": 0.5}, "a dict with the keys epoch, loss"),
        ({"model": {"a": 1}}, "a dict with the keys a"),
    ],
)
def test_something_else_in_a_checkpoint(content, found, tmp_path):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    assert_one_line_error(path, f"holds {found}; expected a state dict", "under the key 'model'")


# Files that carry code


@pytest.fixture(params=["zip", "legacy"])
def with_code(request, tmp_path):
    """(checkpoint, marker): reading the first without care writes the second."""
    path, marker = tmp_path / "crafted.pt", tmp_path / "marker"
    content = {"model": tiny(), "extra": WritesFile(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
    assert not marker.exists()
    return path, marker


def test_code_in_a_checkpoint_does_not_run(with_code):
    path, marker = with_code
    reason = "cannot read a checkpoint safely" if OLD_TORCH else "holds more than tensors and plain values"
    assert_one_line_error(path, reason, "trust where the file is from", "--trust-weights", trust=False)
    with pytest.raises(WeightsError, match="--trust-weights"):
        build_model(path)
    assert not marker.exists()


def test_code_runs_with_trust(with_code):
    """So the test above is no vacuous one."""
    path, marker = with_code
    assert list(read_checkpoint(path, trust=True).state) == ["a.weight", "a.bias"]
    assert marker.read_text() == "the code ran"


def test_whole_pickled_module(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 2), path)
    assert_one_line_error(path, "--trust-weights", trust=False)
    assert_one_line_error(path, "holds an object of type Linear; expected a state dict", trust=True)


def test_pickled_class_that_is_not_here(tmp_path, monkeypatch):
    path = tmp_path / "module.pt"
    local = type("Gone", (), {"__module__": __name__})
    monkeypatch.setitem(globals(), "Gone", local)
    torch.save({"model": tiny(), "extra": local()}, path)
    monkeypatch.delitem(globals(), "Gone")
    assert_one_line_error(path, "cannot be loaded", "Gone", trust=True)


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="no list of allowed classes here")
@pytest.mark.parametrize("allowed", [[], [collections.Counter]])
def test_reading_leaves_the_list_of_allowed_classes_alone(allowed, tmp_path):
    """What the caller has allowed stays allowed, and nothing is added for good."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": tiny(), "scheduler": collections.Counter([1])}, path)
    with torch.serialization.safe_globals(allowed):
        before = set(torch.serialization.get_safe_globals())
        read_checkpoint(path, trust=TRUST)
        assert set(torch.serialization.get_safe_globals()) == before


def test_the_error_keeps_its_parts(tmp_path):
    """They are put together anew for a file that was fetched; a process hands an error on by pickling it."""
    path = write(tmp_path / "empty.pt", b"")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, trust=TRUST)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.origin, error.reason) == (path, "is empty; expected a checkpoint. Fetch it again.")
        assert str(error) == f"{path} is empty; expected a checkpoint. Fetch it again."
