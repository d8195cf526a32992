"""What is asked of torch_tensorrt, in every version that is supported, and what is said where it is missing."""

import importlib.machinery
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ssdtrt.artifact import runtime, torchscript
from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine.torch_tensorrt_backend import build, compile_arguments, embed
from ssdtrt.errors import CompileError

SIGNATURES = json.loads((Path(__file__).parents[1] / "data" / "torch_tensorrt_signatures.json").read_text())
VERSIONS = ("2.2.0", "2.8.0", "2.12.1", "2.14.0")
HOW = "pip install 'ssdtrt[tensorrt]' (or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10)"
CPU_BACKEND = "For a CPU engine: ssdtrt compile --backend torchscript"
STATIC, RANGE = BatchRange(8, 8, 8), BatchRange(1, 8, 32)
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is only claimed: enough for what looks before it touches it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def not_installed(monkeypatch):
    """As where Torch-TensorRT is not installed: Python itself treats None so."""
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)


def test_the_recorded_versions_are_those_that_are_supported():
    assert tuple(sorted(SIGNATURES, key=lambda text: [int(part) for part in text.split(".")])) == VERSIONS


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("batch", [STATIC, RANGE], ids=["static", "range"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_argument_is_one_that_this_version_takes(version, batch, precision):
    arguments = compile_arguments(precision, batch, 4096, torch.device("cuda:0"))
    known = SIGNATURES[version]
    front, behind = known["compile"], known["ts.compile"]
    assert front["var_keyword"] and not behind["var_keyword"]  # What is not the front's own reaches ts.compile.
    assert {"ir", "inputs", "enabled_precisions"} <= set(front["parameters"])
    assert set(arguments) - {"ir"} <= set(behind["parameters"])
    assert front["parameters"][0] == behind["parameters"][0] == "module"
    (image,) = arguments["inputs"]
    assert set(image) <= set(known["Input"]["keywords"] + known["Input"]["parameters"])


def test_a_static_engine_is_asked_for_in_half_between_edges_of_float32():
    assert compile_arguments("fp16", STATIC, 4096, torch.device("cuda:1")) == {
        "ir": "ts",
        "inputs": [{"shape": (8, 3, 300, 300), "dtype": torch.float32}],
        "enabled_precisions": {torch.float16},
        "disable_tf32": True,
        "workspace_size": 4_294_967_296,
        "num_avg_timing_iters": 16,
        "require_full_compilation": True,
        "truncate_long_and_double": True,
        "device": torch.device("cuda:1"),
    }


def test_a_range_is_asked_for_in_single_precision():
    arguments = compile_arguments("fp32", RANGE, 1, CPU)
    assert arguments["inputs"] == [
        {
            "min_shape": (1, 3, 300, 300),
            "opt_shape": (8, 3, 300, 300),
            "max_shape": (32, 3, 300, 300),
            "dtype": torch.float32,
        }
    ]
    assert arguments["enabled_precisions"] == {torch.float32}
    assert arguments["disable_tf32"] is True and arguments["workspace_size"] == 1_048_576


@pytest.mark.parametrize(
    "batch, times", [("1", 16), ("8", 16), ("12", 10), ("32", 4), ("128", 1), ("200", 1), ("1:8:32", 16)]
)
def test_short_kernels_are_timed_more_often(batch, times):
    assert compile_arguments("fp16", BatchRange.parse(batch), 1, CPU)["num_avg_timing_iters"] == times


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
    """A package of that name, found before any other, whose import runs `code`."""
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
        f"install a build that has it: {HOW}"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_build_with_the_front_end_is_taken(version):
    assert runtime.check_front_end(stand_in(version)) is None


def stand_in(version, answer=lambda module, **arguments: module):
    """A torch_tensorrt with the recorded signatures of one version; `compile` records its call, then gives `answer`."""
    known = SIGNATURES[version]
    package = ModuleType("torch_tensorrt")
    package.__spec__ = importlib.machinery.ModuleSpec("torch_tensorrt", None)
    package.__version__ = version
    package.calls = []
    keyword = inspect.Parameter.KEYWORD_ONLY

    def ts_compile(module, **arguments):
        raise AssertionError("not called directly")

    ts_compile.__signature__ = inspect.Signature(
        [inspect.Parameter(name, keyword) for name in known["ts.compile"]["parameters"]]
    )

    def compile_(module, **arguments):
        package.calls.append((module, arguments))
        return answer(module, **arguments)

    def make_input(**keywords):
        assert set(keywords) <= set(known["Input"]["keywords"])
        return ("Input", keywords)

    package.ts = SimpleNamespace(compile=ts_compile)
    package.compile, package.Input = compile_, make_input
    if known["has_feature_flag"]:
        package.ENABLED_FEATURES = SimpleNamespace(torchscript_frontend=True)
    return package


@pytest.fixture
def tiny():
    with torchscript.quiet():
        return torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8), check_trace=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_module_is_compiled_with_its_own_types_inside(gpu, monkeypatch, tiny, version, precision):
    package = stand_in(version)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    inside = torch.float16 if precision == "fp16" else torch.float32
    assert build(tiny.to(inside), precision, STATIC, 64, CPU) is package.calls[0][0]
    ((module, arguments),) = package.calls
    assert {parameter.dtype for parameter in module.parameters()} == {inside}
    assert not module.training
    assert arguments["inputs"] == [("Input", {"shape": (8, 3, 300, 300), "dtype": torch.float32})]
    assert arguments["enabled_precisions"] == {inside}
    assert arguments["ir"] == "ts" and arguments["workspace_size"] == 67_108_864


def test_a_version_that_does_not_take_an_argument_is_named(gpu, monkeypatch, tiny):
    package = stand_in("2.14.0")
    package.__version__ = "3.0.0"
    parameters = inspect.signature(package.ts.compile).parameters.values()
    package.ts.compile.__signature__ = inspect.Signature(
        [p for p in parameters if p.name not in ("disable_tf32", "workspace_size")]
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    with pytest.raises(CompileError) as caught:
        build(tiny, "fp16", STATIC, 64, CPU)
    assert str(caught.value) == (
        "Torch-TensorRT 3.0.0 does not take disable_tf32, workspace_size; ssdtrt knows the versions 2.2.0 to 2.14.0."
    )
    assert package.calls == []


@pytest.mark.parametrize(
    "error, reason",
    [
        (RuntimeError("[Error thrown at core/conversion]\nUnable to convert aten::x\n"), "[Error thrown at core/"),
        (ValueError("no kernel"), "no kernel"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_what_tensorrt_says_when_it_fails_is_passed_on(gpu, monkeypatch, tiny, error, reason):
    def fail(module, **arguments):
        raise error

    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in("2.2.0", fail))
    with pytest.raises(CompileError) as caught:
        build(tiny, "fp16", STATIC, 64, CPU)
    message = str(caught.value)
    assert message.startswith(f"TensorRT could not build the engine ({reason}") and "\n" not in message


def test_an_engine_that_cannot_be_embedded_is_one_clear_error(gpu, monkeypatch):
    def fail(plan, **arguments):
        raise RuntimeError("Unable to deserialize\nthe engine")

    package = stand_in("2.2.0")
    package.ts.embed_engine_in_new_module, package.Device = fail, lambda name: name
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    with pytest.raises(CompileError) as caught:
        embed(b"plan", "images", "joined", CPU)
    assert str(caught.value) == "Torch-TensorRT could not take the engine (Unable to deserialize)."
