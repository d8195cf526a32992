"""Tests of profiling an engine that need no GPU; test_gpu.py profiles a real one."""

import zipfile

import pytest

from known import metadata_like, typed, write_metadata
from ssdtrt import profile_engine
from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.commands.measure import profile_text
from ssdtrt.errors import ArtifactError
from ssdtrt.profile import LayerTime, ProfileReport


def report():
    like = typed(metadata_like("engine", "tensorrt"))
    times = [("conv2 + relu", "fp16", 0.3), ("a.very.long.name" * 5, "fp32", 0.15), ("copy", None, 0.05)]
    layers = tuple(LayerTime(EngineLayer(name, "x", dtype), ms, ms / 0.5) for name, dtype, ms in times)
    return ProfileReport("e.ts", 8, 50, like.versions, like.machine, 0.5, 0.41, layers)


def test_the_text_shows_the_longest_first_and_how_much_the_rest_takes():
    assert profile_text(report(), 100, limit=1).splitlines() == [
        "e.ts, batch 8: 3 layers",
        "layer         type     ms  of the sum",
        "conv2 + relu  fp16  0.300      60.0 %",
        "2 more layers: 0.200 ms (--all shows them)",
        "sum 0.500 ms, with waits between layers; a call as a CUDA graph takes 0.410 ms",
    ]
    every = profile_text(report(), 100)
    assert "more layers" not in every and "a.very.long.namea.very.long.namea.very.long.n..." in every
    assert max(map(len, profile_text(report(), 30).splitlines())) <= 56  # A name of 48 is not broken.


def test_the_document_has_every_layer():
    document = report().document()
    assert (document["kind"], document["schema"], document["sum_ms"], document["call_ms"]) == ("profile", 1, 0.5, 0.41)
    assert document["layers"][2] == {
        "layer": {"name": "copy", "operation": "x", "dtype": None, "multiplications": None, "kernel": ""},
        "median_ms": 0.05,
        "share": 0.1,
    }


def test_a_cpu_engine_is_refused_before_it_is_loaded(engine):
    with pytest.raises(ArtifactError) as caught:
        profile_engine(engine)
    assert str(caught.value) == f"{engine} is no TensorRT engine; expected one that ssdtrt compile built on a GPU."


def test_a_module_is_refused(module, ssdtrt):
    done = ssdtrt("-q", "profile", module)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[0].endswith("is a module; expected a file of kind engine or detector.")


def test_an_engine_in_which_the_plan_is_not_found_is_refused(module, tmp_path):
    path = tmp_path / "e.engine.ts"
    with zipfile.ZipFile(module) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            if not info.filename.endswith("ssdtrt.json"):
                target.writestr(info, source.read(info))
    write_metadata(path, metadata_like("engine", "tensorrt"))
    with pytest.raises(ArtifactError, match="holds its engine in a way that is not known here"):
        profile_engine(path)
