"""The judge with networks in the place of engines: what it measures, and what it refuses."""

import pytest
import torch
from coco_files import IDS, write_annotations

from ssdtrt import config
from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.errors import CalibrationError
from ssdtrt.evaluation.annotations import read_annotations
from ssdtrt.images.tensors import synthetic_pictures
from ssdtrt.quantization.agreement import CONFIDENT
from ssdtrt.quantization.judge import Judge
from ssdtrt.quantization.pictures import AnnotatedPictures

LAYERS = (
    EngineLayer("a", "conv", "int8", 300),
    EngineLayer("b", "conv", "fp16", 100),
    EngineLayer("c", "copy", "int8"),
)
SAID = {"calibrator": "max", "calibration_pictures": 5}


@pytest.fixture(scope="module")
def judge(model):
    return Judge(model, synthetic_pictures(2, seed=5), "eval", 2)


def test_fp32_itself_agrees_and_its_layers_and_times_are_told(judge, model):
    calls = []

    def counted(images):
        calls.append(len(images))
        return model(images)

    found = judge.verdict(model, counted, LAYERS, costs=[], **SAID)
    assert (found.int8_layers, found.int8_share, found.batch_size) == (1, 0.75, 2)
    assert found.agreement.match_rate == 1.0 and found.agreement.score_change < 1e-6 and found.agreement.pictures == 2
    assert found.int8_ms > 0 and found.fp16_ms > 0 and found.ap is None and calls == [2, 2, 2]
    assert found.accuracy_failure is None and judge.agrees(model, "checking")


@pytest.mark.parametrize("layers", [(), LAYERS[1:]])
def test_no_convolution_in_int8_is_refused(judge, model, layers):
    found = judge.verdict(model, model, layers, **SAID)
    assert (found.int8_layers, found.int8_share) == (0, 0.0)
    assert found.failure == "TensorRT built no layer in INT8. Build in FP16: --fp16."


def test_a_larger_batch_than_there_are_pictures_is_timed_with_the_same_ones(model):
    sizes = []

    def network(images):
        sizes.append(len(images))
        return model(images)

    Judge(model, synthetic_pictures(2, seed=5), "eval", 3).verdict(network, network, LAYERS, **SAID)
    assert sizes == [2] + [3] * 6


def shifted(model):
    """The network with boxes that are half a box too far right."""

    def network(images):
        loc, conf = model(images)
        return torch.cat([loc[:, :1] + 5, loc[:, 1:]], 1), conf

    return network


def test_boxes_elsewhere_do_not_agree(judge, model):
    assert not judge.agrees(shifted(model), "checking")
    found = judge.verdict(shifted(model), model, LAYERS, **SAID)
    assert found.agreement.match_rate < 0.5 and found.failure.startswith("The INT8 engine is not accurate enough: 0.")


@pytest.fixture
def annotated(judge, tmp_path):
    """What FP32 finds in its pictures, as their truth."""
    names, objects = {1: "a", 2: "b"}, []
    for number, (boxes, labels, scores) in zip(names, judge.reference):
        for (left, top, right, bottom), label in zip(boxes[scores >= 0.3].tolist(), labels[scores >= 0.3].tolist()):
            objects.append((number, IDS[label - 1], [100 * v for v in (left, top, right - left, bottom - top)]))
    annotations = read_annotations(write_annotations(tmp_path / "a.json", names, objects))
    sizes, digests = ((100, 100),) * 2, ("1" * 64, "2" * 64)
    return AnnotatedPictures(annotations, (1, 2), judge.pictures, sizes, digests, config.COCO_LABELS)


@pytest.mark.parametrize("needed, decided", [(2, True), (3, False)])
def test_the_ap_is_beside_fp32s_and_decides_where_the_pictures_are_enough(
    judge, model, annotated, monkeypatch, needed, decided
):
    monkeypatch.setattr(config, "MIN_AP_PICTURES", needed)
    with_truth = Judge(model, judge.pictures, "eval", 2, annotated, 0.9)
    assert with_truth.fp32_ap > 0.7
    same, other = (with_truth.verdict(one, model, LAYERS, **SAID) for one in (model, shifted(model)))
    assert same.ap.ratio == pytest.approx(1.0, abs=0.01) and (same.ap.decided, same.accuracy_failure) == (decided, None)
    assert other.ap.ratio < 0.5 and other.ap.minimum == 0.9
    refused = f"its AP is {other.ap.int8:.4f}, " if decided else f"{other.agreement.match_rate:.3f} of the detections"
    assert other.accuracy_failure.startswith(refused)
    assert with_truth.agrees(model, "checking") and not with_truth.agrees(shifted(model), "checking")
    with_truth.fp32_ap *= 2  # The detections agree, and the AP is half of FP32's.
    assert with_truth.agrees(model, "checking") is not decided


def test_pictures_in_which_a_trained_network_sees_nothing_are_refused(model):
    """Something in one of eleven pictures is not enough, in one of ten it is; random weights see what they like."""

    def seeing(count, pictures, trained=True):
        """The model, whose background is surer in all but the first pictures."""

        class Blind(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model, self.seen = model, 0

            def forward(self, images):
                loc, conf = self.model(images)
                for number in range(len(images)):
                    if self.seen >= count:
                        conf[number, 0] += 50
                    self.seen += 1
                return loc, conf

        return Judge(Blind(), pictures, "eval", 4, trained=trained)

    pictures = synthetic_pictures(11, seed=5)
    with pytest.raises(CalibrationError) as caught:
        seeing(1, pictures)
    assert str(caught.value) == (
        "FP32 detects something in 1 of 11 pictures; calibrate on pictures like those that the network was trained for, "
        "with objects in a tenth of them at least."
    )
    assert sum(bool((scores >= CONFIDENT).any()) for _, _, scores in seeing(1, pictures[:10]).reference) == 1
    assert not any((scores >= CONFIDENT).any() for _, _, scores in seeing(0, pictures[:2], trained=False).reference)
