"""Tests of refusing an engine: its distance, its size, or a detector that differs from its engine."""

from dataclasses import replace

import pytest
import torch

from known import Known
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine import acceptance
from ssdtrt.engine.acceptance import accept
from ssdtrt.engine.modules import DetectorModule, EngineModule
from ssdtrt.errors import ParityError
from ssdtrt.images.tensors import normalize, synthetic_pictures

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
    per_parameter = engine.stat().st_size / 1_532_470
    assert str(caught.value) == (
        f"The engine is not BF16: it takes {per_parameter:.2f} bytes per parameter, as FP32 weights do; "
        "expected at most 3.5."
    )


def test_a_bf16_engine_passed_off_as_fp32_is_refused(module, engine_bf16):
    with pytest.raises(ParityError, match="too far from the FP32 model.*expected at most 1e-04 for FP32"):
        accept(engine_bf16, module, request_in("fp32"), CPU)


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
