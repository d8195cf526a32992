"""Checkpoints through the command line: messages and exit codes for whatever is given as weights.

What is missing, a directory, empty, a page, text, an archive or a TorchScript file in a checkpoint's place is in test_cli.
"""

import os
import random

import pytest
import torch
from checkpoints import OLD_TORCH, WritesFile, prefixed, tiny, training_state
from test_cli import TRUST, assert_refused
from torch import nn

from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.errors import WeightsError
from ssdtrt.model.weights import build_model, state_sha256
from ssdtrt.system.digests import sha256_file

FITS = "Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it."
DIRECTORY = 91_804_344  # where the directory of the archive below begins, about
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


def without_sums(model, path):
    """Saves as torch did before 1.6, and as one kind of distributed training names its keys."""
    torch.save({"model": prefixed(model.state_dict(), "module.")}, path, _use_new_zipfile_serialization=False)


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
    assert (done.exit_code, done.stderr) == (0, NOTE.format(path=path))
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
    found = build_model(tmp_path / "off.pt", trust=OLD_TORCH, note=notes.append)
    assert found.source.sha256 == model.source.sha256
    assert [f"note: {text}\n" for text in notes] == [NOTE.format(path=tmp_path / "off.pt")]


def test_no_note_on_a_file_with_checksums_or_a_digest(whole, model, tmp_path):
    notes = []
    found = build_model(whole, trust=OLD_TORCH, note=notes.append)
    assert found.source.sha256 == model.source.sha256
    without_sums(model, tmp_path / "old.pt")
    build_model(tmp_path / "old.pt", trust=OLD_TORCH, sha256=sha256_file(tmp_path / "old.pt"), note=notes.append)
    assert notes == []


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
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "ssd300.ts: traced, 80 classes, weights training.pt\n"
    weights = read_metadata(tmp_path / "ssd300.ts").model.weights
    assert (weights.sha256, weights.trained) == (model.source.sha256, True)


def test_a_pipe_in_a_checkpoints_place_does_not_hang(ssdtrt, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    wanted = f"{tmp_path / 'pipe.pt'} is a pipe or a device; expected a checkpoint file."
    assert_refused(export(ssdtrt, tmp_path / "pipe.pt"), wanted)
