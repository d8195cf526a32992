"""The text of detections, of a batch as of one: numbers by exact decimal arithmetic, and labels of any text."""

import json
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from batches import batch_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdtrt.detection.results import Detections
from ssdtrt.sinks.row_texts import RowTexts

LABELS = ["background", 'a "quoted" %s %.2f %%', "naïve \U0001f408\x00\n\\", "", "x" * 300, "dog"]


def by_hand(label, score, box):
    """A detection as text, of a finite score and box."""

    def rounded(value, decimals):
        return f"{Decimal(float(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN):.{decimals}f}"

    edges = ", ".join(rounded(edge, 2) for edge in box)
    start = f'"label": {json.dumps(LABELS[label])}, "label_id": {label}'
    return f'{{{start}, "score": {rounded(score, 6)}, "box": [{edges}]}}'


def pictures_with(counts, random):
    """Pictures with so many detections, some of whose numbers lie between two of the text."""
    for number, count in enumerate(counts):
        xyxy = random.uniform(0, 9999, (count, 4)).astype(np.float32)
        ties = random.random((count, 4)) < 0.3
        xyxy[ties] = random.integers(0, 9999 * 8, (count, 4))[ties] / 8  # .125, .375 and so on
        scores = random.random(count).astype(np.float32)
        scores[random.random(count) < 0.1] = np.float32(random.choice([0, 1, 0.5, 2**-7, 0.99999994, 1e-9, 1e-30]))
        yield Detections(f"{number}.jpg", 9, 9, xyxy, random.integers(1, len(LABELS), count), scores, LABELS)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), counts=st.lists(st.sampled_from([0, 1, 5, 40, 90]), min_size=1, max_size=40))
def test_a_batch_is_what_its_pictures_are_one_by_one(seed, counts):
    random, texts = np.random.default_rng(seed), RowTexts(LABELS)
    results = list(pictures_with(counts, random))
    found = list(texts.of_batch(batch_of(results)))
    assert found == [", ".join(texts.of_one(one.class_id, one.confidence, one.xyxy)) for one in results]
    for text, one in list(zip(found, results))[:3]:
        rows = zip(one.class_id.tolist(), one.confidence, one.xyxy)
        assert text == ", ".join(by_hand(*row) for row in rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, -3.5, 10_000, 1e38, 9999.5, 1.0000001])
@pytest.mark.parametrize("column", ["score", "edge"])
def test_numbers_that_columns_do_not_hold(value, column):
    """In the picture that has one, what is not finite is null; the other pictures' text is as without it."""
    results, texts = list(pictures_with([90, 3, 0, 90], np.random.default_rng(1))), RowTexts(LABELS)
    before = list(texts.of_batch(batch_of(results)))
    (results[1].confidence if column == "score" else results[1].xyxy[:, 2])[1] = value
    after = list(texts.of_batch(batch_of(results)))
    assert after[0] == before[0] and after[2] == "" and after[3] == before[3]
    row = json.loads(f"[{after[1]}]")[1]
    decimals, number = (6, row["score"]) if column == "score" else (2, row["box"][2])
    assert number == (round(float(np.float32(value)), decimals) if np.isfinite(value) else None)
    assert after[1] == ", ".join(texts.of_one(results[1].class_id, results[1].confidence, results[1].xyxy))


def test_a_class_that_has_no_label():
    (one,) = pictures_with([90], np.random.default_rng(0))
    one.class_id[3] = len(LABELS)
    with pytest.raises(IndexError):
        list(RowTexts(LABELS).of_batch(batch_of([one])))
