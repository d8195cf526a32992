"""Packed weights: what rounding to int8 does, and what is kept as it was."""

import json
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ssdtrt.formats.packed_weights import PackedRecord, is_packed, read_packed, read_packed_record, write_packed

RECORD = PackedRecord(("background", "disc"), "ab" * 32, {"settings": {"seed": 3}}, {"AP": 0.75}, 1000, "cd" * 32)


def through(path, state):
    """The tensors as they come back from a file."""
    write_packed(path, state, RECORD)
    found, record = read_packed(path)
    assert record == read_packed_record(path) == RECORD
    return found


def test_literal_weights(tmp_path):
    """Two output channels: the largest value is 63 steps of one, and halves go to the even number."""
    weights = np.array([[[[0.63, -0.314, 0.0, 0.005]]], [[[0.0, 0.0, 0.0, 0.0]]]], dtype=np.float32)
    found = through(tmp_path / "a.npz", {"conv.weight": weights})["conv.weight"]
    assert found.dtype == np.float32 and found.shape == (2, 1, 1, 4)
    np.testing.assert_allclose(found[0, 0, 0], [0.63, -0.31, 0, 0], rtol=1e-6)
    assert not found[1].any()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert set(file.files) == {"record", "conv.weight", "conv.weight.scale"}
        assert file["conv.weight"].dtype == np.int8 and file["conv.weight"][0, 0, 0].tolist() == [63, -31, 0, 0]
        assert file["conv.weight.scale"].dtype == np.float32
        assert json.loads(file["record"].item())["figures"] == {"AP": 0.75}


values = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, array_shapes(min_dims=4, max_dims=4, max_side=3), elements=values))
def test_weights_come_back_within_half_a_step_and_do_not_move_again(weights):
    with tempfile.TemporaryDirectory() as folder:
        found = through(Path(folder) / "a.npz", {"w": weights})["w"]
        again = through(Path(folder) / "b.npz", {"w": found})["w"]
    step = np.abs(weights).reshape(len(weights), -1).max(1) / 63
    assert (np.abs(found - weights).reshape(len(weights), -1).max(1) <= step * 0.5001 + 1e-30).all()
    assert not found[weights == 0].any()
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_all_but_convolutions_is_kept_to_the_bit(tmp_path):
    state = {
        "norm.weight": np.array([1e-30, 3.1415927, -2e20], dtype=np.float32),
        "norm.num_batches_tracked": np.array(70_000, dtype=np.int64),
    }
    found = through(tmp_path / "a.npz", state)
    assert {key: (value.dtype, value.tobytes()) for key, value in found.items()} == {
        key: (value.dtype, value.tobytes()) for key, value in state.items()
    }


def test_the_same_weights_make_the_same_file(tmp_path):
    state = {"w": np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)}
    for name in ("a.npz", "b.npz"):
        write_packed(tmp_path / name, state, RECORD)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_other_files_are_told_apart(tmp_path):
    write_packed(tmp_path / "packed", {}, RECORD)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text").write_text("no archive")
    assert is_packed(tmp_path / "packed")
    assert not is_packed(tmp_path / "other.npz") and not is_packed(tmp_path / "text")


def test_a_record_of_another_form_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", record=np.array('{"labels": 3}'))
    with pytest.raises(msgspec.ValidationError):
        read_packed(tmp_path / "a.npz")
