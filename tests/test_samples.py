"""The package's weights and sample scenes: pictures with truth, on which accuracy is measured wherever the tests run."""

import pytest
import torch

from conftest import SAMPLES, script
from ssdtrt import config
from ssdtrt.evaluation.annotations import read_annotations
from ssdtrt.evaluation.coco import PictureDetections, evaluate_detections
from ssdtrt.evaluation.pictures import find_pictures
from ssdtrt.formats.packed_weights import read_packed_record
from ssdtrt.images.decode import load_image
from ssdtrt.images.preprocess import to_pixels
from ssdtrt.images.tensors import to_batch
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.model.weights import build_model

SCENES = SAMPLES / "scenes"


@pytest.fixture(scope="module")
def scenes():
    """(annotations, {id: path}) of the sample scenes."""
    return find_pictures(read_annotations(SCENES / "annotations.json"), SCENES / "images")


def test_they_are_small():
    sizes = [path.stat().st_size for path in (SCENES / "images").iterdir()]
    assert len(sizes) == 12 and max(sizes) <= 40_000
    assert config.SCENES_WEIGHTS.stat().st_size <= 6_000_000


def test_the_weights_say_how_accurate_they_are():
    record = read_packed_record(config.SCENES_WEIGHTS)
    assert record.labels == ("background", *script("scenes").LABELS)
    assert record.images == 1000 and 0.95 < record.figures["AP"] < record.figures["AP50"] <= 1
    assert record.training["settings"]["sparsity"] == 0.75


def test_the_weights_find_the_shapes(scenes, full_width):
    """COCO's AP, and what is drawn by default: nearly all of the objects have a box of their class, few boxes have none."""
    from torchvision.ops import box_iou

    annotations, paths = scenes
    model = build_model("scenes")
    with torch.no_grad():
        results = detect(*model(to_batch(list(paths.values()))), default_boxes())
    found, right, shown = [], 0, 0
    for (number, path), (boxes, labels, scores) in zip(paths.items(), results):
        xyxy = to_pixels(boxes.numpy(), *load_image(path).size)
        found.append(PictureDetections(number, xyxy, labels.numpy(), scores.numpy()))
        objects = [one for one in annotations.objects if one.image_id == number]
        truth = torch.tensor([[x, y, x + width, y + height] for x, y, width, height in (one.bbox for one in objects)])
        names = [annotations.categories[one.category_id] for one in objects]
        drawn = scores >= config.THRESHOLD
        same = torch.tensor([[model.labels[label] == name for label in labels[drawn]] for name in names])
        right += int(((box_iou(truth, torch.from_numpy(xyxy)[drawn]) >= 0.5) & same).any(1).sum())
        shown += int(drawn.sum())
    report = evaluate_detections(annotations, found, model.labels)
    assert report.objects == 66 and report.figures["AP"] >= 0.90  # 0.934 when it was written
    assert right >= 63 and shown <= 73  # 65 and 69
