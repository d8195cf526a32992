"""COCO's figures: against pycocotools, by hand, and of a file on pictures, alone and beside the eager model."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from ssdtrt import config, evaluate
from ssdtrt.artifact.baseline import EagerRunner
from ssdtrt.detect import Detector
from ssdtrt.detection.json_writers import CocoResults
from ssdtrt.errors import AnnotationsError, ArtifactError, SsdtrtError
from ssdtrt.evaluate import evaluate_detections, evaluate_file
from ssdtrt.evaluation.annotations import read_annotations
from ssdtrt.evaluation.report import FIGURES

# COCO's 80 ids have gaps; these have them elsewhere, and start at 3.
IDS = [number for number in range(3, 103) if number % 5]


def write_annotations(path, images, objects, categories=None):
    """An annotation file; `objects` are (image id, category id, bbox) or dicts."""
    entries = []
    for number, one in enumerate(objects):
        if not isinstance(one, dict):
            image, category, box = one
            one = {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        entries.append({"id": number + 1, **one})
    categories = categories or dict(zip(IDS, config.COCO_LABELS[1:]))
    data = {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": entries,
    }
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def world(seed=0, pictures=300):
    """Seeded objects and detections: crowds, empty pictures, equal scores, all sizes, all 80 categories.

    Returns (objects as COCO dicts, detections as (image id, boxes_xyxy, labels, scores)).
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
        detections.append((image, boxes_xyxy[order], labels[order], scores[order]))
    return objects, detections


def by_pycocotools(annotations, results):
    """The twelve figures as pycocotools has them; `results` is a file or COCO's dicts."""
    from pycocotools.coco import COCO  # Here, so that GPU tests can be collected where it is not installed.
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, 2]
    return run.stats.tolist(), precision


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
    return image, np.float32(boxes_xyxy).reshape(-1, 4), np.int64(labels), np.float32(scores)


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
    assert report.notes == ("1 of 4 classes are no category here; their detections do not count",)


@pytest.mark.parametrize("image", [1, 3])
def test_picture_twice_or_unknown(tiny, image):
    with pytest.raises(SsdtrtError, match=f"picture {image} came twice, or .*tiny.json does not list it"):
        evaluate_detections(tiny, [found(1), found(image)], LABELS)


@pytest.mark.parametrize("bad", [(1, float("nan"), (0, 0, 9, 9)), (1, 0.5, (0, 0, float("inf"), 9))])
def test_what_is_not_finite(tiny, bad):
    with pytest.raises(SsdtrtError, match="Picture 1: a box or score is not finite: the engine overflows"):
        evaluate_detections(tiny, [found(1, bad)], LABELS)


def test_missing_extra_is_said_before_anything_else(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(SsdtrtError, match=r"needs faster-coco-eval .*: pip install 'ssdtrt\[eval\]'$"):
        evaluate_file("no.engine.ts", "no-folder", "no.json")


@pytest.fixture
def streamed(monkeypatch):
    """The list of the runners that were evaluated, each by a Detector with the published settings."""
    ran = []

    def watched(runner, note, **settings):
        assert settings == {"threshold": 0.05, "max_detections": 200, "orient": False}
        ran.append(runner)
        return Detector(runner, note=note, **settings)

    monkeypatch.setattr(evaluate, "Detector", watched)
    return ran


@pytest.fixture(scope="module")
def truth(module, photographs, tmp_path_factory):
    """Annotations of the sample photographs that say what the model finds from 0.3 up: (file, number of objects)."""
    objects, images = [], {}
    for number, result in enumerate(Detector(module, "cpu", threshold=0.3)(photographs), 5):
        images[number] = photographs[number - 5].name
        for one in result.detections:
            left, top, right, bottom = one.box
            objects.append((number, IDS[one.label_id - 1], [left, top, right - left, bottom - top]))
    return write_annotations(tmp_path_factory.mktemp("truth") / "val.json", images, objects), len(objects)


def test_file_against_eager(engine, module, photographs, truth, streamed, tmp_path):
    lines = []
    report = evaluate_file(
        engine, photographs[0].parent, truth[0], against=["eager"], results=tmp_path / "r.json", progress=lines.append
    )
    assert truth[1] > 10 and report.objects == truth[1] and report.images == len(photographs)
    # What was found from 0.3 up comes before all else in its class, so nothing is lost.
    assert report.figures["AP"] == 1.0 and report.figures["AP75"] == 1.0
    (peer,) = report.against
    assert (report.name, report.precision, peer.name, peer.precision) == ("ssd300.engine.ts", "fp32", "eager", "fp32")
    assert peer.figures["AP"] == 1.0 and report.minus(peer)["AP"] == 0.0
    assert isinstance(streamed[1], EagerRunner) and streamed[0].path == engine
    assert report.notes == ("untrained: seeded random weights; the figures mean nothing",) and report.failures == ()
    assert report.machine["gpu"] is None and report.machine["versions"]["faster_coco_eval"]
    assert report.seconds > 0 and report.images_per_second == pytest.approx(len(photographs) / report.seconds)
    assert lines[0] == "reading the annotations"
    assert lines[-1] == f"evaluating eager, {len(photographs)} of {len(photographs)} pictures"
    written = json.loads((tmp_path / "r.json").read_text())
    assert len(written) == report.detections and {row["image_id"] for row in written} == {5, 6, 7}
    assert by_pycocotools(truth[0], str(tmp_path / "r.json"))[0][0] == pytest.approx(1.0)


def test_report_becomes_json(engine, photographs, truth, streamed):
    report = evaluate_file(engine, photographs[0].parent, truth[0], against=["eager"])
    made = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert made["settings"] == {
        "annotations": str(truth[0]), "min_score": 0.05, "nms_iou": 0.5, "max_detections": 200,
        "images": str(photographs[0].parent),
    }  # fmt: skip
    assert list(made["against"][0]) == [
        "name", "precision", "figures", "difference", "detections", "seconds", "images_per_second"
    ]  # fmt: skip
    assert made["against"][0]["difference"]["AP"] == 0.0 and len(made["classes"]) == 80


def test_unreadable_picture_counts_as_empty(module, photographs, truth, streamed, tmp_path):
    for path in photographs[1:]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / photographs[0].name).write_bytes(b"no picture")
    report = evaluate_file(module, tmp_path, truth[0], device="cpu")
    (failure,) = report.failures
    assert failure.startswith(f"{tmp_path / photographs[0].name} cannot be read")
    assert report.notes[0] == "1 of 3 pictures could not be read; they count as without detections"
    assert report.figures["AR100"] < 1.0 and report.objects == truth[1]


@pytest.mark.parametrize(
    "against, message",
    [
        (["eager-fp16"], "eager-fp16 needs a GPU"),
        (["eager", "pytorch"], "'pytorch' is nothing to compare with; expected eager or eager-fp16."),
    ],
)
def test_peers_that_cannot_be(engine, photographs, truth, streamed, against, message):
    with pytest.raises(SsdtrtError, match=message):
        evaluate_file(engine, photographs[0].parent, truth[0], against=against)
    assert streamed == []


def test_peer_without_its_module(engine, photographs, truth, streamed, tmp_path):
    alone = tmp_path / "alone.engine.ts"
    alone.write_bytes(engine.read_bytes())
    with pytest.raises(ArtifactError, match="alone.engine.ts cannot be compared with eager: its module ssd300.ts"):
        evaluate_file(alone, photographs[0].parent, truth[0], against=["eager"])
    assert streamed == []


def test_categories_that_do_not_fit_are_said_before_the_run(engine, photographs, truth, streamed, tmp_path):
    data = json.loads(truth[0].read_text())
    data["categories"] = [{"id": IDS[n], "name": name} for n, name in enumerate(["ship", "tank", "tent"])]
    data["annotations"][0]["category_id"] = IDS[0]
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(AnnotationsError, match="3 categories do not fit the model's 80 classes: ship, tank, tent only"):
        evaluate_file(engine, photographs[0].parent, tmp_path / "other.json")
    assert streamed == []


def test_interrupted_run_leaves_valid_results(engine, photographs, truth, streamed, tmp_path, monkeypatch):
    def stop(text):
        if text.startswith("evaluating"):
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "PROGRESS_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        evaluate_file(engine, photographs[0].parent, truth[0], results=tmp_path / "r.json", progress=stop)
    assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {5}


def test_picture_of_another_size_keeps_its_pixels(engine, photographs, tmp_path, streamed):
    with Image.open(photographs[0]) as photograph:
        photograph.resize((900, 300)).save(tmp_path / "wide.png")
    path = write_annotations(tmp_path / "wide.json", {1: "wide.png"}, [(1, 3, [0, 0, 900, 300])])
    assert len(evaluate_file(engine, tmp_path, path, results=tmp_path / "r.json").notes) == 1  # untrained
    boxes_xywh = np.array([row["bbox"] for row in json.loads((tmp_path / "r.json").read_text())])
    right, bottom = boxes_xywh[:, 0] + boxes_xywh[:, 2], boxes_xywh[:, 1] + boxes_xywh[:, 3]
    assert 600 < right.max() <= 900.001 and 150 < bottom.max() <= 300.001


def test_picture_of_another_size_than_the_annotations_say(engine, photographs, truth, streamed, tmp_path):
    data = json.loads(truth[0].read_text())
    with Image.open(photographs[0]) as first, Image.open(photographs[1]) as second:
        data["images"][0].update(width=first.width, height=first.height)
        data["images"][1].update(width=second.width + 1, height=second.height)
    (tmp_path / "sizes.json").write_text(json.dumps(data))
    report = evaluate_file(engine, photographs[0].parent, tmp_path / "sizes.json")
    assert report.notes[0] == (
        f"not of the size in the annotations, so boxes cannot fit: 1 of 3 ({photographs[1].name})"
    )


def test_orientation_is_ignored(known, tmp_path):
    """As the published evaluation does: boxes are those of the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), (230, 20, 20)).save(tmp_path / "turned.jpg", exif=exif)
    objects = [(1, IDS[15], [13.05, 6.5, 173.9, 87.0])]
    path = write_annotations(tmp_path / "turned.json", {1: "turned.jpg"}, objects)
    report = evaluate_file(known, tmp_path, path, device="cpu")
    assert report.figures["AP"] == 1.0 and report.detections == 3 and report.notes == ()
