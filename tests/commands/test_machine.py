"""What `doctor`, `inspect` and `cache` show, on wide terminals and on narrow ones."""

import json
import os
import platform
import subprocess
import sys
import zipfile

import pytest
from command_line import ENVIRONMENT, on_a_terminal
from machines import GOOD, NEWEST, machine
from metadata_files import small

from known import known_file, metadata_like
from ssdtrt import doctor
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.commands import machine as inspecting
from ssdtrt.commands.machine import doctor_text, inspection_text
from ssdtrt.diagnosis.checks import check_facts
from ssdtrt.diagnosis.facts import BuildTest, Failure, Torch, TorchTensorrt
from ssdtrt.diagnosis.report import DoctorReport, Finding

# doctor


def test_doctor_where_all_is_right(ssdtrt, monkeypatch):
    monkeypatch.setattr(doctor, "gather_facts", lambda progress: GOOD)
    done = ssdtrt("doctor")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[2] == "ok       GPU 0             NVIDIA H200, SM 9.0, 140.4 GiB, 139.6 GiB free"
    assert lines[-1] == "No problem was found. To be sure: ssdtrt doctor --build"
    monkeypatch.setattr(doctor, "run_test_build", lambda progress: BuildTest(3.21, 4e-4))
    done = ssdtrt("doctor", "--build")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-3:] == [
        "ok       test build        FP16 engine built in 3.2 s, relative L2 to FP32 eager 4.0e-04",
        "",
        "A TensorRT engine can be built here.",
    ]


def test_doctor_ends_with_1_where_none_can_be_built(ssdtrt, monkeypatch):
    broken = machine(torch_tensorrt=TorchTensorrt("2.14.0", torchscript=False, dynamo=True))
    monkeypatch.setattr(doctor, "gather_facts", lambda progress: broken)
    done = ssdtrt("doctor", "--json", "-")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["schema"], report["kind"], report["can_build"]) == (1, 2, "doctor", False)


def test_doctor_refuses_a_report_that_cannot_be_written_first(ssdtrt, monkeypatch):
    monkeypatch.setattr(doctor, "gather_facts", lambda progress: pytest.fail("it was looked at first"))
    done = ssdtrt("doctor", "--json", "no/such/folder.json")
    assert done.exit_code == 1 and "there is no directory no/such" in done.stderr


def test_doctor_in_forty_columns():
    facts = machine(driver=Failure("nvidia-smi lists no GPU"), torch=Torch("2.14.0+cu130", "13.0"))
    text = doctor_text(DoctorReport(tuple(check_facts(facts))), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "warning: driver\n  nvidia-smi lists no GPU\n  fix: Use a machine with an NVIDIA GPU" in text
    assert text.endswith("No TensorRT engine can be built here: 1\nproblem.")


def test_doctor_in_eighty_columns_hangs_under_the_finding():
    text = doctor_text(DoctorReport((Finding("GPU", "problem", "none " * 20, "Do " + "this " * 20),)), 80)
    lines = text.splitlines()
    assert lines[0].startswith("problem  GPU               none none") and max(map(len, lines)) <= 80
    assert lines[1].startswith(" " * 27 + "none") and lines[2].startswith(" " * 27 + "fix: Do this")


def test_a_command_is_broken_at_its_spaces_alone():
    fix = f"pip install --force-reinstall {NEWEST}"
    for width in (40, 80):
        text = doctor_text(DoctorReport((Finding("torch", "problem", "not installed", fix),)), width)
        assert set(fix.split()) <= set(text.split())
    address = "https://an.address/" + "that/is/too/long/to/fit/" * 4
    assert address in doctor_text(DoctorReport((Finding("GPU", "problem", address, ""),)), 40)


# inspect


def test_the_table(tensorrt_engine, like_there):
    lines = inspection_text(inspect_file(tensorrt_engine), 100).splitlines()
    assert max(map(len, lines)) <= 100
    rows = dict(line.split(None, 1) for line in lines if not line.startswith((" ", "fits", "file")))
    size = tensorrt_engine.stat().st_size
    assert rows["size"] == f"{size:,} bytes, {size / 1000:.2f} a parameter"
    assert rows["checked"] == "metadata only (--check reads it all)"
    assert (rows["kind"], rows["request.batch"], rows["machine.sm"]) == ("engine", "1:8:32", "9.0")
    assert (rows["request.precision"], rows["build.cached"], rows["machine.cpu"]) == ("fp16", "no", "-")
    assert rows["inputs"] == "images [N, 3, 300, 300] float32"
    assert rows["model.labels"].startswith("background, person, bicycle, car")
    assert rows["parity.outputs"] == "name loc relative_l2 1.2e-06 max_abs 1e-05 finite yes"
    fits = next(at for at, line in enumerate(lines) if line.startswith("fits"))
    shown = " ".join(" ".join(lines[fits : fits + 2]).split())
    known = "yes, as far as is known without asking the GPU, whose compute capability must be 9.0"
    assert shown == f"fits this machine {known}"


def test_what_differs_from_this_machine(tensorrt_engine, like_there, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    found = inspect_file(tensorrt_engine)
    assert f"  no: {'; '.join(found.differs)}\n" in inspection_text(found, 300)


def test_a_file_that_needs_torch_alone(tmp_path):
    text = inspection_text(inspect_file(known_file(tmp_path / "known.ts"), check=True), 100)
    assert "a parameter" not in text
    assert "\nchecked" in text and "  every byte's checksum\n" in text and "  yes: it needs torch alone\n" in text


def test_a_file_that_needs_onnx_runtime(onnx_detector):
    text = inspection_text(inspect_file(onnx_detector, check=True), 100)
    for line in ("  every byte's checksum\n", "  yes: it needs ONNX Runtime\n", "\nkind                        detector\n",
                 "\nformat                      onnx\n", "images [N, 3, 300, 300] uint8"):  # fmt: skip
        assert line in text


def test_every_field_is_in_the_table(tensorrt_engine):
    """The names of an engine's metadata, to the last leaf."""

    def names(value, prefix=""):
        for key, item in value.items():
            if isinstance(item, dict):
                yield from names(item, f"{prefix}{key}.")
            else:
                yield prefix + key

    text = inspection_text(inspect_file(tensorrt_engine), 120)
    shown = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert shown[4:] == list(names(read_metadata(tensorrt_engine).as_dict())) and len(shown) > 40


def test_inspect_in_forty_columns(tensorrt_engine, like_there):
    lines = inspection_text(inspect_file(tensorrt_engine), 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[lines.index("model.preprocess") + 1] == "  eval"
    digits = lines.index("model.weights.sha256")
    assert lines[digits + 1].strip() + lines[digits + 2].strip() == "0" * 64


def test_what_a_terminal_would_act_on_is_written_out(tmp_path):
    path = small(tmp_path / "a.ts", metadata_like(labels=["background", "\x1b[2Jcat", "\u202ecar", "猫"]))
    text = inspection_text(inspect_file(path), 200)
    assert "background, \\x1b[2Jcat, \\u202ecar, 猫" in text


def test_inspect_imports_no_torch(tensorrt_engine):
    command = [sys.executable, "-X", "importtime", "-m", "ssdtrt", "inspect", str(tensorrt_engine)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "NVIDIA H200" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "ssdtrt.artifact.inspection" in imported and not {"torch", "numpy", "PIL"} & imported


def test_inspect_as_json(tensorrt_engine, ssdtrt, tmp_path):
    done = ssdtrt("inspect", tensorrt_engine, "--json", "-")
    found = json.loads(done.stdout)
    assert (done.exit_code, found) == (0, json.loads(json.dumps(inspect_file(tensorrt_engine).document())))
    assert (found["schema"], found["kind"]) == (2, "inspection")
    assert found["metadata"]["model"]["weights"]["sha256"] == "0" * 64
    assert ssdtrt("inspect", tensorrt_engine, "--json", "found.json").exit_code == 0
    assert json.loads((tmp_path / "found.json").read_text()) == found


def test_only_check_sees_a_flipped_bit(tensorrt_engine, ssdtrt):
    content = bytearray(tensorrt_engine.read_bytes())
    with zipfile.ZipFile(tensorrt_engine) as archive:
        names = archive.namelist()
        after = archive.getinfo(names[1]).header_offset
    content[content.rindex(b"__torch__", 0, after)] ^= 1  # In the first member.
    tensorrt_engine.write_bytes(content)
    assert ssdtrt("inspect", tensorrt_engine).exit_code == 0
    done = ssdtrt("inspect", "--check", tensorrt_engine)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"Error: {tensorrt_engine} is truncated, damaged or not one of ssdtrt's files (Bad CRC-32 for file '"
    )


def test_the_digest_is_checked_where_it_is_asked_for(tensorrt_engine, ssdtrt):
    sidecar = tensorrt_engine.with_name("gpu.engine.ts.sha256")
    sidecar.write_text("0" * 64 + "\n")
    assert ssdtrt("inspect", tensorrt_engine).exit_code == 0
    for arguments in (("--check",), ("--sha256", "1" * 64)):
        done = ssdtrt("inspect", tensorrt_engine, *arguments)
        assert done.exit_code == 1 and done.stderr.startswith(f"Error: {tensorrt_engine} has the SHA-256 ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_the_next_command_fits_the_kind_of_file(known):
    assert f"next: ssdtrt compile {known}" in on_a_terminal(["inspect", known], os.curdir)[1]


def test_no_command_is_named_that_cannot_run_here(tensorrt_engine, engine, onnx_file, monkeypatch):
    following = lambda path: inspecting._following(str(path), inspect_file(path))  # noqa: E731
    monkeypatch.setattr(inspecting, "may_have_tensorrt", lambda module: True)
    assert following(tensorrt_engine) == []  # Its TensorRT is another, or there is none.
    assert following(engine) == ["bench", str(engine)] and following(onnx_file) == ["bench", str(onnx_file)]
    monkeypatch.setattr(inspecting, "find_spec", lambda module: None)
    assert following(engine) == ["bench", str(engine)] and following(onnx_file) == []


# cache


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache with two damaged engines and a file of the user."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for digit in "12":
        (folder / f"{digit * 64}.ts").write_bytes(b"x" * 1500)
    (folder / "mine.txt").touch()
    monkeypatch.setenv("SSDTRT_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return folder


def test_the_cache_is_listed_and_cleared(cached, ssdtrt, monkeypatch):
    report = json.loads(ssdtrt("cache", "list", "--json", "-").stdout)
    assert (report["schema"], report["kind"], report["bytes"], report["limit"]) == (1, "cache", 3000, 20_000_000_000)
    assert {entry["type"] for entry in report["entries"]} == {"damaged"}
    done = ssdtrt("cache", "clear")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, "Error: There is no terminal to ask on; give --yes.")
    assert len(os.listdir(cached)) == 3
    assert ssdtrt("cache", "clear", "--yes", "--older-than", "1").stdout == "removed 0 entries, 0.0 kB freed\n"
    assert ssdtrt("cache", "clear", "-y", "1").stdout == "removed 1 entry, 1.5 kB freed\n"
    done = ssdtrt("cache", "clear", "-y", "3")
    assert done.exit_code == 1 and done.stderr.startswith("Error: '3' is the beginning of 0 keys in the cache; ")
    cleared = json.loads(ssdtrt("cache", "clear", "-y", "--json", "-").stdout)
    assert (cleared["kind"], cleared["freed"], cleared["removed"]) == ("cache-clear", 1500, ["2" * 64])
    assert os.listdir(cached) == ["mine.txt"]
    assert ssdtrt("cache", "list").stdout == f"0 entries, 0.0 kB of at most 20.0 GB, in {cached}\n"
    monkeypatch.setenv("SSDTRT_CACHE", "")
    off = "0 entries, 0.0 kB of at most 20.0 GB, as the cache is turned off (SSDTRT_CACHE is empty)\n"
    assert ssdtrt("cache", "list").stdout == off


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
@pytest.mark.parametrize(
    "typed, last, left",
    [(b"n\n", "removed 0 entries, 0.0 kB freed", 3), (b"y\n", "removed 2 entries, 3.0 kB freed", 1)],
)
def test_a_terminal_is_asked(cached, tmp_path, typed, last, left):
    code, shown = on_a_terminal(["cache", "clear"], tmp_path, typed=typed, SSDTRT_CACHE=str(cached))
    assert code == 0 and shown.rstrip().endswith(last) and len(os.listdir(cached)) == left
    assert f"Remove 2 entries, 3.0 kB, from {cached}? [y/N]: " in shown
