"""The wheel works where there is no checkout, and the metadata says what the documentation says."""

import configparser
import os
import subprocess
import sys
import zipfile

import pytest

import ssdtrt as package
from conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tracked files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = ["ssdtrt", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), str(source)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "-o", str(out), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_every_module_and_the_samples(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ssdtrt").rglob("*.py")}
    samples = {f"ssdtrt/samples/{name}" for name in ("README.md", "astronaut.jpg", "chelsea.jpg", "coffee.jpg")}
    assert modules | samples <= held
    assert not any(name.startswith("tests/") for name in held)


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments):
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(sys.executable, "-m", "ssdtrt", "--version") == f"ssdtrt, version {package.__version__}\n"
    assert run(str(site / "bin" / "ssdtrt"), "--version") == f"ssdtrt, version {package.__version__}\n"
    where = run(sys.executable, "-c", "import ssdtrt; print(ssdtrt.__file__)").strip()
    assert where.startswith(str(site))
    run(sys.executable, "-m", "ssdtrt", "export", "--weights", "random")
    run(sys.executable, "-m", "ssdtrt", "compile", "--backend", "torchscript")
    sample = site / "ssdtrt" / "samples" / "chelsea.jpg"
    assert "chelsea.jpg" in run(sys.executable, "-m", "ssdtrt", "detect", "ssd300.engine.ts", str(sample))


def test_declared_dependencies_are_the_settled_ones():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    names = [line.split(">=")[0] for line in config["options"]["install_requires"].split()]
    assert names == ["torch", "torchvision", "numpy", "click", "pillow"]
    assert config["options"]["python_requires"] == ">=3.10"
    assert set(config["options.extras_require"]) == {"tensorrt", "tensorrt-pypi", "eval", "plot", "dev"}


def test_pypi_extra_pins_the_stack_that_the_figures_were_measured_with():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    pins = [
        line.split(";")[0].strip() for line in config["options.extras_require"]["tensorrt-pypi"].strip().split("\n")
    ]
    assert pins == [
        "torch==2.2.2", "torchvision==0.17.2", "torch-tensorrt==2.2.0", "tensorrt==8.6.0", "numpy==1.26.4"
    ]  # fmt: skip


def test_importing_the_package_costs_no_torch():
    code = "import sys, ssdtrt.cli; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
