"""A batch's packed detections against what one reads out of them picture by picture, to the bit."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdtrt.detection.unpacking import Chosen, unpack
from ssdtrt.images.preprocess import region

LABELS = ["background", *(f"class {number}" for number in range(1, 6))]


def pictures_of(sizes):
    """Pictures that were read, without their pixels; every other one was broken."""
    return [
        SimpleNamespace(index=2 * n, name=f"{n}.jpg", size=size, source=("source", n)) for n, size in enumerate(sizes)
    ]


def test_what_is_reported_of_two_pictures():
    packed = np.full((2, 5, 6), 9, np.float32)
    packed[:, :, 5] = 0  # Behind the counts there are no scores, whatever else stands there.
    packed[0, :3] = [[0.25, 0.5, 0.75, 1, 2, 0.75], [0, 0, 1, 1, 1, 0.5], [0, 0, 1, 1, 3, 0.25]]
    packed[1, :1] = [[-0.5, 0.25, 1.5, 0.5, 3, 0.5]]
    packed[:, -1, 0] = 3, 1
    of = pictures_of([(640, 480), (10, 20)])
    batch = unpack(packed, of, Chosen(0.5, None, 4), "eval", LABELS, list, "a note")
    assert (batch.indices, batch.images, batch.sizes, batch.offsets) == (
        [0, 2], ["0.jpg", "1.jpg"], [(640, 480), (10, 20)], [0, 2, 3]
    )  # fmt: skip
    assert batch.class_id.tolist() == [2, 1, 3] and batch.confidence.tolist() == [0.75, 0.5, 0.5]
    assert batch.xyxy.tolist() == [[160, 240, 480, 480], [0, 0, 640, 480], [0, 5, 10, 10]]
    assert len(batch) == 2
    (first, one), (second, two) = batch
    assert (first, one.image, one.width, one.height, one.note) == (0, "0.jpg", 640, 480, "a note")
    assert (second, two.image, two.width, two.height, two.labels) == (2, "1.jpg", 10, 20, LABELS)
    assert one.class_name.tolist() == ["class 2", "class 1"] and two.xyxy.tolist() == [[0, 5, 10, 10]]
    assert (one.xyxy.dtype, one.class_id.dtype, one.confidence.dtype) == (np.float32, np.int64, np.float32)
    assert one.load() == ["source", 0] and two.load() == ["source", 1]
    two.xyxy[:] = 0
    assert batch.xyxy[2].tolist() == [0, 5, 10, 10]  # A result has arrays of its own.


def one_by_one(rows, count, size, chosen, preprocess):
    """What is reported of one picture, its boxes by the formula for one picture."""
    best = rows[: min(int((rows[:, 5] >= chosen.threshold).sum()), count)]
    best = [row for row in best if chosen.classes is None or int(row[4]) in chosen.classes][: chosen.max_detections]
    left, top, right, bottom = region(*size, preprocess)
    extent, start = np.float32([right - left, bottom - top] * 2), np.float32([left, top] * 2)
    boxes = np.clip(np.float32([row[:4] for row in best]).reshape(-1, 4) * extent + start, 0, np.float32([*size] * 2))
    return boxes, [int(row[4]) for row in best], np.float32([row[5] for row in best])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.sampled_from([(640, 480), (480, 640), (1, 7), (427, 640), (6000, 4001)]), min_size=1, max_size=6),
    classes=st.sampled_from([None, (2,), (1, 3, 4)]),
    threshold=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    most=st.sampled_from([1, 3, 12]),
    preprocess=st.sampled_from(["eval", "hub"]),
)
def test_a_batch_is_what_its_pictures_are_one_by_one(seed, sizes, classes, threshold, most, preprocess):
    random = np.random.default_rng(seed)
    packed = random.uniform(-0.2, 1.2, (len(sizes), 13, 6)).astype(np.float32)
    packed[..., :4][random.random((len(sizes), 13, 4)) < 0.05] = np.nan
    packed[..., :4][random.random((len(sizes), 13, 4)) < 0.02] = np.inf
    packed[:, :, 4] = random.integers(1, 6, (len(sizes), 13))
    packed[:, :-1, 5] = -np.sort(-random.random((len(sizes), 12)))
    packed[:, -1, 0] = random.integers(0, 13, len(sizes))
    chosen = Chosen(threshold, classes, most)
    batch = unpack(packed, pictures_of(sizes), chosen, preprocess, LABELS, list)
    assert [index for index, _ in batch] == [2 * n for n in range(len(sizes))]
    for (_, found), rows, size in zip(batch, packed, sizes):
        boxes, labels, scores = one_by_one(rows[:-1], int(rows[-1, 0]), size, chosen, preprocess)
        assert found.xyxy.tobytes() == boxes.tobytes() and found.confidence.tobytes() == scores.tobytes()
        assert found.class_id.tolist() == labels
