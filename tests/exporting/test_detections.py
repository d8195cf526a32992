"""Tests of decoding and NMS as ONNX operators, run in ONNX Runtime: what `detect_batch` says, in its order."""

import math

import numpy as np
import pytest
import torch

from ssdtrt.artifact.metadata import TensorSpec
from ssdtrt.artifact.tensors import detector_tensors
from ssdtrt.exporting import detections
from ssdtrt.exporting.graph_writer import GraphWriter
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_exact
from ssdtrt.runners.onnx_runtime import OnnxModule

CPU = torch.device("cpu")


def compiled(graph, inputs, outputs):
    return OnnxModule(lambda: graph.model(inputs, outputs).SerializeToString(), CPU, "the test's graph")


def detector_of(classes):
    """Decoding and NMS alone, (loc, conf) -> (boxes, labels, scores, counts)."""
    graph = GraphWriter()
    detections.add_detections(graph, classes)
    inputs = [TensorSpec("loc", ("N", 4, 8732), "float32"), TensorSpec("conf", ("N", classes, 8732), "float32")]
    return compiled(graph, inputs, detector_tensors()[1])


@pytest.fixture(scope="module")
def detector():
    return detector_of(81)


def same(found, loc, conf):
    """Whether the detections are those of the exact eager NMS, bit for bit but for the rounding of scores and boxes."""
    packed = detect_exact(loc, conf, default_boxes())
    assert torch.equal(found[3], packed[:, 200, 0].long())
    assert torch.equal(found[1], packed[:, :-1, 4].long())
    assert float((found[2] - packed[:, :-1, 5]).abs().max()) < 1e-6
    assert float((found[0] - packed[:, :-1, :4]).abs().max()) < 1e-5
    return packed


def outputs(count, classes=81):
    """`loc` of zeros and a `conf` that is sure of the background."""
    conf = torch.zeros(count, classes, 8732)
    conf[:, 0] = 20.0
    return torch.zeros(count, 4, 8732), conf


def test_nothing_is_found_where_all_is_background(detector):
    found = detector(*outputs(2))
    assert found[3].tolist() == [0, 0]
    assert not any(part.any() for part in found)


def test_known_detections(detector):
    loc, conf = outputs(2)
    loc[1, 0, 8731] = 5.0
    conf[1, :, 8728] = 0
    conf[1, 17, 8728] = 6.0
    conf[1, :, 8731] = 0
    conf[1, 1, 8731] = 4.0
    boxes, labels, scores, counts = detector(loc, conf)
    assert counts.tolist() == [0, 2]
    assert labels[1, :3].tolist() == [17, 1, 0]
    expected = [math.exp(6) / (math.exp(6) + 80), math.exp(4) / (math.exp(4) + 80)]
    assert scores[1, :2].tolist() == pytest.approx(expected, abs=1e-6)
    # The map of a single cell: a square of 261/300, and 0.87 sqrt(2) (clamped to 1, as height) by 0.87 / sqrt(2),
    # which `loc` moves to the right by 0.1 * 5 of its width.
    wide = 0.87 / math.sqrt(2)
    assert boxes[1, 0].tolist() == pytest.approx([0.065, 0.065, 0.935, 0.935], abs=1e-6)
    assert boxes[1, 1].tolist() == pytest.approx([0.5, 0, 0.5 + wide, 1], abs=1e-6)
    assert not boxes[1, 2:].any() and not scores[1, 2:].any()


def test_a_score_of_the_limit_is_no_candidate(detector):
    loc, conf = outputs(1)
    conf[0, :, 0] = -100.0
    conf[0, :20, 0] = 0.0  # 20 classes of 1/20 each: float32's 0.05, or the nearest below
    assert detector(loc, conf)[3].tolist() == [0]
    conf[0, 5, 0] = 0.01
    assert detector(loc, conf)[3].tolist() == [1]


@pytest.mark.parametrize("together, kept", [(200, 1), (199, 2), (190, 11)])
def test_no_more_than_the_best_200_of_a_class_are_candidates(together, kept, detector):
    """So many of the best boxes coincide, and 50 worse ones are apart: those that are not candidates are not kept."""
    loc, conf = outputs(1)
    anchors = default_boxes()
    loc[0, :2, :together] = ((0.5 - anchors[:together, :2]) / (0.1 * anchors[:together, 2:])).T
    apart = torch.arange(400, 700, 6)
    loc[0, 2:, apart] = -10.0  # Small boxes, exp(-2) of their size.
    conf[0, 1, :together] = torch.linspace(31, 29, together)
    conf[0, 1, apart] = torch.linspace(28, 27, 50)
    found = detector(loc, conf)
    assert found[3].tolist() == [kept]
    same(found, loc, conf)


@pytest.mark.parametrize("classes", [81, 5, 2])
def test_random_outputs_with_more_candidates_than_are_taken(classes, detector):
    generator = torch.Generator().manual_seed(classes)
    loc = torch.randn(2, 4, 8732, generator=generator)
    conf = 2 * torch.randn(2, classes, 8732, generator=generator)
    run = detector if classes == 81 else detector_of(classes)
    packed = same(run(loc, conf), loc, conf)
    assert packed[:, 200, 0].tolist() == [200, 200] or classes == 2


def test_equal_scores_are_in_the_order_of_boxes_then_of_classes(detector):
    conf = torch.full((2, 81, 8732), -200.0)
    generator = torch.Generator().manual_seed(1)
    pairs = torch.rand(2, 80, 8732, generator=generator).topk(2, dim=1).indices + 1
    conf.scatter_(1, pairs, 0.0)  # Every score is 0 or exactly 0.5.
    found = detector(torch.zeros(2, 4, 8732), conf)
    packed = same(found, torch.zeros(2, 4, 8732), conf)
    assert found[2].unique().tolist() == [0.5] and torch.equal(found[0], packed[:, :-1, :4])


@pytest.mark.parametrize(
    "bottom, kept", [(0.5, [True, False]), (float(np.nextafter(np.float32(0.5), np.float32(0))), [True, True])]
)
def test_an_iou_of_the_limit_suppresses_and_the_next_smaller_does_not(bottom, kept):
    graph = GraphWriter()
    inputs = [TensorSpec("box", ("N", 2, 4), "float32"), TensorSpec("score", ("N", 1, 2), "float32")]
    last = detections._suppress(graph, "box", "score")
    run = compiled(graph, inputs, [TensorSpec(last, ("N", 2, 1), "float32")])
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, bottom]]])  # Their IoU is `bottom`.
    found = run(boxes, torch.tensor([[[0.9, 0.8]]]))
    assert (found[0, :, 0] > 0).tolist() == kept


@pytest.mark.parametrize("preprocess, mean, std", [("eval", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
                                                   ("hub", [0.5] * 3, [0.5] * 3)])  # fmt: skip
def test_normalization(preprocess, mean, std):
    graph = GraphWriter()
    detections.add_normalization(graph, "images", preprocess)
    shape = ("N", 3, 300, 300)
    run = compiled(graph, [TensorSpec("images", shape, "uint8")], [TensorSpec("normalized", shape, "float32")])
    images = torch.randint(0, 256, (2, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    expected = (images.numpy() / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert float(np.abs(run(images).numpy() - expected).max()) < 1e-6
