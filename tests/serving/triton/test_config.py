"""The configuration is what Triton's own protobuf takes, and every field is from the metadata."""

import copy
import json

import pytest
from serving_files import tensorrt_file

from known import typed
from ssdtrt import __version__, config
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.errors import ArtifactError
from ssdtrt.serving.triton.config import TritonOptions, is_as_written, write_config

pytest.importorskip("tritonclient.grpc")
from triton_server import parse

SHA256 = "5" * 64


def parsed(metadata, **options):
    text = write_config("m", typed(metadata), SHA256, TritonOptions(**options))
    assert is_as_written(text) and text.isascii()
    return parse(text)


def tensors(messages):
    """(name, type, dims, dims inside the network or None where they are the same)."""
    return [
        (one.name, one.data_type, list(one.dims), list(one.reshape.shape) if one.HasField("reshape") else None)
        for one in messages
    ]


FP32, UINT8, INT64 = 11, 2, 9  # the numbers in Triton's model_config.proto


def test_a_detector_of_a_range():
    found = parsed(tensorrt_file("detector"))
    assert (found.name, found.backend, found.default_model_filename) == ("m", "pytorch", "model.pt")
    assert tensors(found.input) == [("INPUT__0", UINT8, [3, 300, 300], None)]
    assert tensors(found.output) == [
        ("OUTPUT__0", FP32, [200, 4], None), ("OUTPUT__1", INT64, [200], None), ("OUTPUT__2", FP32, [200], None),
        ("OUTPUT__3", INT64, [1], []),
    ]  # fmt: skip
    assert found.max_batch_size == 32
    assert list(found.dynamic_batching.preferred_batch_size) == [8, 32]
    assert found.dynamic_batching.max_queue_delay_microseconds == 1000
    (group,) = found.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (1, group.KIND_GPU, [])
    assert found.version_policy.latest.num_versions == 1
    assert [(one.name, one.batch_size, one.count) for one in found.model_warmup] == [
        ("batch 1", 1, 3), ("batch 8", 8, 3), ("batch 32", 32, 3)
    ]  # fmt: skip
    assert len({one.inputs["INPUT__0"].SerializeToString() for one in found.model_warmup}) == 1
    sample = found.model_warmup[0].inputs["INPUT__0"]
    assert (sample.data_type, list(sample.dims), sample.zero_data) == (UINT8, [3, 300, 300], True)
    said = {key.removeprefix("ssdtrt."): one.string_value for key, one in found.parameters.items()}
    assert json.loads(said.pop("labels")) == list(config.COCO_LABELS)
    assert json.loads(said.pop("outputs")) == ["boxes", "labels", "scores", "counts"]
    assert said == {
        "sha256": SHA256, "kind": "detector", "precision": "fp16", "batch": "1:8:32", "preprocess": "eval",
        "weights": "0" * 64, "created": "2024-05-06T07:08:09+00:00", "torch": "2.2.2", "tensorrt": "8.6.0",
        "compute_capability": "9.0", "version": __version__,
    }  # fmt: skip


def test_an_engine_of_one_size_and_the_options():
    found = parsed(tensorrt_file(batch="8"), instances=2, gpus=(0, 1), queue_delay=250)
    assert tensors(found.input) == [("INPUT__0", FP32, [3, 300, 300], None)]
    assert tensors(found.output) == [("OUTPUT__0", FP32, [4, 8732], None), ("OUTPUT__1", FP32, [81, 8732], None)]
    assert (found.max_batch_size, list(found.dynamic_batching.preferred_batch_size)) == (8, [8])
    assert found.dynamic_batching.max_queue_delay_microseconds == 250
    assert (found.instance_group[0].count, list(found.instance_group[0].gpus)) == (2, [0, 1])
    assert [one.batch_size for one in found.model_warmup] == [8]
    assert json.loads(found.parameters["ssdtrt.mean"].string_value) == [0.485, 0.456, 0.406]
    assert not parsed(tensorrt_file(batch="1")).HasField("dynamic_batching")


def test_plans():
    found = parsed(tensorrt_file(plan=True))
    assert (found.backend, found.default_model_filename, found.max_batch_size) == ("tensorrt", "model.plan", 32)
    assert tensors(found.input) == [("images", FP32, [3, 300, 300], None)]
    assert tensors(found.output) == [("loc_conf", FP32, [85, 8732], None)]
    assert [(one.batch_size, one.count) for one in found.model_warmup] == [(1, 1), (8, 1), (32, 1)]
    fixed = parsed(tensorrt_file(plan=True, batch="8"))
    assert (fixed.max_batch_size, fixed.HasField("dynamic_batching")) == (0, False)
    assert tensors(fixed.input) == [("images", FP32, [8, 3, 300, 300], None)]
    assert tensors(fixed.output) == [("loc_conf", FP32, [8, 85, 8732], None)]
    assert [one.batch_size for one in fixed.model_warmup] == [1]  # Of whole batches.


def test_a_cpu_engine_takes_any_size(engine):
    text = write_config("m", read_metadata(engine), SHA256, TritonOptions())
    found = parse(text)
    assert (found.max_batch_size, list(found.dynamic_batching.preferred_batch_size)) == (8, [])
    assert found.HasField("dynamic_batching") and found.instance_group[0].kind == found.instance_group[0].KIND_CPU
    assert [one.batch_size for one in found.model_warmup] == [1, 8]
    assert "ssdtrt.tensorrt" not in found.parameters
    assert parse(write_config("m", read_metadata(engine), SHA256, TritonOptions(max_batch=3))).max_batch_size == 3


CHANGES = {
    "kind": lambda found: found.update(tensorrt_file("detector")),
    "created": lambda found: found.update(created="2025-01-01T00:00:00+00:00"),
    "torch": lambda found: found["versions"].update(torch="2.14.0"),
    "tensorrt": lambda found: found["versions"].update(tensorrt="11.1.0.5"),
    "sm": lambda found: found["machine"].update(sm="8.9"),
    "labels": lambda found: found["model"].update(labels=["background", 'a "b\\"', "caf\u00e9\n"]),
    "weights": lambda found: found["model"]["weights"].update(sha256="7" * 64),
    "preprocess": lambda found: found["model"].update(preprocess="hub"),
    "precision": lambda found: found["request"].update(precision="fp32"),
    "batch": lambda found: found["request"].update(batch="1:4:32"),
    "shape": lambda found: found["outputs"][1].update(shape=["N", 7, 8732]),
    "order": lambda found: found["outputs"].reverse(),
    "input": lambda found: found["inputs"][0].update(dtype="uint8"),
    "plan": lambda found: found.update(tensorrt_file(plan=True)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_field_of_the_metadata_changes_the_configuration(change):
    before, after = tensorrt_file(), copy.deepcopy(tensorrt_file())
    CHANGES[change](after)
    old, new = parsed(before), parsed(after)
    assert old != new
    assert json.loads(new.parameters["ssdtrt.labels"].string_value) == after["model"]["labels"]


def test_a_text_that_was_changed_is_known():
    text = write_config("m", typed(tensorrt_file()), SHA256, TritonOptions())
    for other in (text.replace("count: 1", "count: 2"), text + "\n", text.split("\n", 1)[1], "", "name: 'm'\n"):
        assert not is_as_written(other)


def test_a_type_that_triton_does_not_get():
    found = tensorrt_file()
    found["outputs"][0]["dtype"] = "float16"
    with pytest.raises(ArtifactError, match="OUTPUT__0 is of float16"):
        parsed(found)
