"""Tests of the calls of Torch-TensorRT's TorchScript front end, for every supported version."""

import inspect
import sys

import pytest
import torch
from torch_tensorrt_stand_in import SIGNATURES, stand_in

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine.torch_tensorrt_backend import _compile_arguments, compile_module
from ssdtrt.errors import BuilderError, CompileError
from ssdtrt.runners import torchscript

VERSIONS = ("2.2.0", "2.8.0", "2.12.1", "2.14.0")
STATIC, RANGE = BatchRange(8, 8, 8), BatchRange(1, 8, 32)
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """Make torch report a GPU; enough for checks that do not use it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_the_recorded_versions_are_those_that_are_supported():
    assert tuple(sorted(SIGNATURES, key=lambda text: [int(part) for part in text.split(".")])) == VERSIONS


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("batch", [STATIC, RANGE], ids=["static", "range"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_argument_is_one_that_this_version_takes(version, batch, precision):
    arguments = _compile_arguments(precision, batch, 4096, torch.device("cuda:0"))
    known = SIGNATURES[version]
    front, behind = known["compile"], known["ts.compile"]
    assert front["var_keyword"] and not behind["var_keyword"]  # Other arguments are passed on to ts.compile.
    assert {"ir", "inputs", "enabled_precisions"} <= set(front["parameters"])
    assert set(arguments) - {"ir"} <= set(behind["parameters"])
    assert front["parameters"][0] == behind["parameters"][0] == "module"
    (image,) = arguments["inputs"]
    assert set(image) <= set(known["Input"]["keywords"] + known["Input"]["parameters"])


def test_a_static_engine_is_asked_for_in_half_between_edges_of_float32():
    assert _compile_arguments("fp16", STATIC, 4096, torch.device("cuda:1")) == {
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
    arguments = _compile_arguments("fp32", RANGE, 1, CPU)
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
    assert _compile_arguments("fp16", BatchRange.parse(batch), 1, CPU)["num_avg_timing_iters"] == times


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
    assert compile_module(tiny.to(inside), precision, STATIC, 64, CPU) is package.calls[0][0]
    ((module, arguments),) = package.calls
    assert {parameter.dtype for parameter in module.parameters()} == {inside}
    assert not module.training
    assert arguments["inputs"] == [("Input", {"shape": (8, 3, 300, 300), "dtype": torch.float32})]
    assert arguments["enabled_precisions"] == {inside}
    assert arguments["device"] == ("Device", "cpu")  # 2.14 does not take torch's own.
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
        compile_module(tiny, "fp16", STATIC, 64, CPU)
    assert str(caught.value) == (
        "Torch-TensorRT 3.0.0 does not accept disable_tf32, workspace_size; ssdtrt supports the versions 2.2 to 2.14."
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
    with pytest.raises(BuilderError) as caught:
        compile_module(tiny, "fp16", STATIC, 64, CPU)
    message = str(caught.value)
    assert message.startswith(f"TensorRT could not build the engine ({reason}") and "\n" not in message
