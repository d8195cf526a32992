"""Tests of the build request and of what is derived from it."""

import json
import zipfile

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from known import metadata_like, typed
from ssdtrt.artifact.metadata import EngineMetadata
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.engine.cache import cache_key
from ssdtrt.errors import CompileError

MODULE = {"weights": "0" * 64, "graph": "1" * 64, "preprocess": "eval"}


def request(**options):
    return BuildRequest(**{**MODULE, "backend": "tensorrt", "precision": "fp16", "batch": "8", **options})


@pytest.mark.parametrize(
    "text, sizes, static",
    [
        ("8", (8,), True),
        (8, (8,), True),
        ("1:8:32", (1, 8, 32), False),
        ("4:4:4", (4,), True),
        ("1:32:32", (1, 32), False),
    ],
)
def test_batch_sizes(text, sizes, static):
    found = BatchRange.parse(text)
    assert (found.sizes, found.static) == (sizes, static)
    assert BatchRange.parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:3:4", "-1", "1.5", "\u0665", "0", "2:1:3", "1:3:2", "1" * 7])
def test_what_is_no_batch(text):
    with pytest.raises(CompileError) as caught:
        BatchRange.parse(text)
    assert str(caught.value).startswith("A batch ") and "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 4096), min_size=3, max_size=3))
def test_any_ascending_sizes_are_read_back(sizes):
    low, opt, high = sorted(sizes)
    assert BatchRange.parse(f"{low}:{opt}:{high}") == BatchRange(low, opt, high)


@pytest.mark.parametrize(
    "options, command",
    [
        ({}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8"),
        ({"precision": "fp32", "batch": "1:8:32"}, "ssdtrt compile ssd300.ts --fp32 --batch-range 1:8:32"),
        ({"streams": 0}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8 --streams 0"),
        ({"streams": 4}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8 --streams 4"),
        ({"front_end": "tensorrt"}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8 --front-end tensorrt"),
        ({"workspace_mib": 64}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8 --workspace-mib 64"),
        ({"detector": True}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8 --detector"),
        ({"preprocess": "hub"}, "ssdtrt compile ssd300.ts --fp16 --batch-size 8"),
        (
            {"backend": "torchscript", "precision": "bf16", "batch": None},
            "ssdtrt compile ssd300.ts --backend torchscript --bf16",
        ),
    ],
)
def test_the_command_that_builds_it_again(options, command):
    assert request(**options).command("ssd300.ts") == command


def test_the_command_quotes_a_name():
    assert request().command("my model.ts") == "ssdtrt compile 'my model.ts' --fp16 --batch-size 8"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"streams": 4},
        {"workspace_mib": 64, "detector": True},
        {"precision": "fp32", "batch": "1:8:32"},
        {"backend": "torchscript", "precision": "bf16", "batch": None},
    ],
)
def test_the_command_line_understands_the_command(options, monkeypatch, tmp_path):
    """Run the command through the options of `ssdtrt compile`, which give the same request."""
    from ssdtrt import compile as compiling
    from ssdtrt.cli import main

    asked = {}

    def take(module, out, **arguments):
        asked.update(arguments)
        raise CompileError("asked")

    monkeypatch.setattr(compiling, "compile_engine", take)
    wanted = request(**options)
    with pytest.raises(SystemExit):
        main(wanted.command("ssd300.ts").split()[1:], prog_name="ssdtrt")
    batch = asked["batch"] if wanted.batch else None
    assert {**asked, "batch": batch and str(batch)}.items() >= {
        name: getattr(wanted, name)
        for name in ("backend", "precision", "batch", "streams", "workspace_mib", "detector")
    }.items()


def test_a_new_field_is_in_the_key_the_metadata_and_the_command():
    """A new field is in the cache key, the metadata and the rebuild command."""
    extended = msgspec.defstruct(
        "Extended", [("calibration_table", str | None, None)], bases=(BuildRequest,), frozen=True, kw_only=True
    )
    plain = extended(**MODULE, backend="tensorrt", precision="fp16", batch="8")
    table = msgspec.structs.replace(plain, calibration_table="mine.json")
    cpu = torch.device("cpu")
    assert cache_key(table, cpu) != cache_key(plain, cpu)
    metadata = msgspec.structs.replace(typed(metadata_like("engine", "tensorrt")), request=table)
    assert json.loads(metadata.to_json())["request"]["calibration_table"] == "mine.json"
    assert metadata.rebuild_command.endswith(" --calibration-table mine.json")
    assert "calibration" not in plain.command("ssd300.ts")


def test_the_metadata_of_a_real_engine_holds_its_request(engine, module):
    with zipfile.ZipFile(engine) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/extra/ssdtrt.json")]
        found = json.loads(archive.read(name))
    built = msgspec.convert(found, type=EngineMetadata)
    assert built.request.backend == "torchscript" and built.request.batch is None and built.request.front_end is None
    assert built.rebuild_command == "ssdtrt compile ssd300.ts --backend torchscript --fp32"


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"backend": "tpu"}, "'tpu' is unknown; expected tensorrt or torchscript"),
        ({"front_end": "onnx"}, "'onnx' is no front end of tensorrt; expected tensorrt or torchscript"),
        ({"precision": "int4"}, "'int4' is unknown; expected fp32 or fp16 or bf16"),
        ({"batch": None}, "batch is null; expected the batch sizes of a tensorrt engine"),
        ({"batch": "3:2:1"}, "A batch range is MIN:OPT:MAX"),
    ],
)
def test_a_request_that_means_nothing_is_refused(options, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        request(**options)
