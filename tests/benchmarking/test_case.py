"""A benchmark case at one batch size, and its row when something fails."""

import pytest
import torch

from ssdtrt import config
from ssdtrt.benchmarking import case
from ssdtrt.benchmarking.case import BenchmarkCase, CaseRun
from ssdtrt.errors import ArtifactError


@pytest.fixture
def inputs():
    return [torch.zeros(2, 3, 4, 4)]


def runner_of(calls):
    def runner(images):
        calls.append(len(images))
        return images, images

    return runner


def broken(error, after=0):
    """A runner that fails with `error` from its call number `after` on."""
    calls = []

    def runner(images):
        calls.append(1)
        if len(calls) > after:
            raise error
        return images, images

    return runner


def fail(error):
    raise error


@pytest.mark.parametrize("compiles, warmup, calls", [(False, 4, 4), (True, 4, 5), (False, 0, 0), (True, 0, 1)])
def test_preparing(inputs, compiles, warmup, calls):
    made = []
    one = CaseRun(BenchmarkCase("a", "fp32", lambda: runner_of(made), compiles=compiles), inputs)
    one.prepare(warmup)
    assert len(made) == calls
    assert (one.compile_seconds is not None) is compiles and (one.first_call_ms is not None) is bool(warmup)
    assert one.memory_mib is None and one.reason == ""


def test_a_row_of_what_was_measured(inputs):
    made = BenchmarkCase("a", "fp32", lambda: runner_of([]), "compile", "a.ts", 3.5, compiles=True)
    one = CaseRun(made, inputs)
    one.prepare(1)
    one.measure(3)
    one.measure(3)
    row = one.row(None)
    assert (row.name, row.case, row.file, row.build_seconds, row.batch_size) == ("a", "compile", "a.ts", 3.5, 2)
    assert (row.samples, row.status, row.reason, row.speedup) == (6, "ok", "", None)
    assert row.compile_seconds > 0 and row.first_call_ms > 0 and row.median_ms > 0
    assert one.row(one.samples).speedup == 1.0


def test_what_cannot_be_made_gets_a_row_with_the_reason(inputs):
    error = ArtifactError("a.ts is damaged")
    one = CaseRun(BenchmarkCase("a", "fp16", lambda: fail(error), "engine", build_seconds=3.0), inputs)
    one.prepare(3)
    one.measure(3)
    row = one.row(None)
    assert (row.status, row.reason, row.samples, row.median_ms) == ("failed", "a.ts is damaged", 0, None)
    assert row.build_seconds is None and not one.exhausted


@pytest.mark.parametrize("after, rounds", [(0, 0), (2, 0), (5, 1)])
def test_a_failing_call_ends_it(inputs, after, rounds):
    one = CaseRun(BenchmarkCase("a", "fp16", lambda: broken(ValueError("no\nsuch"), after)), inputs)
    one.prepare(2)
    for _ in range(3):
        one.measure(2)
    assert (one.row(None).status, one.reason) == ("failed", "ValueError: no")
    assert len(one.samples.rounds) == rounds and one.compare(inputs[0]) == ""


def test_what_is_required_raises(inputs):
    one = CaseRun(BenchmarkCase("a", "fp32", lambda: broken(ValueError("a bug")), required=True), inputs)
    with pytest.raises(ValueError, match="a bug"):
        one.prepare(1)


def test_memory_that_does_not_suffice_is_a_row_also_for_what_is_required(inputs):
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
    one = CaseRun(BenchmarkCase("a", "fp32", lambda: broken(error), required=True), inputs)
    one.prepare(1)
    assert one.exhausted
    assert one.reason == "out of memory (OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.)"


def test_what_follows_from_a_lack_of_memory_is_one(inputs):
    """A capture that ends early raises an error of its own; the case is exhausted all the same."""

    def capture(images):
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    one = CaseRun(BenchmarkCase("a", "fp32", lambda: capture, required=True), inputs)
    one.prepare(1)
    assert one.exhausted and one.reason.startswith("out of memory (RuntimeError: CUDA error: operation failed")


def test_memory_of_the_host_counts_too(inputs):
    def large(images):
        return torch.empty(1 << 58, dtype=torch.uint8)

    one = CaseRun(BenchmarkCase("a", "fp32", lambda: large, required=True), inputs)
    one.prepare(1)
    assert one.exhausted and one.reason.startswith("out of memory (RuntimeError: ")


@pytest.mark.parametrize(
    "error, reason",
    [
        (KeyError(), "KeyError"),
        (RuntimeError("no\nsuch"), "RuntimeError: no"),
        (ValueError("out of memory"), "ValueError: out of memory"),
        (ArtifactError("a.ts is damaged."), "a.ts is damaged."),
        (RuntimeError("x" * 300), "RuntimeError: " + "x" * 200),
    ],
)
def test_a_reason_is_a_line(inputs, error, reason):
    one = CaseRun(BenchmarkCase("a", "fp32", lambda: fail(error)), inputs)
    one.prepare(1)
    assert one.row(None).reason == reason and not one.exhausted


class Heads(torch.nn.Module):
    """loc and conf of the right shape, almost: each `scale` of the mean of the images."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale), requires_grad=False)

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))[:, None, None] * self.scale
        return mean.expand(-1, 4, config.NUM_BOXES), mean.expand(-1, config.NUM_CLASSES, config.NUM_BOXES)


def static_outputs():
    """A runner as a CUDA graph is one: it writes every answer to the same place."""
    model, place = Heads(1.01), []

    def runner(images):
        answers = model(images)
        if not place:
            place.extend(answer.clone() for answer in answers)
        for own, answer in zip(place, answers):
            own.copy_(answer)
        return tuple(place)

    return runner


def test_agreement_copies_what_the_next_call_overwrites():
    images = torch.arange(1.0, 7.0).view(6, 1, 1, 1).expand(6, 3, 4, 4)
    one = CaseRun(BenchmarkCase("a", "tf32", static_outputs, reference=Heads()), [images[:2]])
    one.prepare(1)
    assert one.compare(images) == "" and one.runner is None
    assert [output.relative_l2 for output in one.agreement.outputs] == pytest.approx([0.01, 0.01], rel=1e-4)
    assert (one.agreement.precision, one.agreement.bound, one.agreement.batch_sizes) == ("tf32", 2e-2, (2,))
    assert one.agreement.passed


def test_a_comparison_without_memory_is_a_note(inputs):
    one = CaseRun(BenchmarkCase("a", "fp32", lambda: broken(MemoryError(), 3), reference=Heads()), inputs)
    one.prepare(1)
    one.measure(2)
    assert one.compare(inputs[0]) == "a, batch 2: agreement not compared, out of memory"
    assert one.row(None).ok and one.agreement is None


def test_a_comparison_that_fails_otherwise_is_a_bug(inputs):
    one = CaseRun(BenchmarkCase("a", "fp32", lambda: broken(ValueError("a bug"), 1), reference=Heads()), inputs)
    one.prepare(1)
    with pytest.raises(ValueError, match="a bug"):
        one.compare(inputs[0])


def test_no_memory_is_measured_on_a_cpu():
    assert case.free_memory(torch.device("cpu")) is None
