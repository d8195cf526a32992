"""What a detector finds: arrays for Python, names and rounded numbers for JSON."""

import json

import numpy as np
import pytest

from ssdtrt.detection.results import Detection, Detections, ImageDetections

CAT = Detection("cat", 16, 0.75, (1.5, 2.0, 30.25, 40.0))


def test_image_detections_as_dict():
    found = ImageDetections("a/cat.jpg", 451, 300, (CAT,)).as_dict()
    assert found == {
        "image": "a/cat.jpg",
        "width": 451,
        "height": 300,
        "detections": [{"label": "cat", "label_id": 16, "score": 0.75, "box": [1.5, 2.0, 30.25, 40.0]}],
    }
    assert list(found) == ["image", "width", "height", "detections"]
    assert json.loads(json.dumps(found)) == found


def test_detections_are_frozen():
    with pytest.raises(AttributeError):
        CAT.label = "dog"


def arrays(count):
    xyxy = np.float32([[1.504, 2.0, 30.256, 40.0], [0.0, 0.0, 5.125, 6.0]])[:count]
    return Detections("cat.jpg", 451, 300, xyxy, np.int64([2, 1])[:count], np.float32([0.1234567, 0.1])[:count])


def test_named_has_the_labels_and_rounds():
    found = arrays(2).named(["background", "dog", "cat"])
    assert (found.image, found.width, found.height) == ("cat.jpg", 451, 300)
    assert found.detections == (
        Detection("cat", 2, 0.123457, (1.5, 2.0, 30.26, 40.0)),
        Detection("dog", 1, 0.1, (0.0, 0.0, 5.12, 6.0)),
    )
    assert [type(one.label_id) for one in found.detections] == [int, int]


def test_named_without_a_detection():
    assert arrays(0).named(["background", "dog"]).detections == ()
