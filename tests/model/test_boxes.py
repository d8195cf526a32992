"""Default boxes against the formula and literal values; decoding against a slow, obvious reference; IoU."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssdtrt.model.boxes import box_iou, decode_boxes, default_boxes
from ssdtrt.runners.torchscript import quiet

quick = settings(deadline=None, max_examples=60, database=None)


# Default boxes


def slow_default_boxes():
    """(cx, cy, w, h) of every default box, in float64, written out from the description of SSD300."""
    sizes, steps, scales = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300), (21, 45, 99, 153, 207, 261, 315)
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    found = []
    for k in range(6):
        s, following = scales[k] / 300, scales[k + 1] / 300
        shapes = [(s, s), (math.sqrt(s * following), math.sqrt(s * following))]
        for a in ratios[k]:
            shapes.append((s * math.sqrt(a), s / math.sqrt(a)))
            shapes.append((s / math.sqrt(a), s * math.sqrt(a)))
        for width, height in shapes:
            for row in range(sizes[k]):
                for column in range(sizes[k]):
                    cell = 300 / steps[k]
                    box = ((column + 0.5) / cell, (row + 0.5) / cell, width, height)
                    found.append([min(max(value, 0.0), 1.0) for value in box])
    return found


def test_all_8732_default_boxes_follow_the_formula():
    found, expected = default_boxes(), slow_default_boxes()
    assert found.shape == (8732, 4) and len(expected) == 8732
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.tensor(expected, dtype=torch.float64).float())


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, (0.0133333, 0.0133333, 0.07, 0.07)),  # the first: 4 and 21 of 300 pixels
        (1, (0.04, 0.0133333, 0.07, 0.07)),  # a column further
        (38, (0.0133333, 0.04, 0.07, 0.07)),  # a row further
        (1443, (1.0, 1.0, 0.07, 0.07)),  # the last cell of the first shape
        (1444, (0.0133333, 0.0133333, 0.1024695, 0.1024695)),  # sqrt(21 * 45)
        (2888, (0.0133333, 0.0133333, 0.0989949, 0.0494975)),  # ratio 2
        (4332, (0.0133333, 0.0133333, 0.0494975, 0.0989949)),  # and its transpose
        (5775, (1.0, 1.0, 0.0494975, 0.0989949)),  # the last of 38 x 38
        (5776, (0.0266667, 0.0266667, 0.15, 0.15)),  # the first of 19 x 19
        (7220, (0.0266667, 0.0266667, 0.2598076, 0.0866025)),  # ratio 3
        (7941, (0.9866667, 0.9866667, 0.0866025, 0.2598076)),
        (7942, (0.0533333, 0.0533333, 0.33, 0.33)),  # 10 x 10
        (8541, (1.0, 1.0, 0.1905256, 0.5715768)),  # its center was 304 of 300
        (8542, (0.1066667, 0.1066667, 0.51, 0.51)),  # 5 x 5
        (8691, (0.96, 0.96, 0.2944486, 0.8833459)),
        (8692, (0.1666667, 0.1666667, 0.69, 0.69)),  # 3 x 3
        (8727, (0.8333333, 0.8333333, 0.4879037, 0.9758074)),
        (8728, (0.5, 0.5, 0.87, 0.87)),  # 1 x 1
        (8729, (0.5, 0.5, 0.9557719, 0.9557719)),
        (8730, (0.5, 0.5, 1.0, 0.6151829)),  # its width was 1.23
        (8731, (0.5, 0.5, 0.6151829, 1.0)),
    ],
)
def test_literal_default_boxes(index, expected):
    assert default_boxes()[index].tolist() == pytest.approx(expected, abs=5e-7)


def test_default_boxes_lie_in_0_to_1_and_are_new_each_time():
    found = default_boxes()
    assert float(found.min()) > 0 and float(found.max()) == 1.0
    found.zero_()
    assert float(default_boxes().max()) == 1.0


# Decoding


def slow_decode(loc, conf, defaults):
    """One picture with plain floats: loc [4][A], conf [C][A], defaults [A][4] -> boxes xyxy [A][4], scores [A][C]."""
    boxes, scores = [], []
    for a, (dx, dy, dw, dh) in enumerate(defaults):
        cx, cy = dx + 0.1 * loc[0][a] * dw, dy + 0.1 * loc[1][a] * dh
        width, height = dw * math.exp(0.2 * loc[2][a]), dh * math.exp(0.2 * loc[3][a])
        boxes.append([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
        powers = [math.exp(logits[a] - max(row[a] for row in conf)) for logits in conf]
        scores.append([power / sum(powers) for power in powers])
    return boxes, scores


def assert_decodes_as_slow_reference(loc, conf, defaults):
    given_values = [tensor.clone() for tensor in (loc, conf, defaults)]
    found_boxes, found_scores = decode_boxes(loc, conf, defaults)
    assert found_boxes.dtype == found_scores.dtype == torch.float32
    pictures, classes, anchors = conf.shape
    assert found_boxes.shape == (pictures, anchors, 4) and found_scores.shape == (pictures, anchors, classes)
    for i in range(pictures):
        expected = slow_decode(loc[i].double().tolist(), conf[i].double().tolist(), defaults.double().tolist())
        for found, wanted in zip((found_boxes[i], found_scores[i]), expected):
            wanted = torch.tensor(wanted).reshape(found.shape)
            torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)
    for tensor, before in zip((loc, conf, defaults), given_values):
        assert torch.equal(tensor, before)
    again = decode_boxes(loc, conf, defaults)
    assert torch.equal(again[0], found_boxes) and torch.equal(again[1], found_scores)


@quick
@given(st.data(), st.integers(1, 2), st.integers(1, 5), st.integers(1, 4))
def test_decode_as_the_slow_reference(data, pictures, anchors, classes):
    values = st.floats(-8, 8, width=32)
    loc = data.draw(hnp.arrays(np.float32, (pictures, 4, anchors), elements=values))
    conf = data.draw(hnp.arrays(np.float32, (pictures, classes, anchors), elements=values))
    defaults = data.draw(hnp.arrays(np.float32, (anchors, 4), elements=st.floats(0, 1, width=32)))
    assert_decodes_as_slow_reference(torch.from_numpy(loc), torch.from_numpy(conf), torch.from_numpy(defaults))


def outputs(pictures=2, classes=5, seed=0, spread=3.0):
    """Network outputs over the first default boxes, 30 of them."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(pictures, 4, 30, generator=generator)
    conf = spread * torch.randn(pictures, classes, 30, generator=generator)
    return loc, conf, default_boxes()[8500:8530]


def test_zero_offsets_give_the_default_boxes():
    boxes, scores = decode_boxes(torch.zeros(1, 4, 8732), torch.zeros(1, 2, 8732), default_boxes())
    assert boxes[0, 8728].tolist() == pytest.approx([0.065, 0.065, 0.935, 0.935], abs=1e-6)
    assert boxes[0, 0].tolist() == pytest.approx([-0.0216667, -0.0216667, 0.0483333, 0.0483333], abs=1e-6)  # no clip
    assert torch.equal(scores, torch.full((1, 8732, 2), 0.5))


def test_decode_literal():
    """A unit box moved by 0.1 * 2 to the right and 0.1 * 1 up, twice as wide and half as high."""
    log2 = math.log(2) / 0.2
    loc = torch.tensor([2.0, -1.0, log2, -log2]).reshape(1, 4, 1)
    conf = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1)
    boxes, scores = decode_boxes(loc, conf, torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    assert boxes[0, 0].tolist() == pytest.approx([-0.3, 0.15, 1.7, 0.65], abs=1e-6)
    assert scores[0, 0].tolist() == pytest.approx([0.25, 0.75], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_decode_computes_in_float32_whatever_comes(dtype):
    loc, conf, defaults = outputs()
    loc, conf = loc.to(dtype), conf.to(dtype)
    found, expected = decode_boxes(loc, conf, defaults), decode_boxes(loc.float(), conf.float(), defaults)
    for tensor, wanted in zip(found, expected):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, wanted)


def test_decode_of_non_contiguous_outputs():
    loc, conf, defaults = outputs()
    strided = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (loc, conf)]
    wide = torch.cat([defaults, defaults], dim=1)[:, :4]
    assert not any(tensor.is_contiguous() for tensor in (*strided, wide))
    assert_decodes_as_slow_reference(*strided, wide)


def test_decode_can_be_scripted():
    with quiet():
        scripted = torch.jit.script(decode_boxes)
    arguments = outputs()
    for found, expected in zip(scripted(*arguments), decode_boxes(*arguments)):
        assert torch.equal(found, expected)


# Intersection over union


def test_box_iou_literal():
    """A unit square, its left half, a square apart, and a point in the first; of two rows, which are kept apart."""
    row = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [2.0, 2.0, 3.0, 3.0], [0.5, 0.5, 0.5, 0.5]]
    found = box_iou(torch.tensor([row, row[::-1]]))
    expected = [[1.0, 0.5, 0.0, 0.0], [0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert found.tolist() == [expected, [line[::-1] for line in expected[::-1]]]
