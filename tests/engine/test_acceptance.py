"""Tests of refusing an engine: its distance, its size, a result that it does not repeat, or a detector that differs."""

import re
from dataclasses import replace
from typing import Tuple

import pytest
import torch
from torch import Tensor

from known import Known
from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.artifact.quantization import Quantization
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.engine import acceptance
from ssdtrt.engine.acceptance import accept, measure_repeatability
from ssdtrt.engine.modules import DetectorModule, EngineModule
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import normalize, synthetic_images, synthetic_pictures
from ssdtrt.runners import torchscript

CPU = torch.device("cpu")


def request_in(precision):
    return BuildRequest(weights="0" * 64, graph="1" * 64, preprocess="eval", backend="torchscript", precision=precision)


def test_an_engine_nearer_than_its_precision_can_be_is_refused(module, engine, monkeypatch):
    """FP32 is given a floor here: a processor without BF16 arithmetic takes a minute to show one of its own."""
    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], floor_share=1e5))
    with pytest.raises(ParityError) as caught:
        accept(engine, module, request_in("fp32"), CPU)
    report = caught.value.report
    assert not report.passed and 0 < report.distance < 1e-4 < report.floor
    assert str(caught.value) == (
        f"The engine is not FP32: its relative L2 distance to FP32 (loc {report.outputs[0].relative_l2:.2e}, "
        f"conf {report.outputs[1].relative_l2:.2e}) is below {report.floor:.1e}, the smallest expected of "
        "arithmetic in that precision."
    )


def test_the_size_alone_tells_that_it_is_not_bf16(model, engine, engine_bf16):
    acceptance._check_size(engine_bf16, model, PRECISIONS["bf16"])
    with pytest.raises(ParityError) as caught:
        acceptance._check_size(engine, model, PRECISIONS["bf16"])
    per_parameter = engine.stat().st_size / 714_282
    assert str(caught.value) == (
        f"The engine is not BF16: it takes {per_parameter:.2f} bytes per parameter, as FP32 weights do; "
        "expected at most 3.5."
    )


def test_a_bf16_engine_passed_off_as_fp32_is_refused(module, engine_bf16):
    with pytest.raises(ParityError, match="too far from the FP32 model.*expected at most 1e-04 for FP32"):
        accept(engine_bf16, module, request_in("fp32"), CPU)


def of_int8(*keep_fp16):
    quantization = Quantization(table="t.json", ranges={}, exponents={}, keep_fp16=keep_fp16)
    return BuildRequest(
        weights="0" * 64, graph="1" * 64, preprocess="eval", backend="tensorrt", precision="int8", batch="8",
        front_end="tensorrt", quantization=quantization,
    )  # fmt: skip


def test_an_int8_engine_may_have_layers_in_fp16_that_stay_there_and_no_others():
    layers = [
        EngineLayer("block.conv1 + block.relu", "conv", "int8", 800),
        EngineLayer("block.conv2 + block.relu", "conv", "fp16", 150),
        EngineLayer("block.conv3", "conv", "fp32", 50),
        EngineLayer("copy", "reformat", "fp16"),
    ]
    acceptance.check_types(layers, of_int8("block.conv2"))
    acceptance.check_types([], of_int8())  # Where TensorRT tells no types.
    found = "The engine is not INT8: of its multiplications 80.0 % in int8, 15.0 % in fp16, 5.0 % in fp32; expected"
    for kept, or_kept in (
        ((), ""),
        (("block.conv1",), " or in layers kept in FP16"),
        (("block.conv3",), " or in layers kept in FP16"),
    ):
        with pytest.raises(ParityError) as caught:
            acceptance.check_types(layers, of_int8(*kept))
        assert str(caught.value) == f"{found} at least 95 % in int8{or_kept}."


# In every place of a batch, and in every run


class Swapping(torch.nn.Module):
    """An engine that gives the first image's outputs to the last one, and the other way round, in a batch of three."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        loc, conf = self.engine(images)
        if len(images) == 3:
            loc, conf = loc.flip(0), conf.flip(0)
        return loc, conf


class LastPlace(Swapping):
    """An engine whose last place in a batch of three is a little off."""

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        loc, conf = self.engine(images)
        if len(images) == 3:
            conf = conf.clone()
            conf[2].mul_(1.001)
        return loc, conf


class Drifting(Swapping):
    """An engine whose results change a little in every call."""

    def __init__(self, engine):
        super().__init__(engine)
        self.calls = 0

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        loc, conf = self.engine(images)
        self.calls += 1
        return loc, conf * (1 + 4e-6 * self.calls)


ANOTHER = r"Build it for another batch size \(--batch-size\), or in FP32 \(--fp32\)."
IN_BATCH = (
    r"The engine's results depend on the batch: image {} of 3 differs from the same image alone by {} \(relative L2\);"
)


def test_an_accepted_engine_gives_the_same_in_every_place_and_every_run(module, engine, fusing):
    report = accept(engine, module, request_in("fp32"), CPU)
    found = report.repeatability
    assert report.passed and report.images == 2 and found.batch_sizes == (1, 3)
    assert 0 <= found.in_batch <= found.batch_bound == 1e-5 and found.again <= 1e-6 and found.cuda_graph is None


@pytest.mark.parametrize(
    "fault, message",
    [
        (Swapping, IN_BATCH.format("[13]", r"1\.\de\+00") + f" expected at most 1.0e-05. {ANOTHER}"),
        (LastPlace, IN_BATCH.format("3", r"1\.0e-03") + f" expected at most 1.0e-05. {ANOTHER}"),
        (
            Drifting,
            r"The engine does not repeat its results: a second run of the same images differs by \d\.\de-0[56] "
            rf"\(relative L2\); expected at most 1e-06. {ANOTHER}",
        ),
    ],
)
def test_an_engine_that_passes_beside_fp32_is_refused_for_what_it_does_not_repeat(
    module, engine, tmp_path, fault, message
):
    broken = tmp_path / "broken.engine.ts"
    with torchscript.quiet():
        torchscript.save(torch.jit.script(fault(torchscript.load(engine)).eval()), broken)
    with pytest.raises(ParityError) as caught:
        accept(broken, module, request_in("fp32"), CPU)
    assert re.fullmatch(message, str(caught.value)) and caught.value.wrong_values
    assert caught.value.report.distance < 1e-4 and not caught.value.report.passed


class Cheap(torch.nn.Module):
    """A network whose outputs depend on the image; what is in `off` is added to that place of a batch."""

    def __init__(self, **off):
        super().__init__()
        self.off = {int(place[1:]): by for place, by in off.items()}

    def forward(self, images):
        mean = 2 + images.mean((2, 3))[:, :, None]  # [N, 3, 1]
        for place, by in self.off.items():
            if place < len(mean):
                mean = torch.where((torch.arange(len(mean)) == place)[:, None, None], mean + by, mean)
        return mean.repeat(1, 1, 8), mean.repeat(1, 2, 8)


def measured(network, sizes, precision="fp16", count=9):
    return measure_repeatability(network, synthetic_images(count), sizes, PRECISIONS[precision])


@pytest.mark.parametrize("off", ["_4", "_8"])
def test_the_first_the_middle_and_the_last_place_are_compared_with_the_image_alone(off):
    assert measured(Cheap(), (1, 2, 5, 9)).failure is None
    found = measured(Cheap(**{off: 0.1}), (1, 2, 5, 9))
    assert (found.batch_size, found.place) == (9, 8) if off == "_8" else found.place == 4
    assert 2e-3 < found.in_batch < 0.1 and found.failure
    assert measured(Cheap(**{off: 0.1}), (1, 2)).failure is None


@pytest.mark.parametrize("batch, off", [("4", "_3"), ("4", "_2"), ("3:3:5", "_4")])
def test_an_image_alone_is_padded_to_the_smallest_batch(batch, off):
    sizes, whole = BatchRange.parse(batch), range(9)
    for fault, passes in (({}, True), ({off: 0.1}, False)):
        engine = EngineModule(Cheap(**fault), torch.float32, sizes, channels_last=False)
        found = measured(engine, sizes.sizes)
        assert (found.failure is None) is passes and found.place in whole
        assert passes or f"image {int(off[1]) + 1} of {sizes.max} differs" in found.failure


def test_a_value_that_is_not_finite_in_a_batch_is_refused():
    found = measured(Cheap(_2=float("nan")), (1, 5))
    assert found.in_batch == float("inf") and "image 3 of 5 differs" in found.failure


class OnGpu(torch.Tensor):
    """Images that say that they are on a GPU."""

    is_cuda = True


def test_on_a_gpu_every_batch_runs_twice_and_as_a_graph(monkeypatch):
    images, ran = synthetic_images(5).as_subclass(OnGpu), []

    def graph(network, device):
        def replay(batch):
            ran.append(len(batch))
            return [part * 1.01 if len(batch) == wrong else part for part in network(batch)]

        return replay

    monkeypatch.setattr(acceptance, "CudaGraphRunner", graph)
    for wrong in (0, 5):
        found = measure_repeatability(Cheap(), images, (1, 2, 5), PRECISIONS["fp16"])
        assert found.again == 0 and found.cuda_graph == pytest.approx(0.01 if wrong else 0, rel=1e-4)
        assert (found.failure is None) is not wrong
    assert ran == [1, 2, 5, 1, 2, 5] and "a run as a CUDA graph of the same images differs by 1.0e-02" in found.failure
    again = iter([1.0] * 8 + [1.1] * 10)
    found = measure_repeatability(
        lambda batch: [part * next(again) for part in Cheap()(batch)], images, (5,), PRECISIONS["fp16"]
    )
    assert found.again == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(
    "batch, sizes",
    [("1", (1,)), ("8", (8,)), ("1:8:32", (1, 8, 17, 32)), ("2:4:8", (2, 4, 5, 8)), ("1:1:2", (1, 2)), ("1:3:4", (1, 3, 4))],
)  # fmt: skip
def test_the_sizes_are_those_of_the_range_and_an_odd_one(batch, sizes):
    request = BuildRequest(
        weights="0" * 64, graph="1" * 64, preprocess="eval", backend="tensorrt", precision="fp16", batch=batch
    )
    assert acceptance._place_sizes(request) == sizes


def test_a_detector_whose_outputs_differ_is_refused():
    pictures = synthetic_pictures(2)
    images = normalize(pictures)
    for change, name in (
        (lambda detector: None, None),
        (lambda detector: detector.default_boxes.add_(0.01), "boxes"),
        (lambda detector: detector.default_boxes.fill_(float("nan")), "boxes"),
        (lambda detector: setattr(detector, "forward", lambda images: swapped(detector, images)), "labels"),
    ):
        detector = DetectorModule(EngineModule(Known(), torch.float32, None, channels_last=False), "eval")
        change(detector)
        if name is None:
            acceptance._check_detector(detector, pictures, images)
        else:
            with pytest.raises(ParityError, match=f"The detector's {name} differ by .* from those of its own engine"):
                acceptance._check_detector(detector, pictures, images)


def swapped(detector, images):
    boxes, labels, scores, counts = DetectorModule.forward(detector, images)
    return boxes, labels.flip(1), scores, counts
