"""Non-maximum suppression against slow, obvious references; the fixed way against the exact one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssdtrt import config
from ssdtrt.images.tensors import to_batch
from ssdtrt.model import nms as module
from ssdtrt.model.boxes import decode_boxes, default_boxes
from ssdtrt.model.nms import (
    _all_candidates,
    _first_true,
    detect,
    detect_batch,
    detect_exact,
    detect_fixed,
    nms,
)
from ssdtrt.runners.torchscript import quiet

quick = settings(deadline=None, max_examples=60, database=None)


def heads(pictures=2, anchors=400, classes=6, *, background=2.0, spread=2.0, seed=0):
    """loc [N, 4, A], conf [N, C, A] and default boxes [A, 4] crowded about a few places, so that many are suppressed."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(9, 2, generator=generator)
    centers = places[torch.randint(9, (anchors,), generator=generator)]
    centers = (centers + 0.03 * torch.randn(anchors, 2, generator=generator)).clamp(0, 1)
    sizes = 0.08 + 0.2 * torch.rand(anchors, 2, generator=generator)
    conf = spread * torch.randn(pictures, classes, anchors, generator=generator)
    conf[:, 0] += background
    return torch.randn(pictures, 4, anchors, generator=generator), conf, torch.cat([centers, sizes], dim=1)


def slow_detect(loc, conf, defaults, max_detections=200):
    """The reference definition on one picture with numpy in float32: [(box, label, score)], best first."""
    loc, conf, defaults = (part.numpy().astype(np.float32) for part in (loc, conf, defaults))
    powers = np.exp(conf - conf.max(axis=0))
    scores = (powers / powers.sum(axis=0)).T  # [A, C]
    center = defaults[:, :2] + np.float32(0.1) * loc[:2].T * defaults[:, 2:]
    half = defaults[:, 2:] * np.exp(np.float32(0.2) * loc[2:].T) / 2
    above = (scores[:, 1:] > 0.05).any(axis=1)
    return slow_nms(
        np.concatenate([center - half, center + half], axis=1)[above], scores[above], max_detections=max_detections
    )


def assert_same_detections(found, expected):
    """The same classes and boxes in the same order, up to those whose scores are equal to 1e-6."""
    boxes, labels, scores = (part.tolist() for part in found)
    assert len(scores) == len(expected)
    np.testing.assert_allclose(scores, [score for _, _, score in expected], rtol=0, atol=1e-6)
    rest = list(zip(boxes, labels, scores))
    for box, label, score in expected:
        near = [n for n, other in enumerate(rest[:8]) if other[1] == label and abs(other[2] - score) <= 2e-6]
        match = [n for n in near if np.allclose(rest[n][0], box, rtol=0, atol=1e-6)]
        assert match, (box, label, score)
        assert abs(rest[match[0]][2] - rest[0][2]) <= 2e-6
        del rest[match[0]]


# The exact way


def slow_iou(a, b):
    """Intersection over union in float32; boxes without area overlap nothing."""
    zero = np.float32(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else zero


def slow_nms(boxes, scores, min_score=0.05, iou=0.5, max_per_class=200, max_detections=200):
    """One picture: boxes [A][4], scores [A][C], float32 -> [(box, label, score)]; equal scores in anchor order."""
    kept = []
    for label in range(1, scores.shape[1]):
        above = [a for a in range(len(boxes)) if scores[a][label] > np.float32(min_score)]
        best = sorted(above, key=lambda a: -scores[a][label])[:max_per_class]
        keep = []
        for a in best:
            if all(slow_iou(boxes[a], boxes[b]) < np.float32(iou) for b in keep):
                keep.append(a)
        kept += [(a, label) for a in keep]
    kept.sort(key=lambda pair: (-scores[pair[0]][pair[1]], pair))
    return [(boxes[a].tolist(), label, float(scores[a][label])) for a, label in kept[:max_detections]]


def as_lists(result):
    boxes, labels, scores = result
    assert boxes.shape == (len(labels), 4) and scores.shape == labels.shape and labels.dtype == torch.int64
    return list(zip(boxes.tolist(), labels.tolist(), scores.tolist()))


def assert_nms_as_slow_reference(boxes, scores, **options):
    before = boxes.clone(), scores.clone()
    results = nms(boxes, scores, **options)
    assert len(results) == len(boxes)
    for i, result in enumerate(results):
        assert as_lists(result) == slow_nms(boxes[i].numpy(), scores[i].numpy(), **options)
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])
    for result, again in zip(results, nms(boxes, scores, **options)):
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
def test_nms_as_the_slow_reference(given_candidates):
    assert_nms_as_slow_reference(*given_candidates)


@quick
@given(
    candidates(),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.integers(1, 4),
    st.integers(0, 6),
)
def test_nms_with_other_limits(given_candidates, min_score, iou, max_per_class, max_detections):
    assert_nms_as_slow_reference(
        *given_candidates, min_score=min_score, iou=iou, max_per_class=max_per_class, max_detections=max_detections
    )


@quick
@given(candidates())
def test_what_is_kept_is_apart_and_what_is_removed_was_overlapped(given_candidates):
    """Two properties that define greedy suppression, with no reference at all."""
    boxes, scores = given_candidates
    for i, (kept_boxes, labels, kept_scores) in enumerate(nms(boxes, scores)):
        assert kept_scores.tolist() == sorted(kept_scores.tolist(), reverse=True)
        for label in labels.unique().tolist():
            mine = kept_boxes[labels == label].numpy()
            assert all(slow_iou(a, b) < 0.5 for n, a in enumerate(mine) for b in mine[:n])
        for anchor, label in (scores[i, :, 1:] > 0.05).nonzero().tolist():
            score, box = float(scores[i, anchor, label + 1]), boxes[i, anchor]
            better = kept_boxes[(labels == label + 1) & (kept_scores >= score)]
            assert any(torch.equal(box, other) or slow_iou(box.numpy(), other.numpy()) >= 0.5 for other in better)


def clutter(pictures=2, anchors=400, classes=4, seed=0):
    """Many boxes about a few places, so that many are suppressed, in chains too."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(12, 2, generator=generator) * 0.8
    chosen = torch.randint(12, (pictures, anchors), generator=generator)
    centers = places[chosen] + 0.02 * torch.randn(pictures, anchors, 2, generator=generator)
    sizes = 0.1 + 0.15 * torch.rand(pictures, anchors, 2, generator=generator)
    scores = (3 * torch.randn(pictures, anchors, classes, generator=generator)).softmax(dim=-1)
    return torch.cat([centers - sizes / 2, centers + sizes / 2], dim=-1), scores


def test_clutter_as_the_slow_reference():
    boxes, scores = clutter(anchors=250)
    results = assert_nms_as_slow_reference(boxes, scores)
    for i, (_, labels, _) in enumerate(results):
        assert 20 < len(labels) < int((scores[i, :, 1:] > 0.05).sum()) / 2  # Many are removed, and many are kept.


def test_network_outputs_as_the_slow_reference(model, photographs):
    """The whole of A = 8732 and C = 81, on the network's outputs for a photograph."""
    with torch.no_grad():
        loc, conf = model(to_batch(photographs[1:2]))
    boxes, scores = decode_boxes(loc, conf, default_boxes())
    ((kept_boxes, labels, kept_scores),) = nms(boxes, scores)
    above = (scores[0, :, 1:] > 0.05).any(dim=1)  # The others can be neither kept nor overlap what is kept.
    expected = slow_nms(boxes[0, above].numpy(), scores[0, above].numpy())
    assert as_lists((kept_boxes, labels, kept_scores)) == expected
    assert len(labels) > 10


def one_class(*rows):
    """(left, top, right, bottom, score) rows of one picture, one class -> boxes [1, A, 4], scores [1, A, 2]."""
    rows = torch.tensor(rows)
    return rows[None, :, :4], torch.stack([1 - rows[:, 4], rows[:, 4]], dim=-1)[None]


def test_iou_of_exactly_one_half_is_suppressed():
    half = one_class((0.0, 0.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.5, 1.0, 0.8))  # 0.5 / 1
    third = one_class((0.0, 0.0, 1.0, 0.5, 0.9), (0.0, 0.0, 0.5, 1.0, 0.8))  # 0.25 / 0.75
    under = one_class((0.0, 0.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.4999, 1.0, 0.8))
    assert [len(nms(*case)[0][1]) for case in (half, third, under)] == [1, 2, 2]
    assert nms(*half)[0][2].tolist() == pytest.approx([0.9])


def test_a_removed_box_suppresses_nothing():
    """A removes B; C overlaps only B, so it is kept. C removes D."""
    rows = [(left, 0.0, left + 4.0, 1.0, score) for left, score in ((0.0, 0.9), (1.0, 0.8), (2.0, 0.7), (3.0, 0.6))]
    boxes, _, scores = nms(*one_class(*rows))[0]
    assert boxes[:, 0].tolist() == [0.0, 2.0]
    assert scores.tolist() == pytest.approx([0.9, 0.7])


def test_a_chain_of_two_hundred():
    """Each box overlaps the next alone: every second one is kept, however many passes that takes."""
    rows = [(0.25 * n, 0.0, 0.25 * n + 0.75, 1.0, 0.99 - 0.004 * n) for n in range(200)]  # IoU 0.5 / 1 with the next
    boxes, _, _ = nms(*one_class(*rows))[0]
    assert boxes[:, 0].tolist() == [0.5 * n for n in range(100)]


def test_a_score_of_exactly_the_least_is_out():
    rows = [(0.0, 0.0, 0.5, 0.5, 0.05), (0.5, 0.5, 1.0, 1.0, 0.0501)]
    assert nms(*one_class(*rows))[0][2].tolist() == pytest.approx([0.0501])


def test_classes_and_pictures_do_not_suppress_each_other():
    boxes = torch.tensor([0.1, 0.1, 0.6, 0.6]).repeat(2, 3, 1)  # the same box everywhere
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.3, 0.5], [0.9, 0.06, 0.04]]).repeat(2, 1, 1)
    for found_boxes, labels, found_scores in nms(boxes, scores):
        assert labels.tolist() == [1, 2]
        assert found_scores.tolist() == [0.5, 0.5]
        assert torch.equal(found_boxes, boxes[0, :2])


def test_the_background_is_never_detected():
    boxes, scores = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), torch.tensor([[[0.99, 0.01, 0.0]]])
    assert as_lists(nms(boxes, scores)[0]) == []


@pytest.mark.parametrize(("pictures", "anchors", "classes"), [(1, 5, 3), (3, 5, 3), (2, 0, 3), (2, 5, 1)])
def test_nothing_above_the_least_score_gives_empty_results(pictures, anchors, classes):
    results = nms(torch.rand(pictures, anchors, 4), torch.zeros(pictures, anchors, classes))
    assert len(results) == pictures
    for boxes, labels, scores in results:
        assert boxes.shape == (0, 4) and labels.shape == (0,) and scores.shape == (0,)
        assert (boxes.dtype, labels.dtype, scores.dtype) == (torch.float32, torch.int64, torch.float32)


def test_an_empty_picture_among_full_ones():
    boxes, scores = clutter(pictures=3, anchors=30)
    scores[1] = 0
    counts = [len(labels) for _, labels, _ in assert_nms_as_slow_reference(boxes, scores)]
    assert counts[0] > 0 and counts[1] == 0 and counts[2] > 0


def test_boxes_without_area_are_kept_and_suppress_nothing():
    point, line = (0.5, 0.5, 0.5, 0.5), (0.2, 0.5, 0.8, 0.5)
    rows = [(*point, 0.9), (*point, 0.8), (*line, 0.7), (*line, 0.6), (0.0, 0.0, 1.0, 1.0, 0.5)]
    boxes, _, scores = assert_nms_as_slow_reference(*one_class(*rows))[0]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert boxes.isfinite().all()


def test_equal_scores_keep_the_earlier_anchor():
    rows = [(0.5, 0.5, 0.9, 0.9, 0.5), (0.0, 0.0, 0.4, 0.4, 0.5), (0.0, 0.0, 0.4, 0.39, 0.5)]
    boxes, _, _ = nms(*one_class(*rows))[0]
    assert boxes.tolist() == [pytest.approx(row[:4]) for row in rows[:2]]


def test_only_the_best_200_of_a_class_are_looked_at():
    """300 boxes that do not overlap: the best 200 of the class are kept, and another class loses nothing by it."""
    boxes = torch.tensor([[n / 300, 0.0, (n + 0.5) / 300, 1.0] for n in range(300)])[None]
    many = torch.linspace(0.9, 0.3, 300)[torch.randperm(300, generator=torch.Generator().manual_seed(3))]
    few = torch.where(torch.arange(300) < 7, 0.08, 0.0)
    scores = torch.stack([torch.zeros(300), many, few], dim=-1)[None]
    ((_, labels, kept_scores),) = assert_nms_as_slow_reference(boxes, scores, max_detections=1000)
    assert (int((labels == 1).sum()), int((labels == 2).sum())) == (200, 7)
    assert torch.equal(kept_scores[:200], many.sort(descending=True).values[:200])
    ((_, labels, _),) = nms(boxes, scores)
    assert (int((labels == 1).sum()), int((labels == 2).sum())) == (200, 0)  # 200 in all by default


def test_the_200_are_the_best_before_suppression():
    """The best 200 are one box over and over; the 201st, elsewhere, was never looked at."""
    boxes = torch.tensor([0.0, 0.0, 0.5, 0.5]).repeat(1, 201, 1)
    boxes[0, 200] = torch.tensor([0.6, 0.6, 0.9, 0.9])
    score = torch.full((201,), 0.8)
    score[200] = 0.7
    assert len(nms(boxes, torch.stack([1 - score, score], dim=-1)[None])[0][1]) == 1
    assert len(nms(boxes, torch.stack([1 - score, score], dim=-1)[None], max_per_class=201)[0][1]) == 2


@pytest.mark.parametrize("most", [0, 1, 7, 100_000])
def test_max_detections_keeps_the_best_of_all_classes(most):
    boxes, scores = clutter(anchors=60)
    everything = nms(boxes, scores, max_detections=100_000)
    for result, whole in zip(nms(boxes, scores, max_detections=most), everything):
        assert len(result[1]) == min(most, len(whole[1]))
        assert all(torch.equal(tensor, part[:most]) for tensor, part in zip(result, whole))
        assert len(whole[1].unique()) == 3


@pytest.mark.parametrize("pairs", [1, 50_000])
def test_groups_in_small_parts_give_the_same(pairs, monkeypatch):
    """With NMS_PAIRS small the groups are compared one, or a few, at a time."""
    boxes, scores = clutter(pictures=2, anchors=300, classes=6)
    expected = nms(boxes, scores)
    calls, greedy = [], module.suppress
    monkeypatch.setattr(config, "NMS_PAIRS", pairs)
    monkeypatch.setattr(module, "suppress", lambda *arguments: calls.append(1) or greedy(*arguments))
    found = nms(boxes, scores)
    assert len(calls) == 10 if pairs == 1 else 1 < len(calls) < 10  # 2 pictures of 5 classes
    for result, wanted in zip(found, expected):
        assert len(result[1]) > 0
        assert all(torch.equal(tensor, other) for tensor, other in zip(result, wanted))


def test_non_contiguous_input():
    boxes, scores = clutter(anchors=60)
    strided_boxes = torch.cat([boxes, boxes], dim=-1)[..., :4]
    strided_scores = scores.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided_boxes.is_contiguous() and not strided_scores.is_contiguous()
    assert_nms_as_slow_reference(strided_boxes, strided_scores)


def test_half_input_keeps_its_type():
    rows = [(0.0, 0.0, 0.5, 0.5, 0.75), (0.0, 0.0, 0.5, 0.25, 0.5), (0.5, 0.5, 1.0, 1.0, 0.25)]
    boxes, scores = one_class(*rows)
    ((found_boxes, labels, found_scores),) = nms(boxes.half(), scores.half())
    assert found_boxes.dtype == found_scores.dtype == torch.float16
    assert found_boxes.tolist() == [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]
    assert labels.tolist() == [1, 1] and found_scores.tolist() == [0.75, 0.25]


# The fixed way


def test_random_heads_as_the_slow_reference():
    """120 of all shapes, some of them without a detection and some with more than fit, and 4 of the network's own size."""
    complete = total = most = 0
    for seed in range(60):  # every combination of the three
        anchors, classes = (30, 90, 300)[seed % 3], (2, 6, 21, 81)[seed % 4]
        loc, conf, defaults = heads(2, anchors, classes, background=(0.0, 3.0, 6.0, 9.0, 12.0)[seed % 5], seed=seed)
        for i, found in enumerate(detect(loc, conf, defaults)):
            expected = slow_detect(loc[i], conf[i], defaults)
            assert_same_detections(found, expected)
            total, most = total + len(expected), max(most, len(expected))
        complete += int(detect_fixed(loc, conf, defaults)[:, -1, 1].sum())
    for seed in range(2):
        loc, conf, _ = heads(2, 8732, 81, background=12.0, seed=seed)
        for i, found in enumerate(detect(loc, conf, default_boxes())):
            assert_same_detections(found, slow_detect(loc[i], conf[i], default_boxes()))
    assert total > 2_500 and most == 200  # some with more than fit
    assert 50 < complete < 115  # Both ways were taken.


@pytest.mark.parametrize("use_all", [True, False])
@pytest.mark.parametrize(
    ("background", "candidates", "anchors", "passes"),
    [
        (9.0, 512, 1024, 6),
        (0.0, 512, 1024, 6),
        (6.0, 64, 1024, 6),
        (6.0, 512, 100, 6),
        (3.0, 512, 1500, 2),
        (99.0, 512, 1024, 6),
    ],
)
def test_what_the_fixed_way_calls_complete_is_exact(use_all, background, candidates, anchors, passes):
    loc, conf, defaults = heads(6, 1500, 9, background=background, seed=3)
    conf[3:, 0] += 3  # three pictures with fewer candidates
    for most in (1, 20, 200):
        fixed = detect_fixed(loc, conf, defaults, most, use_all, candidates, anchors, passes)
        exact = detect_exact(loc, conf, defaults, most)
        for found, expected in zip(fixed, exact):
            assert expected[-1].tolist()[1:] == [1, 0, 0, 0, 0] == found[-1].tolist()[1:] or not found[-1, 1]
            if found[-1, 1]:
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_what_is_left_out_is_seen():
    """One candidate, one anchor, or one link of a chain too many: not complete; one fewer: complete."""
    defaults = torch.tensor([[0.05 + 0.1 * n, 0.5, 0.09, 0.1] for n in range(10)])
    loc, conf = torch.zeros(1, 4, 10), torch.zeros(1, 2, 10)
    conf[0, 1] = torch.linspace(2, 3, 10)

    def complete(**limits):
        return bool(detect_fixed(loc, conf, defaults, **limits)[0, -1, 1])

    assert complete(candidates=10) and not complete(candidates=9)
    assert complete(anchors=10) and not complete(anchors=9)
    assert complete(use_all=False, candidates=10) and not complete(use_all=False, candidates=9)
    assert complete(use_all=False, max_detections=5, candidates=7) and not complete(max_detections=5, candidates=7)
    chain = torch.tensor([[0.2 + 0.02 * n, 0.5, 0.1, 0.1] for n in range(10)])  # each overlaps the next by 2 / 3
    conf[0, 1] = torch.linspace(3, 2, 10)
    assert [bool(detect_fixed(loc, conf, chain, passes=n)[0, -1, 1]) for n in (8, 12)] == [False, True]
    assert detect_batch(loc, conf, chain)[3].tolist() == [len(slow_detect(loc[0], conf[0], chain))]


def test_an_anchor_is_excluded_by_its_margin_only_when_no_class_can_be_a_candidate():
    """Two classes share what the background leaves; with 0.95 for it, one class alone has just 0.05."""
    conf = torch.tensor([[[0.95, 0.949, 0.90, 0.5], [0.05, 0.051, 0.05, 0.051], [0.0, 0.0, 0.05, 0.449]]]).log()
    scores, labels, anchors, left_out = _all_candidates(conf, 8, 4)
    assert (left_out == 0).all() and (scores > 0).sum() == 3
    assert scores[0, :3].tolist() == pytest.approx([0.449, 0.051, 0.051], abs=1e-6)
    assert labels[0, :3].tolist() == [2, 1, 1] and sorted(anchors[0, :3].tolist()) == [1, 3, 3]


@quick
@given(hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 40))), st.integers(1, 50))
def test_first_true(mask, count):
    places, totals = _first_true(torch.from_numpy(mask), count)
    assert places.shape == (len(mask), count) and totals.shape == (len(mask), 1)
    for row, found, total in zip(mask, places.tolist(), totals[:, 0].tolist()):
        true = np.flatnonzero(row).tolist()
        assert total == len(true)
        assert found == (true + [0] * count)[:count]


def test_only_200_of_a_class_are_looked_at_in_the_fixed_way_too():
    """250 apart of one class and 10 of another, all better: 200 and 10 are kept."""
    defaults = torch.tensor([[0.002 + 0.0038 * n, 0.5, 0.003, 0.1] for n in range(260)])
    conf = torch.zeros(1, 3, 260)
    conf[0, 1:] = -99
    conf[0, 1, :250], conf[0, 2, 250:] = torch.linspace(3, 2, 250), 4
    packed = detect_fixed(torch.zeros(1, 4, 260), conf, defaults, 300)
    assert packed[0, -1].tolist() == [210, 1, 0, 0, 0, 0]
    assert packed[0, :210, 4].tolist() == [2] * 10 + [1] * 200


def test_a_batch_is_padded_with_zeros_and_repeats_itself():
    loc, conf, defaults = heads(3, 300, 5, background=6.0)
    conf[1, 0] += 99
    before = loc.clone(), conf.clone(), defaults.clone()
    boxes, labels, scores, counts = detect_batch(loc, conf, defaults)
    assert boxes.shape == (3, 200, 4) and labels.shape == scores.shape == (3, 200) and counts.tolist()[1] == 0
    assert labels.dtype == counts.dtype == torch.int64 and scores.dtype == boxes.dtype == torch.float32
    for i, count in enumerate(counts.tolist()):
        assert (scores[i, :count] > 0.05).all() and (labels[i, :count] >= 1).all()
        assert not scores[i, count:].any() and not labels[i, count:].any() and not boxes[i, count:].any()
    again = detect_batch(loc, conf, defaults)
    assert all(torch.equal(a, b) for a, b in zip((boxes, labels, scores, counts), again))
    assert all(torch.equal(a, b) for a, b in zip((loc, conf, defaults), before))


def test_detect_batch_can_be_scripted():
    with quiet():
        scripted = torch.jit.script(detect_batch)
    for background in (0.0, 6.0, 99.0):  # complete after the third, the second, or the first step
        given_heads = heads(3, 1500, 9, background=background)
        for found, expected in zip(scripted(*given_heads), detect_batch(*given_heads)):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# Both together


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_detect_is_decode_then_nms(dtype):
    loc, conf, defaults = heads(2, 40, 4, background=1.0, seed=7)
    loc, conf = loc.to(dtype), conf.to(dtype)
    before = loc.clone(), conf.clone(), defaults.clone()
    boxes, scores = decode_boxes(loc.float(), conf.float(), defaults)
    for i, result in enumerate(detect(loc, conf, defaults, max_detections=9)):
        found = as_lists(result)
        assert found == slow_nms(boxes[i].numpy(), scores[i].numpy(), max_detections=9)
        assert len(found) == 9
    assert all(torch.equal(tensor, other) for tensor, other in zip((loc, conf, defaults), before))
