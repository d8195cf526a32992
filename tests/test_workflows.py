"""The workflows and the Makefile: what CI runs is what anybody can run, and a run without tests is no pass."""

import os
import re
import subprocess
import sys

import pytest
import torch
import yaml

from conftest import ROOT, pytest_runtest_setup

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in FILES}
JOBS = {f"{file}: {name}": job for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()}


def commands(job):
    """Every command of a job, with the matrix's values filled in, but for those that install the system's packages."""
    rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
    for row in rows:
        for step in job["steps"]:
            if "run" in step:
                command = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: str(row[found[1]]), step["run"])
                if not command.startswith("sudo apt-get "):
                    yield command


def make(*arguments):
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_pythons_are_those_that_the_package_names():
    rows = JOBS["cpu.yml: test"]["strategy"]["matrix"]["include"]
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert [row["python"] for row in rows] == classifiers == ["3.10", "3.11", "3.12", "3.13"]


@pytest.mark.parametrize("job", JOBS)
def test_every_command_is_a_target_of_the_makefile(job):
    for command in commands(JOBS[job]):
        program, *targets = command.split()
        assert program == "make" and len(targets) == 1 and re.fullmatch(r"[a-z-]+", targets[0])
        assert make(*targets).returncode == 0, command
    assert make("no-such-target").returncode == 2


@pytest.mark.parametrize("job", JOBS)
def test_a_job_may_only_read_and_ends(job):
    workflow = WORKFLOWS[job.partition(":")[0]]
    assert workflow["permissions"] == {"contents": "read"} and JOBS[job]["timeout-minutes"] <= 90
    on = workflow[True]  # YAML 1.1 reads `on` so.
    assert "pull_request" not in on or JOBS[job]["runs-on"] == "ubuntu-latest"  # Strangers' code on no machine of ours.


def test_the_oldest_stack_has_an_environment_of_its_own():
    shown = make("bench-gate-oldest", "PYTHON310=python3").stdout
    assert ".venv-oldest/bin/python scripts/baseline.py build/gate/bench.json" in shown
    assert "-c constraints-oldest.txt -e '.[tensorrt-pypi]'" in shown and " .venv/" not in shown


def test_the_gate_builds_measures_and_compares():
    shown = make("bench-gate").stdout
    steps = [shown.index(text) for text in (" export ", " compile ", " bench ", "scripts/baseline.py", " compare ")]
    assert steps == sorted(steps)
    assert "for size in 1 8 32 128;" in shown and "--fail-if-slower 10%" in shown
    shown = make("bench-gate", "GATE_BACKEND=torchscript", "GATE_LIMIT=3%").stdout
    assert "--backend torchscript" in shown and "for size" not in shown and "--fail-if-slower 3%\n" in shown


def test_what_cannot_be_compared_with_itself_becomes_no_baseline():
    shown = make("bench-baseline").stdout
    compared = shown.index(" compare build/gate/bench.json build/gate/bench.json --fail-if-slower 10%")
    assert compared < shown.index("scripts/baseline.py build/gate/bench.json --record")


PASSING = "def test_it(): pass\n"
SKIPPED = "import pytest\n@pytest.mark.skip\ndef test_it(): pass\n"
BROKEN = "import pytest\n@pytest.fixture\ndef it(): assert False\ndef test_it(it): pass\n"


@pytest.mark.parametrize(
    "code, exit_code, said",
    [(PASSING, 0, False), (SKIPPED, 1, True), (BROKEN, 1, False), ("", 5, True)],
    ids=["passing", "skipped", "broken", "none"],
)
def test_a_run_in_which_no_test_ran_fails(code, exit_code, said, tmp_path):
    (tmp_path / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "some_must_run", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert ("No test ran: expected at least one." in done.stdout) is said


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_test_is_skipped_without_a_gpu(request):
    pytest_runtest_setup(request.node)
    request.node.add_marker("gpu")
    with pytest.raises(pytest.skip.Exception, match="no CUDA GPU"):
        pytest_runtest_setup(request.node)


def test_torch_tensorrt_is_tried_again_until_it_is_there(tmp_path):
    """A demo before the driver was installed must not keep a later one from building a TensorRT engine."""
    venv, tools = tmp_path / "venv", tmp_path / "tools"
    for folder in (venv / "bin", tools):
        folder.mkdir(parents=True)
    for stamp in (".python", ".base"):
        (venv / stamp).touch()

    def ask(driver, pip):
        for path, code in ((tools / "nvidia-smi", driver), (venv / "bin" / "python", pip)):
            path.write_text(f"#!/bin/sh\nexit {code}\n")
            path.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        environment["PATH"] = f"{tools}:{os.environ['PATH']}"
        command = ["make", f"VENV={venv}", f"{venv}/.tensorrt"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ask(driver=9, pip=1) == "nvidia-smi does not answer: going on without Torch-TensorRT\n"
    assert ask(driver=0, pip=1).endswith("Torch-TensorRT cannot be installed here; going on without it\n")
    assert ask(driver=0, pip=0) == "a GPU answers: installing Torch-TensorRT\n"
    assert "is up to date" in ask(driver=0, pip=0)
