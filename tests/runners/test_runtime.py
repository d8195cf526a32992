"""Tests of importing torch_tensorrt, and of reporting what is missing for it."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch_tensorrt_stand_in import SIGNATURES, stand_in

from ssdtrt.errors import CompileError
from ssdtrt.runners import runtime

HOW = "pip install 'ssdtrt[tensorrt]' (or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10)"
CPU_BACKEND = "For a CPU engine: ssdtrt compile --backend torchscript"


@pytest.fixture
def gpu(monkeypatch):
    """Make torch report a GPU; enough for checks that do not use it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def not_installed(monkeypatch):
    """Make Torch-TensorRT appear as not installed: for None in sys.modules the import fails."""
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)


def test_nothing_is_missing_where_both_are_there(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in("2.8.0"))
    assert runtime.why_not() is None


def test_without_a_gpu_that_is_said(no_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in("2.8.0"))
    assert runtime.why_not() == (
        f"A TensorRT engine cannot be built or run here; missing: a CUDA GPU (torch {torch.__version__} sees none). "
        f"{CPU_BACKEND}"
    )


def test_without_torch_tensorrt_that_is_said(gpu, not_installed):
    assert runtime.why_not() == (
        f"A TensorRT engine cannot be built or run here; missing: Torch-TensorRT: {HOW}. {CPU_BACKEND}"
    )


def test_the_torch_tensorrt_of_tensorrt_rtx_is_refused_by_name(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in("2.14.0"))
    monkeypatch.setattr(runtime, "installed", {"torch-tensorrt-rtx": "2.14.0", "torch-tensorrt": "2.14.0"}.get)
    assert runtime.why_not() == (
        "torch-tensorrt-rtx 2.14.0 is installed. It has the import name of Torch-TensorRT, and builds for TensorRT-RTX, "
        "which ssdtrt does not run. Remove both: pip uninstall -y torch-tensorrt torch-tensorrt-rtx, then "
        f"{HOW}. {CPU_BACKEND}"
    )


@pytest.mark.parametrize(
    "parts, expected",
    [
        ({"IBuilderConfig": SimpleNamespace(max_aux_streams=None)}, None),
        ({"IBuilderConfig": SimpleNamespace()}, "TensorRT 8.5.3 has none (8.6 has them)"),
        ({}, "TensorRT 8.5.3 has none (8.6 has them)"),
    ],
)
def test_what_tensorrt_lacks_is_found_in_its_api(monkeypatch, parts, expected):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.5.3", **parts))
    assert runtime.lacking_in_tensorrt() == expected


def test_without_tensorrt_that_is_what_is_lacking(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert runtime.lacking_in_tensorrt().startswith("TensorRT cannot be imported (")


def test_without_either_both_are_said(no_gpu, not_installed):
    assert runtime.why_not() == (
        f"A TensorRT engine cannot be built or run here; missing: a CUDA GPU (torch {torch.__version__} sees none), "
        f"and Torch-TensorRT: {HOW}. {CPU_BACKEND}"
    )
    with pytest.raises(CompileError) as caught:
        runtime.import_torch_tensorrt()
    assert str(caught.value) == runtime.why_not()


def test_looking_imports_nothing(gpu, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "raise AssertionError('imported')")
    assert runtime.why_not() is None
    assert "torch_tensorrt" not in sys.modules


def install(folder, monkeypatch, code):
    """Install a torch_tensorrt package, found before any other, whose import runs `code`."""
    (folder / "torch_tensorrt").mkdir()
    (folder / "torch_tensorrt" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    "code, reason",
    [
        ("raise RuntimeError('CUDA error: no driver\\nfrom cudaGetDevice')", "CUDA error: no driver"),
        ("raise OSError('libnvinfer.so.8: cannot open shared object file')", "libnvinfer.so.8: cannot open shared"),
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
        ("raise KeyError", "KeyError"),
    ],
)
def test_an_import_that_fails_is_one_clear_error(gpu, tmp_path, monkeypatch, code, reason):
    install(tmp_path, monkeypatch, code)
    with pytest.raises(CompileError) as caught:
        runtime.import_torch_tensorrt()
    message = str(caught.value)
    assert message.startswith(
        f"Torch-TensorRT is installed but cannot be imported with torch {torch.__version__} ({reason}"
    )
    assert message.endswith(f"). Install versions that belong together: {HOW}") and "\n" not in message


def test_an_import_that_works_gives_the_package(gpu, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "__version__ = '9.9.9'")
    try:
        assert runtime.import_torch_tensorrt().__version__ == "9.9.9"
    finally:
        sys.modules.pop("torch_tensorrt", None)


@pytest.mark.parametrize(
    "package",
    [
        SimpleNamespace(__version__="2.9.0", ENABLED_FEATURES=SimpleNamespace(torchscript_frontend=False), ts=object()),
        SimpleNamespace(__version__="2.9.0", ENABLED_FEATURES=SimpleNamespace(dynamo_frontend=True)),
        SimpleNamespace(__version__="2.9.0"),
    ],
    ids=["flag off", "flag unknown", "no flags"],
)
def test_a_build_without_the_front_end_is_named(package):
    with pytest.raises(CompileError) as caught:
        runtime.check_front_end(package)
    assert str(caught.value) == (
        "Torch-TensorRT 2.9.0 has no TorchScript front end, which writes the engine file; "
        f"build a plan, which does without (--format plan), or install a build that has it: {HOW}"
    )


@pytest.mark.parametrize("version", SIGNATURES)
def test_a_build_with_the_front_end_is_taken(version):
    assert runtime.check_front_end(stand_in(version)) is None
