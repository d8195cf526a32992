"""Default boxes against the formula and literal values; decoding and suppression against slow, obvious references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssdtrt.image import to_batch
from ssdtrt.model import boxes as boxes_module
from ssdtrt.model import decode, default_boxes, detect, suppress
from ssdtrt.torchscript import quiet

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
        (8541, (1.0, 1.0, 0.1905256, 0.5715768)),  # its centre was 304 of 300
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
    """One picture with plain floats: loc [4][A], conf [C][A], defaults [A][4] -> boxes ltrb [A][4], scores [A][C]."""
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
    found_boxes, found_scores = decode(loc, conf, defaults)
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
    again = decode(loc, conf, defaults)
    assert torch.equal(again[0], found_boxes) and torch.equal(again[1], found_scores)


@quick
@given(st.data(), st.integers(1, 2), st.integers(1, 5), st.integers(1, 4))
def test_decode_says_what_the_slow_reference_says(data, pictures, anchors, classes):
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
    boxes, scores = decode(torch.zeros(1, 4, 8732), torch.zeros(1, 2, 8732), default_boxes())
    assert boxes[0, 8728].tolist() == pytest.approx([0.065, 0.065, 0.935, 0.935], abs=1e-6)
    assert boxes[0, 0].tolist() == pytest.approx([-0.0216667, -0.0216667, 0.0483333, 0.0483333], abs=1e-6)  # no clip
    assert torch.equal(scores, torch.full((1, 8732, 2), 0.5))


def test_decode_literal():
    """A unit box moved by 0.1 * 2 to the right and 0.1 * 1 up, twice as wide and half as high."""
    log2 = math.log(2) / 0.2
    loc = torch.tensor([2.0, -1.0, log2, -log2]).reshape(1, 4, 1)
    conf = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1)
    boxes, scores = decode(loc, conf, torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    assert boxes[0, 0].tolist() == pytest.approx([-0.3, 0.15, 1.7, 0.65], abs=1e-6)
    assert scores[0, 0].tolist() == pytest.approx([0.25, 0.75], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_decode_computes_in_float32_whatever_comes(dtype):
    loc, conf, defaults = outputs()
    loc, conf = loc.to(dtype), conf.to(dtype)
    found, expected = decode(loc, conf, defaults), decode(loc.float(), conf.float(), defaults)
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
        scripted = torch.jit.script(decode)
    arguments = outputs()
    for found, expected in zip(scripted(*arguments), decode(*arguments)):
        assert torch.equal(found, expected)


# Suppression


def slow_iou(a, b):
    """Intersection over union in float32; boxes without area overlap nothing."""
    zero = np.float32(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else zero


def slow_suppress(boxes, scores, min_score=0.05, iou=0.5, max_per_class=200, max_detections=200):
    """One picture: boxes [A][4], scores [A][C], float32 -> [(box, label, score)]; equal scores in anchor order."""
    kept = []
    for label in range(1, scores.shape[1]):
        above = [a for a in range(len(boxes)) if scores[a][label] > np.float32(min_score)]
        best = sorted(above, key=lambda a: -scores[a][label])[:max_per_class]
        stay = []
        for a in best:
            if all(slow_iou(boxes[a], boxes[b]) < np.float32(iou) for b in stay):
                stay.append(a)
        kept += [(a, label) for a in stay]
    kept.sort(key=lambda pair: (-scores[pair[0]][pair[1]], pair))
    return [(boxes[a].tolist(), label, float(scores[a][label])) for a, label in kept[:max_detections]]


def as_lists(result):
    boxes, labels, scores = result
    assert boxes.shape == (len(labels), 4) and scores.shape == labels.shape and labels.dtype == torch.int64
    return list(zip(boxes.tolist(), labels.tolist(), scores.tolist()))


def assert_suppresses_as_slow_reference(boxes, scores, **options):
    before = boxes.clone(), scores.clone()
    results = suppress(boxes, scores, **options)
    assert len(results) == len(boxes)
    for i, result in enumerate(results):
        assert as_lists(result) == slow_suppress(boxes[i].numpy(), scores[i].numpy(), **options)
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])
    for result, again in zip(results, suppress(boxes, scores, **options)):
        assert all(torch.equal(tensor, other) for tensor, other in zip(result, again))
    return results


@st.composite
def candidates(draw, anchors=10):
    """Boxes on a grid of sixteenths, some without area, and scores in 32nds: every IoU and every tie is exact."""
    pictures, count, classes = draw(st.integers(1, 2)), draw(st.integers(1, anchors)), draw(st.integers(2, 4))
    corner = st.integers(0, 12)
    left_top = draw(hnp.arrays(np.int64, (pictures, count, 2), elements=corner))
    size = draw(hnp.arrays(np.int64, (pictures, count, 2), elements=st.integers(0, 4)))
    boxes = np.concatenate([left_top, left_top + size], axis=-1) / 16
    scores = draw(hnp.arrays(np.int64, (pictures, count, classes), elements=st.integers(0, 32))) / 32
    return torch.from_numpy(boxes).float(), torch.from_numpy(scores).float()


@quick
@given(candidates())
def test_suppress_says_what_the_slow_reference_says(given_candidates):
    assert_suppresses_as_slow_reference(*given_candidates)


@quick
@given(
    candidates(),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.integers(1, 4),
    st.integers(0, 6),
)
def test_suppress_with_other_limits(given_candidates, min_score, iou, max_per_class, max_detections):
    assert_suppresses_as_slow_reference(
        *given_candidates, min_score=min_score, iou=iou, max_per_class=max_per_class, max_detections=max_detections
    )


@quick
@given(candidates())
def test_what_stays_is_apart_and_what_falls_was_overlapped(given_candidates):
    """Two properties that define greedy suppression, with no reference at all."""
    boxes, scores = given_candidates
    for i, (kept_boxes, labels, kept_scores) in enumerate(suppress(boxes, scores)):
        assert kept_scores.tolist() == sorted(kept_scores.tolist(), reverse=True)
        for label in labels.unique().tolist():
            mine = kept_boxes[labels == label].numpy()
            assert all(slow_iou(a, b) < 0.5 for n, a in enumerate(mine) for b in mine[:n])
        for anchor, label in (scores[i, :, 1:] > 0.05).nonzero().tolist():
            score, box = float(scores[i, anchor, label + 1]), boxes[i, anchor]
            better = kept_boxes[(labels == label + 1) & (kept_scores >= score)]
            assert any(torch.equal(box, other) or slow_iou(box.numpy(), other.numpy()) >= 0.5 for other in better)


def clutter(pictures=2, anchors=400, classes=4, seed=0):
    """Many boxes about a few places, so that much is suppressed, in chains too."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(12, 2, generator=generator) * 0.8
    chosen = torch.randint(12, (pictures, anchors), generator=generator)
    centres = places[chosen] + 0.02 * torch.randn(pictures, anchors, 2, generator=generator)
    sizes = 0.1 + 0.15 * torch.rand(pictures, anchors, 2, generator=generator)
    scores = (3 * torch.randn(pictures, anchors, classes, generator=generator)).softmax(dim=-1)
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1), scores


def test_clutter_as_the_slow_reference():
    boxes, scores = clutter(anchors=250)
    results = assert_suppresses_as_slow_reference(boxes, scores)
    for i, (_, labels, _) in enumerate(results):
        assert 20 < len(labels) < int((scores[i, :, 1:] > 0.05).sum()) / 2  # Much fell, and much stayed.


def test_network_outputs_as_the_slow_reference(model, photographs):
    """The whole of A = 8732 and C = 81, on what the network says of a photograph."""
    with torch.no_grad():
        loc, conf = model(to_batch(photographs[:1]))
    boxes, scores = decode(loc, conf, default_boxes())
    ((kept_boxes, labels, kept_scores),) = suppress(boxes, scores)
    above = (scores[0, :, 1:] > 0.05).any(dim=1)  # The others can be neither kept nor overlap what is kept.
    expected = slow_suppress(boxes[0, above].numpy(), scores[0, above].numpy())
    assert as_lists((kept_boxes, labels, kept_scores)) == expected
    assert len(labels) > 10


def one_class(*rows):
    """(left, top, right, bottom, score) rows of one picture, one class -> boxes [1, A, 4], scores [1, A, 2]."""
    rows = torch.tensor(rows)
    return rows[None, :, :4], torch.stack([1 - rows[:, 4], rows[:, 4]], dim=-1)[None]


def test_pairwise_iou_literal():
    """A unit square, its left half, a square apart, and a point in the first; of two rows, which are kept apart."""
    row = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [2.0, 2.0, 3.0, 3.0], [0.5, 0.5, 0.5, 0.5]]
    found = boxes_module.pairwise_iou(torch.tensor([row, row[::-1]]))
    expected = [[1.0, 0.5, 0.0, 0.0], [0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert found.tolist() == [expected, [line[::-1] for line in expected[::-1]]]


def test_iou_of_exactly_one_half_is_suppressed():
    half = one_class((0.0, 0.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.5, 1.0, 0.8))  # 0.5 / 1
    third = one_class((0.0, 0.0, 1.0, 0.5, 0.9), (0.0, 0.0, 0.5, 1.0, 0.8))  # 0.25 / 0.75
    under = one_class((0.0, 0.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.4999, 1.0, 0.8))
    assert [len(suppress(*case)[0][1]) for case in (half, third, under)] == [1, 2, 2]
    assert suppress(*half)[0][2].tolist() == pytest.approx([0.9])


def test_a_box_that_fell_suppresses_nothing():
    """B falls to A; C overlaps only B, so C stays. D falls to C."""
    rows = [(left, 0.0, left + 4.0, 1.0, score) for left, score in ((0.0, 0.9), (1.0, 0.8), (2.0, 0.7), (3.0, 0.6))]
    boxes, labels, scores = suppress(*one_class(*rows))[0]
    assert boxes[:, 0].tolist() == [0.0, 2.0]
    assert scores.tolist() == pytest.approx([0.9, 0.7])


def test_a_chain_of_two_hundred_settles():
    """Each box overlaps the next alone: every second one stays, however many passes that takes."""
    rows = [(0.25 * n, 0.0, 0.25 * n + 0.75, 1.0, 0.99 - 0.004 * n) for n in range(200)]  # IoU 0.5 / 1 with the next
    boxes, _, _ = suppress(*one_class(*rows))[0]
    assert boxes[:, 0].tolist() == [0.5 * n for n in range(100)]


def test_a_score_of_exactly_the_least_is_out():
    rows = [(0.0, 0.0, 0.5, 0.5, 0.05), (0.5, 0.5, 1.0, 1.0, 0.0501)]
    assert suppress(*one_class(*rows))[0][2].tolist() == pytest.approx([0.0501])


def test_classes_and_pictures_do_not_suppress_each_other():
    boxes = torch.tensor([0.1, 0.1, 0.6, 0.6]).repeat(2, 3, 1)  # the same box everywhere
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.3, 0.5], [0.9, 0.06, 0.04]]).repeat(2, 1, 1)
    for found_boxes, labels, found_scores in suppress(boxes, scores):
        assert labels.tolist() == [1, 2]
        assert found_scores.tolist() == [0.5, 0.5]
        assert torch.equal(found_boxes, boxes[0, :2])


def test_the_background_is_never_detected():
    boxes, scores = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), torch.tensor([[[0.99, 0.01, 0.0]]])
    assert as_lists(suppress(boxes, scores)[0]) == []


@pytest.mark.parametrize(("pictures", "anchors", "classes"), [(1, 5, 3), (3, 5, 3), (2, 0, 3), (2, 5, 1)])
def test_nothing_above_the_least_score_gives_empty_results(pictures, anchors, classes):
    results = suppress(torch.rand(pictures, anchors, 4), torch.zeros(pictures, anchors, classes))
    assert len(results) == pictures
    for boxes, labels, scores in results:
        assert boxes.shape == (0, 4) and labels.shape == (0,) and scores.shape == (0,)
        assert (boxes.dtype, labels.dtype, scores.dtype) == (torch.float32, torch.int64, torch.float32)


def test_an_empty_picture_among_full_ones():
    boxes, scores = clutter(pictures=3, anchors=30)
    scores[1] = 0
    counts = [len(labels) for _, labels, _ in assert_suppresses_as_slow_reference(boxes, scores)]
    assert counts[0] > 0 and counts[1] == 0 and counts[2] > 0


def test_boxes_without_area_stay_and_suppress_nothing():
    point, line = (0.5, 0.5, 0.5, 0.5), (0.2, 0.5, 0.8, 0.5)
    rows = [(*point, 0.9), (*point, 0.8), (*line, 0.7), (*line, 0.6), (0.0, 0.0, 1.0, 1.0, 0.5)]
    boxes, _, scores = assert_suppresses_as_slow_reference(*one_class(*rows))[0]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert boxes.isfinite().all()


def test_equal_scores_keep_the_earlier_anchor():
    rows = [(0.5, 0.5, 0.9, 0.9, 0.5), (0.0, 0.0, 0.4, 0.4, 0.5), (0.0, 0.0, 0.4, 0.39, 0.5)]
    boxes, _, _ = suppress(*one_class(*rows))[0]
    assert boxes.tolist() == [pytest.approx(row[:4]) for row in rows[:2]]


def test_only_the_best_200_of_a_class_are_looked_at():
    """300 boxes that do not overlap: the best 200 of the class stay, and another class loses nothing by it."""
    boxes = torch.tensor([[n / 300, 0.0, (n + 0.5) / 300, 1.0] for n in range(300)])[None]
    many = torch.linspace(0.9, 0.3, 300)[torch.randperm(300, generator=torch.Generator().manual_seed(3))]
    few = torch.where(torch.arange(300) < 7, 0.08, 0.0)
    scores = torch.stack([torch.zeros(300), many, few], dim=-1)[None]
    ((_, labels, kept_scores),) = assert_suppresses_as_slow_reference(boxes, scores, max_detections=1000)
    assert (int((labels == 1).sum()), int((labels == 2).sum())) == (200, 7)
    assert torch.equal(kept_scores[:200], many.sort(descending=True).values[:200])
    ((_, labels, _),) = suppress(boxes, scores)
    assert (int((labels == 1).sum()), int((labels == 2).sum())) == (200, 0)  # 200 in all by default


def test_the_200_are_the_best_before_suppression():
    """The best 200 are one box over and over; the 201st, elsewhere, was never looked at."""
    boxes = torch.tensor([0.0, 0.0, 0.5, 0.5]).repeat(1, 201, 1)
    boxes[0, 200] = torch.tensor([0.6, 0.6, 0.9, 0.9])
    score = torch.full((201,), 0.8)
    score[200] = 0.7
    assert len(suppress(boxes, torch.stack([1 - score, score], dim=-1)[None])[0][1]) == 1
    assert len(suppress(boxes, torch.stack([1 - score, score], dim=-1)[None], max_per_class=201)[0][1]) == 2


@pytest.mark.parametrize("most", [0, 1, 7, 100_000])
def test_max_detections_keeps_the_best_of_all_classes(most):
    boxes, scores = clutter(anchors=60)
    everything = suppress(boxes, scores, max_detections=100_000)
    for result, whole in zip(suppress(boxes, scores, max_detections=most), everything):
        assert len(result[1]) == min(most, len(whole[1]))
        assert all(torch.equal(tensor, part[:most]) for tensor, part in zip(result, whole))
        assert len(whole[1].unique()) == 3


@pytest.mark.parametrize("pairs", [1, 50_000])
def test_groups_in_small_parts_give_the_same(pairs, monkeypatch):
    """With MAX_PAIRS small the groups are compared one, or a few, at a time."""
    boxes, scores = clutter(pictures=2, anchors=300, classes=6)
    expected = suppress(boxes, scores)
    calls, greedy = [], boxes_module.greedy
    monkeypatch.setattr(boxes_module, "MAX_PAIRS", pairs)
    monkeypatch.setattr(boxes_module, "greedy", lambda *arguments: calls.append(1) or greedy(*arguments))
    found = suppress(boxes, scores)
    assert len(calls) == 10 if pairs == 1 else 1 < len(calls) < 10  # 2 pictures of 5 classes
    for result, wanted in zip(found, expected):
        assert len(result[1]) > 0
        assert all(torch.equal(tensor, other) for tensor, other in zip(result, wanted))


def test_non_contiguous_input():
    boxes, scores = clutter(anchors=60)
    strided_boxes = torch.cat([boxes, boxes], dim=-1)[..., :4]
    strided_scores = scores.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided_boxes.is_contiguous() and not strided_scores.is_contiguous()
    assert_suppresses_as_slow_reference(strided_boxes, strided_scores)


def test_half_input_keeps_its_type():
    rows = [(0.0, 0.0, 0.5, 0.5, 0.75), (0.0, 0.0, 0.5, 0.25, 0.5), (0.5, 0.5, 1.0, 1.0, 0.25)]
    boxes, scores = one_class(*rows)
    ((found_boxes, labels, found_scores),) = suppress(boxes.half(), scores.half())
    assert found_boxes.dtype == found_scores.dtype == torch.float16
    assert found_boxes.tolist() == [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]
    assert labels.tolist() == [1, 1] and found_scores.tolist() == [0.75, 0.25]


# Both together


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_detect_is_decode_then_suppress(dtype):
    loc, conf, defaults = outputs(pictures=2, classes=4, seed=7)
    loc, conf = loc.to(dtype), conf.to(dtype)
    before = loc.clone(), conf.clone(), defaults.clone()
    boxes, scores = decode(loc.float(), conf.float(), defaults)
    for i, result in enumerate(detect(loc, conf, defaults, max_detections=9)):
        found = as_lists(result)
        assert found == slow_suppress(boxes[i].numpy(), scores[i].numpy(), max_detections=9)
        assert len(found) == 9
    assert all(torch.equal(tensor, other) for tensor, other in zip((loc, conf, defaults), before))
