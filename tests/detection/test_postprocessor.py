"""From outputs to packed detections on the CPU: the same as the exact way, whatever the candidates."""

import pytest
import torch

from ssdtrt.detection import postprocessor as module
from ssdtrt.detection.postprocessor import Pending, Postprocessor, to_host
from ssdtrt.model.boxes import decode_boxes, default_boxes
from ssdtrt.model.nms import detect_exact

CPU = torch.device("cpu")


def outputs(count, spread, background, seed=0):
    """Seeded loc and conf; the more spread and the less background, the more candidates."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(count, 4, 8732, generator=generator)
    conf = spread * torch.randn(count, 81, 8732, generator=generator)
    conf[:, 0] += background
    return loc, conf


@pytest.fixture
def settled_again(monkeypatch):
    """How many pictures were given to `detect_incomplete` each time."""
    seen = []
    detect_incomplete = module.detect_incomplete

    def watched(packed, *rest):
        seen.append(int((packed[:, -1, 1] == 0).sum()))
        return detect_incomplete(packed, *rest)

    monkeypatch.setattr(module, "detect_incomplete", watched)
    return seen


@pytest.mark.parametrize("spread, background", [(1.0, 9.0), (1.5, 6.0), (2.0, 9.0), (0.1, 20.0)])
def test_it_says_what_the_exact_way_says(spread, background):
    loc, conf = outputs(2, spread, background)
    packed = Postprocessor(CPU)(loc, conf)
    exact = detect_exact(loc, conf, default_boxes())
    assert packed.shape == (2, 201, 6) and packed[:, -1].tolist() == exact[:, -1].tolist()
    torch.testing.assert_close(packed, exact, rtol=0, atol=1e-5)


def test_the_cases_are_what_they_should_be():
    """Among them are pictures without detections, with some, and with the most there can be."""
    counts = [Postprocessor(CPU)(*outputs(1, *case))[0, -1, 0].item() for case in ((0.1, 20.0), (1.0, 9.0), (2.0, 9.0))]
    assert counts[0] == 0 and 0 <= counts[1] <= 200 and counts[2] == 200


def test_a_picture_that_is_not_settled_is_done_again_and_the_others_are_not(settled_again):
    """In the second all anchors of one class have equal boxes, so that few of the many candidates stay."""
    loc, conf = outputs(3, 0.1, 20.0)
    defaults = default_boxes()
    conf[0, 5, 100] = conf[2, 7, 100] = 30.0
    # Every box of the 38 x 38 map becomes the same: 5776 overlapping candidates, of which one stays.
    loc[1, :, :5776] = 0
    target = torch.tensor([0.5, 0.5, 0.2, 0.2])
    loc[1, :2, :5776] = ((target[:2] - defaults[:5776, :2]) / defaults[:5776, 2:] / 0.1).T
    loc[1, 2:, :5776] = ((target[2:] / defaults[:5776, 2:]).log() / 0.2).T
    conf[1, 3, :5776] = 25.0 + torch.rand(5776, generator=torch.Generator().manual_seed(1))
    before = loc.clone(), conf.clone()
    packed = Postprocessor(CPU)(loc, conf)
    assert settled_again == [1]
    assert packed[:, -1, 0].tolist() == [1, 1, 1] and packed[:, 0, 4].tolist() == [5, 3, 7]
    assert (packed[:, -1, 1] == 1).all()
    torch.testing.assert_close(packed, detect_exact(loc, conf, defaults), rtol=0, atol=1e-5)
    assert packed[1, 0, :4].tolist() == pytest.approx([0.4, 0.4, 0.6, 0.6], abs=1e-4)
    assert torch.equal(loc, before[0]) and torch.equal(conf, before[1])


def test_one_picture_with_too_many_candidates_is_done_with_the_best_of_them(settled_again, monkeypatch):
    """As a batch is, but by steps that a graph can hold; where that is not enough, by the exact way."""
    loc, conf = outputs(1, 1.5, 6.0)
    exact = detect_exact(loc, conf, default_boxes())
    calls, plain = [], module.detect_exact
    monkeypatch.setattr(module, "detect_exact", lambda *given: calls.append(1) or plain(*given))
    decoder = Postprocessor(CPU)
    torch.testing.assert_close(decoder(loc, conf), exact, rtol=0, atol=1e-5)
    assert calls == settled_again == []
    monkeypatch.setattr(decoder, "steps_of_best", lambda *given: torch.zeros_like(exact))
    assert torch.equal(decoder(loc, conf), exact) and calls == [1]


def test_what_is_settled_is_not_done_again(settled_again):
    Postprocessor(CPU)(*outputs(1, 0.1, 20.0))
    assert settled_again == []


@pytest.mark.parametrize("most", [1, 10, 200])
def test_max_detections_are_the_best(most):
    loc, conf = outputs(1, 2.0, 9.0)
    packed = Postprocessor(CPU, most)(loc, conf)
    every = Postprocessor(CPU)(loc, conf)
    assert packed.shape == (1, most + 1, 6) and packed[0, -1, 0] == most
    assert torch.equal(packed[0, :most], every[0, :most])
    scores = packed[0, :most, 5]
    assert torch.equal(scores, scores.sort(descending=True).values)


@pytest.mark.parametrize("iou", [0.2, 0.8])
@pytest.mark.parametrize("pictures, spread, background", [(1, 1.5, 6.0), (1, 2.0, 9.0), (2, 1.5, 6.0)])
def test_another_iou_is_that_of_torchvision(iou, pictures, spread, background, monkeypatch):
    """All ways, down to the exact one, against torchvision's own NMS of each class."""
    from torchvision.ops import batched_nms

    loc, conf = outputs(pictures, spread, background)
    boxes, scores = decode_boxes(loc, conf, default_boxes())
    decoder = Postprocessor(CPU, 200, iou)
    ways = [decoder(loc, conf), decoder._complete(decoder.steps(loc, conf)[2], loc, conf)]
    monkeypatch.setattr(decoder, "steps_of_best", lambda *_: torch.zeros(1, 201, 6))
    ways.append(decoder._complete(decoder.steps(loc, conf)[2], loc, conf))
    for place in range(pictures):
        anchor, label = torch.where(scores[place, :, 1:] > 0.05)
        score = scores[place][anchor, label + 1]
        best = torch.cat([own[score[own].argsort(descending=True)[:200]] for own in
                          (torch.where(label == number)[0] for number in range(80))])  # fmt: skip
        anchor, label, score = anchor[best], label[best], score[best]
        kept = batched_nms(boxes[place, anchor], score, label, iou)[:200]
        for packed in ways:
            count = int(packed[place, -1, 0])
            assert count == len(kept)
            torch.testing.assert_close(packed[place, :count, 5], score[kept], rtol=0, atol=1e-5)


def test_start_then_wait():
    loc, conf = outputs(1, 1.5, 6.0)
    decoder = Postprocessor(CPU)
    finish = decoder.start(loc, conf)
    assert torch.equal(finish(), decoder(loc, conf))
    assert decoder.steps == decoder.detect  # Nothing is captured without a GPU.


def test_a_pending_result_is_waited_for_once_and_kept():
    calls = []
    pending = Pending(lambda: calls.append(1) or torch.ones(2))
    pending.wait()
    assert calls == [1] and torch.equal(pending.result(), torch.ones(2))
    assert pending.result() is pending.result() and calls == [1]


def test_the_error_of_a_pending_result_is_for_who_asks_for_it():
    def fail():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    pending = Pending(fail)
    pending.wait()
    for _ in range(2):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            pending.result()


def test_an_interrupt_while_a_result_is_waited_for_loses_nothing():
    errors = [KeyboardInterrupt()]

    def finish():
        if errors:
            raise errors.pop()
        return torch.ones(2)

    pending = Pending(finish)
    with pytest.raises(KeyboardInterrupt):
        pending.wait()
    assert torch.equal(pending.result(), torch.ones(2))


def test_outputs_with_gradients_give_none():
    loc, conf = outputs(1, 1.5, 6.0)
    assert not Postprocessor(CPU)(loc.requires_grad_(), conf.requires_grad_()).requires_grad


def test_a_tensor_on_the_host_is_itself():
    tensor = torch.arange(3)
    assert to_host(tensor)() is tensor
