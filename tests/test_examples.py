"""The examples in the docstrings of the public names run, and print what they show."""

import doctest
import shutil
from pathlib import Path

import pytest

import ssdtrt
from conftest import ROOT
from ssdtrt import config

# Examples that the tests of their modules run, with files and figures of their own.
ELSEWHERE = {
    "Detections": "test_detect.py",
    "Detector": "test_detect.py",
    "bench_files": "test_bench.py",
    "benchmark": "test_bench.py",
    "build_model": "model/test_weights.py",
    "detect_video": "video/test_detection.py",
    "diagnose": "test_doctor.py",
    "evaluate_file": "test_evaluate.py",
    "profile_engine": "test_gpu.py",
}
WITHOUT = {"SSD300", "SsdtrtError"}
SLOW = {"run_job"}
NAMES = sorted(set(ssdtrt.__all__) - WITHOUT - set(ELSEWHERE))


def example_of(name):
    (example,) = doctest.DocTestFinder(recurse=False, exclude_empty=False).find(getattr(ssdtrt, name), name)
    return example


@pytest.fixture
def folder(module, engine, photographs, tmp_path, monkeypatch, kept_engines):
    """A current folder with the files that the examples name; no example builds an engine."""
    shutil.copyfile(module, tmp_path / "ssd300.ts")
    shutil.copyfile(engine, tmp_path / "ssd300.engine.ts")
    shutil.copyfile(photographs[0], tmp_path / "street.jpg")
    for name, recorded in {"bench.json": "h200-b1-default.json", "accuracy.json": "h200-accuracy.json"}.items():
        shutil.copyfile(ROOT / "benchmarks" / "reports" / recorded, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "ssdtrt.engine.cached_build.build_in_child", lambda *_: pytest.fail("an example built an engine")
    )
    for counts in (config.ROUNDS, config.ITERATIONS):
        monkeypatch.setitem(counts, "cpu", 1)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES])
def test_example(folder, name):
    example = example_of(name)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_other_examples_are_run_by_the_tests_of_their_modules():
    for name, path in ELSEWHERE.items():
        assert example_of(name).examples
        assert "doctest" in (Path(__file__).parent / path).read_text(encoding="utf-8")
