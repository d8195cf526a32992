"""A file evaluated on pictures, alone and beside the eager model."""

import doctest
import hashlib
import json
import sys

import numpy as np
import pytest
from coco_files import IDS, by_pycocotools, write_annotations
from PIL import Image

from known import known_file
from ssdtrt import evaluate
from ssdtrt.detect import Detector
from ssdtrt.errors import AnnotationsError, ArtifactError, SsdtrtError
from ssdtrt.evaluate import evaluate_file
from ssdtrt.model.labels import class_names
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.system.versions import installed, measured_on


def test_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(evaluate)
    assert result.attempted > 5 and result.failed == 0


def test_missing_extra_is_reported_before_anything_else(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(SsdtrtError, match=r"needs faster-coco-eval .*: pip install 'ssdtrt\[eval\]'$"):
        evaluate_file("no.engine.ts", "no-folder", "no.json")


@pytest.fixture
def streamed(monkeypatch):
    """The list of the runners that were evaluated, each by a Detector with the published settings."""
    ran = []

    def watched(runner, note, **settings):
        assert settings == {
            "threshold": 0.05,
            "max_detections": 200,
            "orient": False,
            "value_range": None,
            "max_pixels": None,
            "decode": "auto",
        }
        ran.append(runner)
        return Detector(runner, note=note, **settings)

    monkeypatch.setattr(evaluate, "Detector", watched)
    return ran


@pytest.fixture(scope="module")
def truth(module, photographs, tmp_path_factory):
    """Annotations of the sample photographs that say what the model finds from 0.4 up: (file, number of objects)."""
    objects, images = [], {}
    for number, result in enumerate(Detector(module, "cpu", threshold=0.4)(photographs), 5):
        images[number] = photographs[number - 5].name
        for one in result.detections:
            left, top, right, bottom = one.box
            objects.append((number, IDS[one.label_id - 1], [left, top, right - left, bottom - top]))
    return write_annotations(tmp_path_factory.mktemp("truth") / "val.json", images, objects), len(objects)


def test_file_against_eager(engine, module, photographs, truth, streamed, tmp_path):
    lines = []
    report = evaluate_file(
        engine,
        photographs[0].parent,
        truth[0],
        against=["eager-fp32"],
        results=tmp_path / "r.json",
        progress=lines.append,
    )
    assert truth[1] > 10 and report.objects == truth[1] and report.images == len(photographs)
    # What was found from 0.4 up comes before all else in its class, so nothing is lost.
    assert report.figures["AP"] == 1.0 and report.figures["AP75"] == 1.0
    (baseline,) = report.against
    assert (report.name, report.precision) == ("ssd300.engine.ts", "fp32")
    assert (baseline.name, baseline.precision, baseline.machine) == ("eager-fp32", "fp32", None)
    assert baseline.figures["AP"] == 1.0 and report.minus(baseline)["AP"] == 0.0
    assert isinstance(streamed[1], EagerRunner) and streamed[0].path == engine
    assert report.notes == ("untrained: seeded random weights; the figures mean nothing",) and report.failures == ()
    assert report.machine == measured_on("cpu") and report.settings.faster_coco_eval
    assert report.seconds > 0 and report.images_per_second == pytest.approx(len(photographs) / report.seconds)
    assert lines[0] == "reading the annotations"
    assert lines[-1].startswith(f"evaluating eager-fp32 [{'#' * 20}] {len(photographs)} of {len(photographs)} images, ")
    written = json.loads((tmp_path / "r.json").read_text())
    assert len(written) == report.detections and {row["image_id"] for row in written} == {5, 6, 7}
    assert by_pycocotools(truth[0], str(tmp_path / "r.json"))[0][0] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["onnx_file", "onnx_detector"])
def test_onnx_file_against_eager(kind, request, photographs, truth, streamed):
    path = request.getfixturevalue(kind)
    report = evaluate_file(path, photographs[0].parent, truth[0], against=["eager-fp32"], device="cpu")
    assert (report.name, report.precision, report.figures["AP"]) == (path.name, "fp32", 1.0)
    assert report.minus(report.against[0])["AP"] == 0.0 and report.detections == report.against[0].detections
    assert isinstance(streamed[1], EagerRunner) and streamed[0].path == path


def test_report_becomes_json(engine, photographs, truth, streamed):
    report = evaluate_file(engine, photographs[0].parent, truth[0], against=["eager-fp32"])
    made = json.loads(json.dumps(report.document(), allow_nan=False))
    assert (made["schema"], made["kind"], made["name"]) == (2, "evaluation", "ssd300.engine.ts")
    assert made["machine"] == measured_on("cpu").as_dict()
    assert made["settings"] == {
        "annotations": str(truth[0]), "min_score": 0.05, "nms_iou": 0.5, "max_detections": 200,
        "images": str(photographs[0].parent), "faster_coco_eval": installed("faster-coco-eval"),
        "orient": False, "annotations_sha256": hashlib.sha256(truth[0].read_bytes()).hexdigest(),
        "match_classes": "name", "value_range": None, "max_pixels": None, "decode": "auto",
    }  # fmt: skip
    assert list(made["against"][0]) == [
        "name", "precision", "figures", "difference", "detections", "seconds", "images_per_second"
    ]  # fmt: skip
    assert made["against"][0]["difference"]["AP"] == 0.0 and len(made["classes"]) == 80


def test_unreadable_picture_counts_as_empty(module, photographs, truth, streamed, tmp_path):
    for path in photographs[1:]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / photographs[0].name).write_bytes(b"no picture")
    lines = []
    report = evaluate_file(module, tmp_path, truth[0], device="cpu", progress=lines.append)
    shown = [line.split("] ")[1] for line in lines if "] " in line]
    assert any(line.startswith("3 of 3 images, ") for line in shown)  # It counts as done.
    assert shown[-1] == "2 of 2 pictures"  # Their orientation.
    (failure,) = report.failures
    assert failure.startswith(f"{tmp_path / photographs[0].name} cannot be read")
    assert report.notes[0] == "1 of 3 pictures could not be read; counted as without detections"
    assert report.figures["AR100"] < 1.0 and report.objects == truth[1]


@pytest.mark.parametrize(
    "against, message",
    [
        (["eager-fp16"], "eager-fp16 needs a GPU"),
        (["eager-fp32", "pytorch"], "'pytorch'.*; expected eager-fp32 or eager-fp16."),
    ],
)
def test_baselines_that_cannot_be(engine, photographs, truth, streamed, against, message):
    with pytest.raises(SsdtrtError, match=message):
        evaluate_file(engine, photographs[0].parent, truth[0], against=against)
    assert streamed == []


def test_baseline_without_its_module(engine, photographs, truth, streamed, tmp_path):
    alone = tmp_path / "alone.engine.ts"
    alone.write_bytes(engine.read_bytes())
    with pytest.raises(ArtifactError, match="alone.engine.ts cannot be compared with eager-fp32: its module ssd300.ts"):
        evaluate_file(alone, photographs[0].parent, truth[0], against=["eager-fp32"])
    assert streamed == []


def test_categories_that_do_not_fit_are_reported_before_the_run(engine, photographs, truth, streamed, tmp_path):
    data = json.loads(truth[0].read_text())
    data["categories"] = [{"id": IDS[n], "name": name} for n, name in enumerate(["ship", "tank", "tent"])]
    data["annotations"][0]["category_id"] = IDS[0]
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(AnnotationsError, match="3 categories do not fit the model's 80 classes: ship, tank, tent only"):
        evaluate_file(engine, photographs[0].parent, tmp_path / "other.json")
    assert streamed == []


def test_interrupted_run_leaves_valid_results(engine, photographs, truth, streamed, tmp_path):
    """At the last picture, whose line of progress is always shown: those before it are written."""

    def stop(text):
        if "] 3 of 3 images" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_file(engine, photographs[0].parent, truth[0], results=tmp_path / "r.json", progress=stop)
    assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {5, 6}


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
    assert report.notes[0] == (f"1 of 3 pictures: another size than in the annotations ({photographs[1].name})")


def test_classes_without_names(tmp_path):
    """Matched by position only where that is asked, also in the results file; noted in the report."""
    path = known_file(tmp_path / "numbered.ts", labels=class_names(81, None))
    Image.new("RGB", (200, 100), (230, 20, 20)).save(tmp_path / "1.png")
    truth = write_annotations(tmp_path / "t.json", {1: "1.png"}, [(1, IDS[15], [13.05, 6.5, 173.9, 87.0])])
    with pytest.raises(AnnotationsError, match="--match-classes position, in order of id.$"):
        evaluate_file(path, tmp_path, truth, device="cpu", results=tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()
    report = evaluate_file(path, tmp_path, truth, device="cpu", match_classes="position", results=tmp_path / "r.json")
    assert report.figures["AP"] == 1.0 and report.detections == 3
    assert report.notes == ("classes are matched to the categories in order of id, as --match-classes position asks",)
    assert json.loads((tmp_path / "r.json").read_text())[0]["category_id"] == IDS[15]


# The cat that `known` finds in a red picture of 200 x 100, and in the same one turned by a quarter.
CAT, CAT_UPRIGHT = [13.05, 6.5, 173.9, 87.0], [6.5, 13.05, 87.0, 173.9]


def turned(folder, name, box, size):
    """A picture stored as 200 x 100 that stands upright as 100 x 200, and its annotations."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), (230, 20, 20)).save(folder / name, exif=exif)
    path = write_annotations(folder / "turned.json", {1: name}, [(1, IDS[15], box)])
    data = json.loads(path.read_text())
    if size:
        data["images"][0].update(width=size[0], height=size[1])
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    "name, box, size, orient, ap, note",
    [
        # As the published evaluation does: boxes are those of the pixels as they are stored.
        ("a.jpg", CAT, (200, 100), False, 1.0, None),
        ("a.jpg", CAT, None, False, 1.0, "with an EXIF orientation that was ignored, as in the published evaluation; "
         "if annotated upright, give --orient"),
        ("a.jpg", CAT_UPRIGHT, (100, 200), False, 0.0, "not turned by EXIF orientation, but annotated "
         "upright, as the recorded sizes show: give --orient"),
        ("a.jpg", CAT_UPRIGHT, (100, 200), True, 1.0, None),
        ("a.jpg", CAT, (200, 100), True, 0.0, "turned by EXIF orientation, but annotated as "
         "stored, as the recorded sizes show: leave out --orient"),
        ("a.tif", CAT_UPRIGHT, (100, 200), False, 1.0, "TIFF or HEIC with an orientation, by which it is always turned"),
    ],
)  # fmt: skip
def test_orientation(known, tmp_path, name, box, size, orient, ap, note):
    path = turned(tmp_path, name, box, size)
    report = evaluate_file(known, tmp_path, path, device="cpu", orient=orient)
    assert report.figures["AP"] == ap and report.detections == 3 and report.settings.orient is orient
    assert report.notes == (() if note is None else (f"1 of 1 picture: {note} ({name})",))


def test_text_ids(known, pictures, tmp_path):
    """As with numbers, also in the results that are written; the figures by pycocotools, too."""
    pictures("1.png")
    objects = [("x/1", "kitty", CAT), ("x/1", "pup", [150, 0, 40, 90])]
    path = write_annotations(tmp_path / "a.json", {"x/1": "1.png"}, objects, {"kitty": "cat", "pup": "dog"})
    report = evaluate_file(known, tmp_path / "pictures", path, device="cpu", results=tmp_path / "r.json")
    assert [(row.category_id, row.ap) for row in report.classes] == [("kitty", 1.0), ("pup", 0.0)]
    assert report.figures["AP"] == 0.5 and report.objects == 2
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [("x/1", "kitty"), ("x/1", "pup")]
    assert by_pycocotools(path, rows)[0][0] == pytest.approx(0.5)


def test_subset(known, pictures, tmp_path):
    pictures("1.png")
    names = {1: "1.png", 2: "2.png"}
    path = write_annotations(tmp_path / "a.json", names, [(1, IDS[15], CAT), (2, IDS[15], CAT)])
    with pytest.raises(AnnotationsError, match="lacks 1 of the 2 pictures that .* lists: 2.png. .*--subset"):
        evaluate_file(known, tmp_path / "pictures", path, device="cpu")
    report = evaluate_file(known, tmp_path / "pictures", path, device="cpu", subset=True)
    assert (report.figures["AP"], report.images, report.objects) == (1.0, 1, 1)
    assert report.notes == (f"a subset: {tmp_path / 'pictures'} lacks 1 of 2 pictures, left out with 1 object (2.png)",)


def test_files_as_other_tools_write_them(known, pictures, tmp_path):
    """Backslashes, an address in place of a name, and a category that nobody uses with the name of another."""
    pictures("a/1.png")
    pictures("2.png")
    data = {
        "images": [{"id": 1, "file_name": "a\\1.png"}, {"id": 2, "coco_url": "http://localhost/val/2.png"}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": image, "category_id": 1, "bbox": CAT} for image in (1, 2)],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    report = evaluate_file(known, tmp_path / "pictures", tmp_path / "a.json", device="cpu")
    assert report.figures["AP"] == 1.0
    assert report.notes[0] == "category 0 has the name of category 1, cat, and no object; left out"
