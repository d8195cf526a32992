"""The benchmark cases: what each computes, and the reason where it cannot run."""

import copy
import shutil

import pytest
import torch

from ssdtrt import config
from ssdtrt.benchmarking import baselines
from ssdtrt.benchmarking.baselines import BenchFile, Compiled, baseline_cases, check_names, file_cases
from ssdtrt.errors import SsdtrtError
from ssdtrt.runners.baseline import InPrecision
from ssdtrt.system.devices import with_tf32

CPU = torch.device("cpu")


class Tiny(torch.nn.Module):
    """A convolution as loc, and another as conf."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.loc, self.conf = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.loc(images).flatten(2), self.conf(images).flatten(2)


@pytest.fixture(scope="module")
def tiny():
    return Tiny().eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))


def by_name(model, module=None):
    return {one.case: one for one in baseline_cases(config.BENCH_CASES, model, module, CPU)}


def test_every_name_is_known_and_nothing_else():
    check_names(config.BENCH_CASES)
    with pytest.raises(SsdtrtError, match="'eager' is no benchmark case; expected some of eager-fp32, "):
        check_names(["compile", "eager"])


def test_the_baseline_is_first_and_always_there(tiny):
    assert [one.case for one in baseline_cases((), tiny, None, CPU)] == ["eager-fp32"]
    on_gpu = baseline_cases(["eager-fp16"], tiny, None, torch.device("cuda"))
    assert [one.case for one in on_gpu] == [
        "eager-fp32",
        "eager-fp16",
        "eager-fp16-graph",
    ]  # The last tells of the GPU.
    assert [one.case for one in baseline_cases(["compile", "engine", "eager-tf32"], tiny, None, CPU)] == [
        "eager-fp32", "eager-tf32", "compile"
    ]  # fmt: skip


def test_what_each_of_them_is(tiny, tmp_path):
    found = by_name(tiny, tmp_path / "ssd300.ts")
    assert [*found, "engine", "engine-plain"] == list(config.BENCH_CASES)
    assert all(one.name == name for name, one in found.items())
    assert {name: one.precision for name, one in found.items()} == {
        "eager-fp32": "fp32",
        "eager-tf32": "tf32",
        "eager-fp16": "fp16",
        "eager-fp16-graph": "fp16",
        "eager-bf16": "bf16",
        "torchscript": "fp32",
        "onnxruntime": "fp32",
        "compile": "fp32",
    }
    assert [name for name, one in found.items() if one.compiles] == ["eager-fp16-graph", "compile"]
    assert [name for name, one in found.items() if one.required] == ["eager-fp32"]
    assert found["eager-fp32"].reference is None and found["compile"].reference is tiny
    assert found["torchscript"].file == tmp_path / "ssd300.ts"
    assert all(one.reference is None for one in by_name(tiny).values())  # random weights, of which there is no file


@pytest.mark.parametrize(
    "name, reason",
    [
        ("eager-tf32", "needs a GPU: there is no TF32 on a CPU"),
        ("eager-fp16", "needs a GPU: PyTorch has no fast FP16 on a CPU"),
        ("eager-fp16-graph", "needs a GPU: PyTorch has no fast FP16 on a CPU"),
        ("torchscript", "the module of these files was not found; name it with --module"),
    ],
)
def test_what_cannot_be_made_here(tiny, name, reason):
    with pytest.raises(SsdtrtError) as caught:
        by_name(tiny)[name].make()
    assert str(caught.value) == reason


def test_bf16_is_not_emulated(tiny, monkeypatch):
    monkeypatch.setattr("ssdtrt.benchmarking.baselines.emulates_bf16", lambda: True)
    with pytest.raises(SsdtrtError) as caught:
        by_name(tiny)["eager-bf16"].make()
    reason = "needs a processor with BF16 arithmetic: emulated, it takes many times as long as FP32"
    assert str(caught.value) == reason


def test_in_bf16_it_computes_in_bf16_and_leaves_the_model_alone(tiny, images, monkeypatch):
    monkeypatch.setattr("ssdtrt.benchmarking.baselines.emulates_bf16", lambda: False)
    before = copy.deepcopy(tiny.state_dict())
    runner = by_name(tiny)["eager-bf16"].make()
    loc, conf = runner(images)
    assert loc.dtype == conf.dtype == torch.float32
    weights = next(runner.model.parameters())
    assert weights.dtype == torch.bfloat16 and weights.is_contiguous(memory_format=torch.channels_last)
    difference = float((loc - tiny(images)[0]).norm() / loc.norm())
    assert 1e-4 < difference < 2e-2
    assert all(torch.equal(tiny.state_dict()[key], value) for key, value in before.items())


def test_in_precision_casts_what_it_is_given(images):
    seen = []

    class Model(Tiny):
        def forward(self, given):
            seen.append((given.dtype, given.is_contiguous(memory_format=torch.channels_last)))
            return super().forward(given)

    InPrecision(Model(), "fp32")(images.double())
    InPrecision(Model(), "bf16", channels_last=True)(images)
    assert seen == [(torch.float32, False), (torch.bfloat16, True)]


def test_tf32_is_on_inside_only():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    with pytest.raises(KeyError):
        with with_tf32(True):
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (True, True)
            raise KeyError
    assert (cudnn.allow_tf32, matmul.allow_tf32) == before


def test_a_file_and_what_is_known_of_it(engine, module):
    file = BenchFile.read(engine, "cpu")
    assert (file.path, file.batch, file.metadata.precision, file.device) == (engine, None, "fp32", CPU)
    (plain,) = file_cases(["compile", "engine"], file, None)
    assert (plain.name, plain.case, plain.file, plain.precision) == (str(engine), "engine", engine, "fp32")
    assert plain.make() is file.loaded and plain.build_seconds == file.metadata.build.seconds
    of_module = BenchFile.read(module, "cpu")
    default, plain = file_cases(["engine-plain"], of_module, None)
    assert default.build_seconds is None
    assert (default.case, plain.case, plain.name) == ("torchscript", "engine-plain", f"{module} plain")
    with pytest.raises(
        SsdtrtError, match="^needs a TensorRT engine: other files run without a CUDA graph as they are$"
    ):
        plain.make()


def test_an_onnx_file_and_what_is_known_of_it(onnx_file, onnx_detector):
    for path in (onnx_file, onnx_detector):
        file = BenchFile.read(path, "cpu")
        case, plain = file_cases(["engine-plain"], file, None)
        assert (case.name, case.case, case.precision, case.build_seconds) == (str(path), "onnxruntime", "fp32", None)
        with pytest.raises(SsdtrtError, match="^needs a TensorRT engine"):
            plain.make()


def test_onnx_runtime_has_a_row_with_the_reason_where_it_is_missing(tiny, monkeypatch):
    monkeypatch.setattr(baselines.onnx_runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SsdtrtError) as caught:
        by_name(tiny)["onnxruntime"].make()
    reason = "ONNX files need onnx and onnxruntime, not installed here: pip install 'ssdtrt[onnx]'"
    assert str(caught.value) == reason


def settings_of_the_compiler():
    import torch._dynamo.config
    import torch._inductor.config

    found = {}
    for config_module in (torch._dynamo.config, torch._inductor.config):
        for key, value in config_module.get_config_copy().items() if hasattr(config_module, "get_config_copy") else ():
            found[config_module.__name__, key] = copy.copy(value)
    found["freezing"] = torch._inductor.config.freezing
    return found


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A place of its own for what torch compiles; skips where torch has no compiler for this Python."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    with baselines._quietly():
        import torch._inductor.config as inductor
    # Or it compiles programs that try what the processor says of itself.
    with inductor.patch({"cpp.vec_isa_ok": True} if hasattr(inductor.cpp, "vec_isa_ok") else {}):
        yield


@pytest.mark.slow
def test_compiled_gives_the_same_and_leaves_the_settings_as_they_were(tiny, images, compiler):
    with baselines._quietly():
        before = settings_of_the_compiler()
    runner = Compiled(tiny, on_gpu=False)
    with torch.no_grad():
        for _ in range(5):
            answers = runner(images)
        expected = tiny(images)
    assert [answer.shape for answer in answers] == [(2, 4, 36), (2, 8, 36)]
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(answers, expected))
    runner.close()
    assert settings_of_the_compiler() == before and before["freezing"] is False


def test_without_a_compiler_the_reason_is_the_compilers(tiny, images, compiler):
    with baselines._quietly():
        import torch._inductor.config as inductor
    from ssdtrt.benchmarking.case import BenchmarkCase, CaseRun

    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), torch.no_grad():
        run = CaseRun(BenchmarkCase("compile", "fp32", lambda: Compiled(tiny, False), compiles=True), [images])
        run.prepare(1)
    assert run.reason.startswith("InvalidCxxCompiler: ") and "\n" not in run.reason
    torch._dynamo.reset()
