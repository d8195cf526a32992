"""COCO's figures: against pycocotools, and by hand."""

import json
import sys

import numpy as np
import pytest
from coco_files import IDS, by_pycocotools, write_annotations

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.evaluation.annotations import read_annotations
from ssdtrt.evaluation.coco import PictureDetections, evaluate_detections
from ssdtrt.evaluation.report import FIGURES, EvalSettings
from ssdtrt.sinks.json_sinks import CocoResults
from ssdtrt.system.versions import installed


def world(seed=0, pictures=300):
    """Seeded objects and detections: crowds, empty pictures, equal scores, all sizes, all 80 categories.

    Returns (objects as COCO dicts, a list of PictureDetections).
    """
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(11, 11 + pictures):
        count = 0 if image % 7 == 0 else int(rng.integers(1, 9))
        size = np.exp(rng.uniform(np.log(6), np.log(300), (count, 2))).round(2)
        corner = rng.uniform(0, 300, (count, 2)).round(2)
        kinds = rng.integers(0, 80, count) if image % 3 else np.full(count, image % 80)
        for (width, height), (left, top), kind in zip(size.tolist(), corner.tolist(), kinds.tolist()):
            crowd = int(rng.random() < 0.08)
            one = {"image_id": image, "category_id": IDS[kind], "bbox": [left, top, width, height], "iscrowd": crowd}
            objects.append({**one, "area": width * height * rng.uniform(0.5, 1)})
            if crowd:
                objects[-1]["segmentation"] = {"size": [600, 600], "counts": [360000]}
        if image % 11 == 0:
            continue
        again = rng.random(count) < 0.8
        wrong = 130 if image == 12 else int(rng.integers(0, 12))
        shifts = rng.normal(0, 0.05, (again.sum(), 4)) * size[again].repeat(2, 1)
        near = np.hstack([corner, corner + size])[again] + shifts
        far = rng.uniform(0, 300, (wrong, 2))
        boxes_xyxy = np.vstack([near, np.hstack([far, far + rng.uniform(5, 200, (wrong, 2))])]).astype(np.float32)
        labels = np.concatenate([kinds[again], np.full(wrong, 12) if wrong == 130 else rng.integers(0, 80, wrong)]) + 1
        scores = rng.uniform(0.05, 1, len(boxes_xyxy)).round(1 + image % 4).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        detections.append(PictureDetections(image, boxes_xyxy[order], labels[order], scores[order]))
    return objects, detections


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The annotation file of 300 pictures, and the detections."""
    objects, detections = world()
    images = {number: f"{number}.jpg" for number in range(11, 311)}
    return write_annotations(tmp_path_factory.mktemp("large") / "val.json", images, objects), detections


def test_figures_equal_pycocotools(large):
    path, detections = large
    rows = []
    for image, boxes_xyxy, labels, scores in detections:
        for (left, top, right, bottom), label, score in zip(boxes_xyxy, labels, scores):
            box = [float(left), float(top), float(right - left), float(bottom - top)]
            rows.append({"image_id": image, "category_id": IDS[label - 1], "bbox": box, "score": float(score)})
    expected, precision = by_pycocotools(path, rows)
    report = evaluate_detections(read_annotations(path), iter(detections))
    assert [report.figures[name] for name in FIGURES] == pytest.approx(expected, abs=1e-12)
    assert min(expected) > 0.02 and max(expected) < 0.9 and len(set(expected)) == 12
    for index, found in enumerate(report.classes):
        assert found.ap == pytest.approx(precision[:, :, index].mean(), abs=1e-12)
        assert found.ap50 == pytest.approx(precision[0, :, index].mean(), abs=1e-12)
    assert report.detections == len(rows) and report.images == 300
    assert [row.name for row in report.classes] == list(config.COCO_LABELS[1:])
    assert [row.category_id for row in report.classes] == IDS
    objects = json.loads(path.read_text())["annotations"]
    assert report.objects == sum(not one["iscrowd"] for one in objects) < len(objects)
    assert report.classes[4].objects == sum(one["category_id"] == IDS[4] and not one["iscrowd"] for one in objects)


def test_written_results_give_the_same_figures(large, tmp_path):
    path, detections = large
    with CocoResults(tmp_path / "results.json") as results:
        for image, boxes_xyxy, labels, scores in detections:
            results.write(image, boxes_xyxy, [IDS[label - 1] for label in labels], scores)
    expected, _ = by_pycocotools(path, str(tmp_path / "results.json"))
    report = evaluate_detections(read_annotations(path), detections)
    assert [report.figures[name] for name in FIGURES] == pytest.approx(expected, abs=1e-12)


def test_order_of_pictures_does_not_matter(large):
    path, detections = large
    known = read_annotations(path)
    forwards = evaluate_detections(known, detections)
    assert evaluate_detections(known, detections[::-1]).figures == forwards.figures


TWO = {1: "cat", 2: "dog", 3: "bird"}
LABELS = ["background", "cat", "dog", "bird"]


@pytest.fixture
def tiny(tmp_path):
    """Two pictures: two cats of 40 x 40 and one of 20 x 20, a dog of 100 x 100; no bird."""
    objects = [(1, 1, [10, 10, 40, 40]), (1, 1, [100, 100, 40, 40]), (2, 1, [0, 0, 20, 20]), (2, 2, [50, 50, 100, 100])]
    return read_annotations(write_annotations(tmp_path / "tiny.json", {1: "a.jpg", 2: "b.jpg"}, objects, TWO))


def found(image, *rows):
    """One picture's detections from (label, score, xyxy)."""
    labels, scores, boxes_xyxy = zip(*rows) if rows else ((), (), ())
    return PictureDetections(image, np.float32(boxes_xyxy).reshape(-1, 4), np.int64(labels), np.float32(scores))


def test_figures_by_hand(tiny):
    # Cats: a hit, a miss between, a hit: precision 1 up to recall 1/3 (34 of 101 points), 2/3 up to 2/3 (33 more).
    # The second hit has IoU 0.75 (30 of 40 wide), so it counts at 0.50 .. 0.75, six of ten thresholds.
    # The dog: IoU 0.6 at three thresholds.
    report = evaluate_detections(
        tiny,
        [
            found(1, (1, 0.9, (10, 10, 50, 50)), (1, 0.8, (200, 200, 240, 240)), (1, 0.7, (100, 100, 130, 140))),
            found(2, (2, 0.6, (50, 50, 110, 150))),
        ],
        LABELS,
    )
    cat50 = (34 + 33 * 2 / 3) / 101
    cat = (6 * cat50 + 4 * 34 / 101) / 10
    expected = {
        "AP": (cat + 0.3) / 2, "AP50": (cat50 + 1) / 2, "AP75": cat50 / 2,
        "APs": 0.0, "APm": None, "APl": 0.3,
        "AR1": ((1 / 3) + 0.3) / 2, "AR10": ((6 * 2 + 4) / 30 + 0.3) / 2, "AR100": ((6 * 2 + 4) / 30 + 0.3) / 2,
        "ARs": 0.0, "ARm": (6 * 2 + 4) / 20, "ARl": 0.3,
    }  # fmt: skip
    # Of the medium cats 34 and 67 of the points become 51 and 50.
    expected["APm"] = (6 * (51 + 50 * 2 / 3) + 4 * 51) / 1010
    assert report.figures == pytest.approx(expected, abs=1e-9)
    assert [(row.name, row.objects) for row in report.classes] == [("cat", 3), ("dog", 1), ("bird", 0)]
    assert [row.ap for row in report.classes] == [pytest.approx(cat), pytest.approx(0.3), None]
    assert [row.ap50 for row in report.classes] == [pytest.approx(cat50), pytest.approx(1.0), None]
    assert (report.images, report.objects, report.detections) == (2, 4, 4)


def test_what_is_not_there_is_none(tmp_path):
    path = write_annotations(tmp_path / "one.json", {1: "a.jpg"}, [(1, 1, [0, 0, 10, 10])], TWO)
    report = evaluate_detections(read_annotations(path), [found(1, (1, 0.5, (0, 0, 10, 10)))], LABELS)
    assert report.figures == {**dict.fromkeys(FIGURES, 1.0), **dict.fromkeys(("APm", "APl", "ARm", "ARl"))}
    assert json.loads(json.dumps(report.as_dict()))["figures"]["APl"] is None


def test_no_detections_at_all(tiny):
    report = evaluate_detections(tiny, [], LABELS)
    assert report.figures == dict.fromkeys(FIGURES, 0.0)
    assert (report.detections, report.objects, report.images) == (0, 4, 2)


def test_first_annotation_may_have_the_id_0(tmp_path):
    objects = [{"id": 0, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}]
    path = write_annotations(tmp_path / "zero.json", {1: "a.jpg"}, objects, TWO)
    report = evaluate_detections(read_annotations(path), [found(1, (1, 0.5, (0, 0, 50, 50)))], LABELS)
    assert report.figures["AP"] == 1.0


def test_labels_without_a_category_do_not_count(tiny):
    labels = ["background", "dog", "cat", "horse"]
    report = evaluate_detections(
        tiny, [found(2, (3, 0.9, (50, 50, 150, 150)), (1, 0.8, (50, 50, 150, 150)))], [*labels, "bird"]
    )
    assert report.detections == 1 and report.classes[1].ap == 1.0
    assert report.notes == ("no category here for 1 of 4 classes, whose detections are left out",)


def test_what_there_is_of_the_report(tiny):
    """Without a runner there is no name and no machine; the settings are those of the published evaluation."""
    report = evaluate_detections(tiny, [], LABELS)
    assert (report.name, report.precision, report.machine, report.against) == ("", "", None, ())
    assert report.settings == EvalSettings(str(tiny.path), 0.05, 0.5, 200, None, installed("faster-coco-eval"))
    assert report.settings.faster_coco_eval


@pytest.mark.parametrize("image", [1, 3])
def test_picture_twice_or_unknown(tiny, image):
    with pytest.raises(SsdtrtError, match=f"detections of picture {image} came twice, or .*tiny.json does not list it"):
        evaluate_detections(tiny, [found(1), found(image)], LABELS)


@pytest.mark.parametrize("bad", [(1, float("nan"), (0, 0, 9, 9)), (1, 0.5, (0, 0, float("inf"), 9))])
def test_what_is_not_finite(tiny, bad):
    with pytest.raises(SsdtrtError, match="Picture 1: a box or score is not finite: the engine overflows"):
        evaluate_detections(tiny, [found(1, bad)], LABELS)


def test_missing_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(SsdtrtError, match=r"needs faster-coco-eval .*: pip install 'ssdtrt\[eval\]'$"):
        evaluate_detections(tiny, [], LABELS)
