"""The settings of a detector."""

import numpy as np
import pytest

from ssdtrt.detection.settings import check_settings, class_numbers
from ssdtrt.errors import SsdtrtError


@pytest.mark.parametrize("threshold", [0, 1, 0.5, np.float32(0.4), np.float64(1)])
def test_settings_in_their_range(threshold):
    assert check_settings(threshold, 1, 16, (-1.5, 2), 10**9) is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"threshold": 5}, "The threshold is 5; expected a number of 0..1."),
        ({"threshold": -0.1}, "The threshold is -0.1; expected a number of 0..1."),
        ({"threshold": float("nan")}, "The threshold is nan; expected a number of 0..1."),
        ({"threshold": "0.5"}, "The threshold is '0.5'; expected a number of 0..1."),
        ({"nms_iou": 0}, "nms_iou is 0; expected a number above 0, at most 1."),
        ({"nms_iou": 1.5}, "nms_iou is 1.5; expected a number above 0, at most 1."),
        ({"max_detections": 0}, "max_detections is 0; expected a whole number from 1 up."),
        ({"workers": 0}, "workers is 0; expected a whole number from 1 up."),
        ({"workers": 1.5}, "workers is 1.5; expected a whole number from 1 up."),
        ({"max_pixels": 0}, "max_pixels is 0; expected a whole number from 1 up."),
        ({"max_bytes": 0}, "max_bytes is 0; expected a whole number from 1 up."),
        ({"timeout": 0}, "The timeout is 0; expected seconds above 0, at most 86,400."),
        ({"timeout": float("inf")}, "The timeout is inf; expected seconds above 0, at most 86,400."),
        ({"value_range": (5, 5)}, "The range of values is (5, 5); expected two numbers, the lower one first."),
        ({"value_range": (5,)}, "The range of values is (5,); expected two numbers, the lower one first."),
        ({"value_range": 5}, "The range of values is 5; expected two numbers, the lower one first."),
        ({"value_range": (0, float("inf"))}, "The range of values is (0, inf); expected two numbers, the lower one first."),
    ],
)  # fmt: skip
def test_settings_out_of_their_range(settings, message):
    with pytest.raises(SsdtrtError) as caught:
        check_settings(**{"threshold": 0.5, **settings})
    assert str(caught.value) == message


LABELS = ("background", "cat", "7", "hot dog", "cow")


@pytest.mark.parametrize(
    "classes, numbers",
    [
        (None, None), ("cat", (1,)), (["hot dog", "cat", "cat"], (1, 3)), (4, (4,)), (np.array([3, 1]), (1, 3)),
        ("7", (2,)), (["4", "cow"], (4,)), (iter(["cow"]), (4,)),
    ],
)  # fmt: skip
def test_classes_by_name_and_number(classes, numbers):
    assert class_numbers(classes, LABELS) == numbers


@pytest.mark.parametrize(
    "classes, message",
    [
        ("cta", "There is no class 'cta'; expected a name or a number of 1..4. Did you mean 'cat'?"),
        (["cat", 5], "There is no class 5; expected a name or a number of 1..4. The names begin with cat, 7, hot dog."),
        (0, "There is no class 0; expected a name or a number of 1..4. The names begin with cat, 7, hot dog."),
        (
            "background",
            "There is no class 'background'; expected a name or a number of 1..4. The names begin with cat,",
        ),
        ([], "No class is asked for; name one, or leave the classes out for all."),
        ([1.5], "There is no class 1.5; expected a name or a number of 1..4. The names begin with cat, 7, hot dog."),
    ],
)
def test_what_is_no_class(classes, message):
    with pytest.raises(SsdtrtError) as caught:
        class_numbers(classes, LABELS)
    assert str(caught.value).startswith(message)
