"""Tests of comparing a saved file with the FP32 model that it was built from."""

import io
import json
import shutil
from dataclasses import replace

import pytest

from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.errors import ArtifactError, ImageError
from ssdtrt.verify import verify_engine


@pytest.fixture
def alone(engine, tmp_path):
    """The engine in a folder without its module."""
    (tmp_path / "alone").mkdir()
    return shutil.copyfile(engine, tmp_path / "alone" / "alone.engine.ts")


def strict(text):
    """Parse standard JSON, which has no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_an_engine_passes_on_seeded_pictures(engine):
    report = verify_engine(engine)
    assert report.passed and 0 < report.distance <= 1e-4
    assert (report.precision, report.images, report.batch_sizes, report.bound) == ("fp32", 2, (2,), 1e-4)
    assert report.detections.match_rate > 0.99


def test_an_engine_passes_on_photographs(engine_bf16, photographs):
    report = verify_engine(engine_bf16, photographs)
    assert report.passed and 1e-3 < report.distance <= 2e-2
    assert (report.precision, report.images, report.bound) == ("bf16", 3, 2e-2)
    assert 0 < report.floor < report.distance


def test_folders_patterns_and_lists_are_their_pictures(module, pictures, web, monkeypatch, tmp_path):
    for name in ("a.png", "deep/b.png", "deep/c.png"):
        pictures(name)
    (tmp_path / "pictures" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"pictures/a.png\n")))
    notes = []
    web.pages["/a.png"] = (tmp_path / "pictures/a.png").read_bytes()
    address, options = web.address("/a.png"), {"device": "cpu", "note": notes.append, "allow_private": True}
    report = verify_engine(module, ["pictures", "pictures/deep/[bc].png", "-", address], **options)
    assert report.passed and report.images == 7 and web.paths == ["/a.png"]
    assert notes == ["pictures: left out 1 file (.txt): no picture."]
    with pytest.raises(ImageError, match="--allow-private"):
        verify_engine(module, [address], device="cpu")
    with pytest.raises(ImageError, match=r"^pictures/x\*.png matches no file.$"):
        verify_engine(module, ["pictures", "pictures/x*.png"], device="cpu")


def test_a_module_is_its_own_model(module, photographs):
    report = verify_engine(str(module), [str(photographs[0])], device="cpu")
    assert report.distance == 0 and report.images == 1 and report.detections.match_rate == 1


def test_without_its_module_it_cannot_be_verified(alone, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        verify_engine(alone)
    assert str(caught.value) == (
        f"{alone} cannot be verified: its module ssd300.ts was not found; name it with --module."
    )


def test_the_module_may_be_named_and_json_is_all_on_stdout(alone, module, ssdtrt, tmp_path):
    done = ssdtrt("verify", alone, "--module", module, "--json", "-")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == "loading\ncomparing with FP32 eager\n" and not (tmp_path / "-").exists()
    report = strict(done.stdout)
    assert set(report) == {
        "precision",
        "images",
        "batch_sizes",
        "bound",
        "floor",
        "outputs",
        "detections",
        "repeatability",
        "passed",
        "schema",
        "kind",
    }
    assert (report["precision"], report["images"], report["passed"]) == ("fp32", 2, True)
    assert [set(output) for output in report["outputs"]] == [{"name", "relative_l2", "max_abs", "finite"}] * 2
    assert 0 < max(output["relative_l2"] for output in report["outputs"]) <= 1e-4


def test_another_module_is_refused_by_name(engine, engine_bf16, ssdtrt):
    done = ssdtrt("-q", "verify", engine, "--module", engine_bf16)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {engine} cannot be verified: {engine_bf16} is not the module it was built from; name that with "
        "--module, or compile again.\n"
    )


def test_the_verdict_is_shown_and_written(engine, photographs, ssdtrt, tmp_path):
    done = ssdtrt("verify", engine, photographs[0], "--json", "report.json")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "FP32 against FP32 eager on 1 picture, batch 2"
    assert lines[1].split() == ["output", "relative", "L2", "bound", "max", "abs", "finite"]
    assert [line.split()[0] for line in lines[2:4]] == ["loc", "conf"] and lines[-1] == "passed"
    report = strict((tmp_path / "report.json").read_text())
    assert report["passed"] is True and report["images"] == 1
    assert f"{report['outputs'][0]['relative_l2']:.2e}" in lines[2]


def test_beyond_the_bound_it_fails_with_the_figures(engine, monkeypatch, ssdtrt):
    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], bound=1e-12))
    done = ssdtrt("verify", engine)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stdout.splitlines()[-1] == "FAILED" and "1e-12" in done.stdout


def test_what_compile_would_refuse_as_too_near_fails_here_too(engine, monkeypatch, ssdtrt):
    """The floor of a precision counts in `verify` as in `compile`; here FP32 is given one that it cannot reach."""
    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], floor_share=1e5))
    report = verify_engine(engine)
    assert 0 < report.distance < min(report.bound, report.floor) and not report.passed
    assert report.failure.startswith("The engine is not FP32: its relative L2 distance to FP32 (loc ")
    done = ssdtrt("verify", engine)
    assert done.exit_code == 1 and done.stdout.splitlines()[-1].startswith("FAILED")


def test_a_picture_that_cannot_be_read_is_an_error_not_a_pass(engine, photographs, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="broken.jpg cannot be read as a picture"):
        verify_engine(engine, [photographs[0], broken])
