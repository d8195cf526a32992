"""Tests of the eager baselines of a file."""

from types import SimpleNamespace

import pytest
import torch

from ssdtrt.detect import Detector
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.runners.baseline import EagerRunner, InPrecision, baseline_runners, eager_model
from ssdtrt.runners.runner import load_engine


def test_eager_runner_is_the_model(engine, module):
    runner = load_engine(engine)
    model = eager_model(module, runner.device)
    images = torch.rand(2, 3, 300, 300)
    with torch.no_grad():
        expected = model(images)
    eager = EagerRunner("eager-fp32", model, runner, "fp32")
    assert all(torch.equal(*pair) for pair in zip(eager(images), expected))
    assert (eager.labels, eager.device, eager.trained, eager.batch) == (runner.labels, runner.device, False, None)
    assert (eager.name, eager.precision, eager.preprocess) == ("eager-fp32", "fp32", "eval")


def test_eager_runner_in_half_precision():
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
            seen.append((images.dtype, self.weight.dtype, cudnn.allow_tf32, matmul.allow_tf32, images.requires_grad))
            return images + self.weight, images

    metadata = SimpleNamespace(model=SimpleNamespace(labels=["background"], preprocess="eval"), trained=True)
    engine = SimpleNamespace(path=None, metadata=metadata, device=torch.device("cpu"))
    loc, conf = EagerRunner("eager-fp16", InPrecision(Model(), "fp16"), engine, "fp16")(torch.full((1, 3), 0.1))
    assert seen == [(torch.float16, torch.float16, False, False, False)]
    assert loc.dtype == conf.dtype == torch.float32 and not loc.requires_grad
    assert conf[0, 0] == torch.tensor(0.1).half().float()


def test_baselines_by_name(engine, module):
    runner = load_engine(engine)
    baselines = baseline_runners(runner, None, ["eager-fp32", "eager-fp32"])
    assert list(baselines) == ["eager-fp32"]
    state, expected = (
        baselines["eager-fp32"].network.model.state_dict(),
        eager_model(module, runner.device).state_dict(),
    )
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_no_baseline_needs_no_module(engine, tmp_path):
    (tmp_path / "alone.engine.ts").write_bytes(engine.read_bytes())
    assert baseline_runners(load_engine(tmp_path / "alone.engine.ts"), None, []) == {}


def test_a_baseline_without_its_module_is_refused_and_one_may_be_named(engine, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alone.engine.ts").write_bytes(engine.read_bytes())
    runner = load_engine(tmp_path / "alone.engine.ts")
    with pytest.raises(ArtifactError) as caught:
        baseline_runners(runner, None, ["eager-fp32"])
    assert str(caught.value) == (
        f"{runner.path} cannot be compared with eager-fp32: its module ssd300.ts was not found; name it with --module."
    )
    assert list(baseline_runners(runner, module, ["eager-fp32"])) == ["eager-fp32"]


@pytest.mark.parametrize(
    "names, message",
    [
        (["eager-fp32", "pytorch"], "Unknown baseline 'pytorch'; expected eager-fp32 or eager-fp16."),
        (["eager-fp16"], "eager-fp16 needs a GPU: PyTorch has no fast FP16 on a CPU. Leave it out."),
    ],
)
def test_what_is_no_baseline_here(engine, names, message):
    with pytest.raises(SsdtrtError) as caught:
        baseline_runners(load_engine(engine), None, names)
    assert str(caught.value) == message


def test_a_baseline_detects_what_its_engine_does(hub_module, photographs):
    """The baseline uses the preprocessing that the engine's file records, here `hub`."""
    runner = load_engine(hub_module, "cpu")
    baseline = Detector(baseline_runners(runner, None, ["eager-fp32"])["eager-fp32"], threshold=0.2)
    (expected,) = Detector(runner, threshold=0.2)(photographs[2:3])
    (found,) = baseline(photographs[2:3])
    assert found == expected and len(found.detections) > 3
