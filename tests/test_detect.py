"""From pictures to detections: the real network against one by hand, and a network whose answers are known."""

import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ssdtrt import config, torchscript
from ssdtrt.artifact import add_metadata
from ssdtrt.detect import UNTRAINED, Detector, detect_to_folder, unused_name
from ssdtrt.errors import ArtifactError, ImageError, SsdtrtError
from ssdtrt.model.boxes import default_boxes, detect
from ssdtrt.results import Detection, ImageDetections

RED, BLUE = (230, 20, 20), (20, 20, 230)


class Known(nn.Module):
    """Three detections in every picture; the best is a cat in a picture that is more red than blue, else a car.

    At the last feature map's centre: a square of 0.87, one of 1.2304 x 0.6152 that is clamped to 1 x 0.6152, and
    one of 0.6152 x 1, moved to the right by half its width.
    """

    def forward(self, images: Tensor):
        count = images.shape[0]
        loc = torch.zeros(count, 4, 8732)
        loc[:, 0, 8731] = 5.0
        conf = torch.zeros(count, 81, 8732)
        red = images[:, 0].mean([1, 2]) > images[:, 2].mean([1, 2])
        conf[:, 16, 8728] = torch.where(red, 6.0, -6.0)
        conf[:, 3, 8728] = torch.where(red, -6.0, 6.0)
        conf[:, 17, 8730] = 5.0
        conf[:, 1, 8731] = 4.0
        return loc, conf


def probability(logit, other=0.0):
    """Softmax of one logit among 79 zeros and one other."""
    return math.exp(logit) / (math.exp(logit) + 79 + math.exp(other))


CAT, DOG, PERSON = probability(6, -6), probability(5), probability(4)  # 0.836, 0.650, 0.406


def known_file(path, trained=True):
    """One of our files, of kind module, around `Known`."""
    with torchscript.quiet():
        module = torch.jit.script(Known().eval())
    torchscript.save(module, path)
    model = {"labels": list(config.COCO_LABELS), "weights": {"trained": trained}}
    metadata = {"schema": 1, "kind": "module", "model": model, "build": {"method": "script", "precision": "fp32"}}
    add_metadata(path, metadata)
    return path


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A file whose detections are known."""
    return known_file(tmp_path_factory.mktemp("known") / "known.ts")


@pytest.fixture(scope="module")
def found(module, engine, photographs):
    """Detections of the sample photographs with the real network, from 0.3 up: {"module": [...], "engine": [...]}."""
    return {
        "module": Detector(module, "cpu", threshold=0.3)(photographs),
        "engine": Detector(engine, threshold=0.3)(photographs),
    }


@pytest.fixture
def pictures(tmp_path):
    """Saves pictures of one colour: `pictures(name, colour, size)` -> path."""

    def save(name, colour=RED, size=(200, 100)):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return save


def by_hand(path, photographs):
    """What a file's own outputs mean, prepared and scaled without the detector: [(label, score, box)] a photograph."""
    inputs = []
    for photograph in photographs:
        with Image.open(photograph) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR))
        prepared = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        inputs.append(torch.from_numpy(prepared).float().permute(2, 0, 1))
    with torchscript.quiet(), torch.no_grad():
        loc, conf = torch.jit.load(str(path))(torch.stack(inputs))
    answers = []
    for photograph, (boxes, labels, scores) in zip(photographs, detect(loc, conf, default_boxes())):
        with Image.open(photograph) as opened:
            width, height = opened.size
        edges = boxes.double().numpy().clip(0, 1) * (width, height, width, height)
        answers.append(list(zip(labels.tolist(), scores.tolist(), edges.tolist())))
    return answers


def assert_same(detections, expected, threshold, score_change=1e-3):
    """Each side's detections have a partner on the other; those at the threshold may be on one side only."""
    sure = threshold + score_change
    mine = [(d.label_id, d.score, d.box) for d in detections]
    for side, other in ((mine, expected), (expected, mine)):
        assert any(score > sure for _, score, _ in side)
        for label, score, box in side:
            partners = [
                1 for name, value, edges in other
                if name == label and abs(value - score) <= score_change and np.allclose(edges, box, atol=0.5)
            ]  # fmt: skip
            assert partners or score <= sure, (label, score, box)


def test_known_detections(known, pictures):
    (answer,) = Detector(known, "cpu")([pictures("red.png")])
    assert [(d.label, d.label_id) for d in answer.detections] == [("cat", 16), ("dog", 17), ("person", 1)]
    assert [d.score for d in answer.detections] == pytest.approx([CAT, DOG, PERSON], abs=2e-6)
    boxes = [d.box for d in answer.detections]
    assert boxes[0] == pytest.approx((13.0, 6.5, 187.0, 93.5), abs=0.011)
    assert boxes[1] == pytest.approx((0.0, 19.24, 200.0, 80.76), abs=0.011)
    assert boxes[2] == pytest.approx((100.0, 0.0, 200.0, 100.0), abs=0.011)  # Clipped at the right.


def test_result_names_the_picture_and_its_size(known, pictures):
    path = pictures("red.png", size=(90, 40))
    (answer,) = Detector(known, "cpu")([path])
    assert isinstance(answer, ImageDetections) and isinstance(answer.detections[0], Detection)
    assert (answer.image, answer.width, answer.height) == (str(path), 90, 40)


def test_scores_and_boxes_are_rounded(known, pictures):
    (answer,) = Detector(known, "cpu")([pictures("red.png", size=(451, 300))])
    for detection in answer.detections:
        assert detection.score == round(detection.score, 6)
        assert [round(edge, 2) for edge in detection.box] == list(detection.box)


@pytest.mark.parametrize("threshold, count", [(0.0, 3), (0.4, 3), (0.41, 2), (0.65, 1), (0.83, 1), (0.84, 0), (1, 0)])
def test_threshold(known, pictures, threshold, count):
    (answer,) = Detector(known, "cpu", threshold=threshold)([pictures("red.png")])
    assert len(answer.detections) == count


@pytest.mark.parametrize("most, labels", [(1, ["cat"]), (2, ["cat", "dog"]), (3, ["cat", "dog", "person"])])
def test_max_detections_keeps_the_best(known, pictures, most, labels):
    (answer,) = Detector(known, "cpu", max_detections=most)([pictures("red.png")])
    assert [d.label for d in answer.detections] == labels


def test_defaults(known):
    detector = Detector(known, "cpu")
    assert (detector.threshold, detector.max_detections, detector.batch_size) == (0.4, 200, 8)


@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
def test_every_picture_gets_its_own_answer(known, pictures, batch_size):
    detector = Detector(known, "cpu")
    detector.batch_size = batch_size
    colours = [RED, BLUE, BLUE, RED, BLUE, RED, RED, BLUE, RED, BLUE]
    paths = [pictures(f"{i}.png", colour, (100 + i, 50)) for i, colour in enumerate(colours)]
    answers = detector(paths)
    assert [answer.image for answer in answers] == [str(path) for path in paths]
    assert [answer.width for answer in answers] == list(range(100, 110))
    best = ["cat" if colour == RED else "car" for colour in colours]
    assert [answer.detections[0].label for answer in answers] == best


def test_pictures_of_every_kind(known, pictures):
    path = pictures("red.png")
    with Image.open(path) as image:
        array = np.asarray(image)
        answers = Detector(known, "cpu")([path, str(path), image, array, array[:, :, 0]])
    assert [answer.image for answer in answers] == [str(path), str(path), "", "", ""]
    assert all((answer.width, answer.height) == (200, 100) for answer in answers)
    assert [answer.detections[0].label for answer in answers] == ["cat"] * 4 + ["car"]  # Grey has no more red.


def test_turned_photograph_is_detected_upright(known, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), RED).save(tmp_path / "turned.jpg", exif=exif)
    (answer,) = Detector(known, "cpu")([tmp_path / "turned.jpg"])
    assert (answer.width, answer.height) == (100, 200)
    assert answer.detections[0].box == pytest.approx((6.5, 13.0, 93.5, 187.0), abs=0.011)


def test_no_pictures(known):
    assert Detector(known, "cpu")([]) == []


def test_unreadable_picture_raises(known, pictures, tmp_path):
    with pytest.raises(ImageError, match="no.png: no such file"):
        Detector(known, "cpu")([pictures("red.png"), tmp_path / "no.png"])


def test_stream_gives_pictures_and_collects_failures(known, pictures, tmp_path):
    failures = []
    paths = [tmp_path / "no.png", pictures("red.png"), tmp_path, pictures("blue.png", BLUE, (30, 20))]
    pairs = list(Detector(known, "cpu").stream(paths, failures))
    assert [image.size for image, _ in pairs] == [(200, 100), (30, 20)]
    assert [image.mode for image, _ in pairs] == ["RGB", "RGB"]
    assert [answer.detections[0].label for _, answer in pairs] == ["cat", "car"]
    assert [str(failure) for failure in failures] == [
        f"{tmp_path / 'no.png'}: no such file.",
        f"{tmp_path} is a directory; expected a picture.",
    ]


def test_stream_is_lazy(known, pictures, tmp_path):
    detector = Detector(known, "cpu")
    detector.batch_size = 1
    stream = detector.stream([pictures("red.png"), tmp_path / "no.png"])
    assert next(stream)[1].detections[0].label == "cat"
    with pytest.raises(ImageError):
        next(stream)


def test_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match="x.engine.ts: no such file. Make it first: ssdtrt compile"):
        Detector(tmp_path / "x.engine.ts")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_that_is_not_there(known):
    with pytest.raises(SsdtrtError, match="There is no device cuda here") as caught:
        Detector(known, "cuda")
    assert "Make it again" not in str(caught.value)


@pytest.mark.parametrize("kind", ["module", "engine"])
def test_real_detections_are_those_by_hand(found, kind, request, photographs):
    expected = by_hand(request.getfixturevalue(kind), photographs)
    assert [answer.image for answer in found[kind]] == [str(path) for path in photographs]
    assert [(answer.width, answer.height) for answer in found[kind]] == [(512, 512), (451, 300), (600, 400)]
    for answer, detections in zip(found[kind], expected):
        assert_same(answer.detections, [d for d in detections if d[1] >= 0.3], 0.3, score_change=1e-4)


@pytest.mark.parametrize("kind", ["module", "engine"])
def test_real_detections_are_well_formed(found, kind):
    for answer in found[kind]:
        scores = [d.score for d in answer.detections]
        assert scores == sorted(scores, reverse=True) and min(scores) >= 0.3 and max(scores) <= 1
        for d in answer.detections:
            assert 1 <= d.label_id <= 80 and d.label == config.COCO_LABELS[d.label_id]
            left, top, right, bottom = d.box
            assert 0 <= left <= right <= answer.width and 0 <= top <= bottom <= answer.height


def test_engine_detects_what_its_module_does(found):
    for mine, other in zip(found["engine"], found["module"]):
        assert_same(mine.detections, [(d.label_id, d.score, d.box) for d in other.detections], 0.3)


def test_batching_changes_nothing(found, module, photographs):
    detector = Detector(module, "cpu", threshold=0.3)
    detector.batch_size = 1
    for alone, together in zip(detector(photographs), found["module"]):
        assert_same(alone.detections, [(d.label_id, d.score, d.box) for d in together.detections], 0.3)


def test_folder_holds_pictures_and_json(known, pictures, tmp_path):
    paths = [pictures("red.png"), pictures("blue.jpg", BLUE, (400, 200))]
    lines = []
    results, failures = detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out", lines.append)
    assert sorted(os.listdir(tmp_path / "out")) == ["blue.jpg", "detections.json", "red.jpg"]
    assert [result.image for result in results] == [str(path) for path in paths] and failures == []
    assert lines == ["detecting, 1 of 2 pictures", "detecting, 2 of 2 pictures"]


def test_json_schema(known, pictures, tmp_path):
    path = pictures("red.png")
    detect_to_folder(Detector(known, "cpu", max_detections=1), [path], tmp_path / "out")
    text = (tmp_path / "out" / "detections.json").read_text(encoding="utf-8")
    (entry,) = json.loads(text)
    assert list(entry) == ["image", "width", "height", "detections"]
    (found_one,) = entry.pop("detections")
    assert entry == {"image": str(path), "width": 200, "height": 100}
    assert list(found_one) == ["label", "label_id", "score", "box"]
    assert found_one == {
        "label": "cat",
        "label_id": 16,
        "score": pytest.approx(CAT, abs=2e-6),
        "box": pytest.approx([13.0, 6.5, 187.0, 93.5], abs=0.011),
    }
    assert text.endswith("\n")


def test_json_is_what_was_returned(known, pictures, tmp_path):
    paths = [pictures("a.png"), pictures("b.png", BLUE)]
    results, _ = detect_to_folder(Detector(known, "cpu"), paths, tmp_path)
    entries = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    assert entries == [result.as_dict() for result in results] and len(entries) == 2


def test_annotated_picture(known, pictures, tmp_path):
    path = pictures("grey.png", (128, 128, 129), (400, 200))
    detect_to_folder(Detector(known, "cpu", max_detections=1), [path], tmp_path / "out")
    with Image.open(tmp_path / "out" / "grey.jpg") as opened:
        assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (400, 200))
        pixels = np.asarray(opened).astype(int)
    distance = np.abs(pixels - 128).max(-1)
    # The box is (26, 13, 374, 187).
    assert distance[100, 26] > 60 and distance[100, 374] > 60 and distance[187, 200] > 60
    assert distance[60:180, 35:365].max() < 20 and distance[195:].max() < 20  # No note.


def test_annotated_picture_is_upright(known, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), RED).save(tmp_path / "turned.jpg", exif=exif)
    detect_to_folder(Detector(known, "cpu"), [tmp_path / "turned.jpg"], tmp_path / "out")
    with Image.open(tmp_path / "out" / "turned.jpg") as opened:
        assert opened.size == (100, 200) and 0x0112 not in opened.getexif()


def test_untrained_network_is_named_on_the_picture(pictures, tmp_path):
    path = pictures("white.png", (255, 255, 255), (400, 200))
    for trained in (True, False):
        detector = Detector(known_file(tmp_path / "file.ts", trained), "cpu")
        detect_to_folder(detector, [path], tmp_path / "out")
        with Image.open(tmp_path / "out" / "white.jpg") as opened:
            ground = np.asarray(opened)[194:, :30].reshape(-1, 3)
        dark = (ground < 80).all(-1).mean() > 0.3
        assert dark == (not trained)
    assert UNTRAINED == "untrained: random weights"


def test_good_pictures_are_done_among_bad_ones(known, pictures, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(pictures("whole.jpg", RED, (300, 300)).read_bytes()[:500])
    empty = tmp_path / "empty.png"
    empty.touch()
    paths = [broken, pictures("red.png"), empty, tmp_path / "no.png", pictures("blue.png", BLUE)]
    results, failures = detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out")
    assert [result.image for result in results] == [str(paths[1]), str(paths[4])]
    assert sorted(os.listdir(tmp_path / "out")) == ["blue.jpg", "detections.json", "red.jpg"]
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))) == 2
    assert all(isinstance(failure, ImageError) for failure in failures)
    bad = [broken, empty, tmp_path / "no.png"]
    assert [str(failure).startswith(str(path)) for path, failure in zip(bad, failures)] == [True, True, True]


def test_only_bad_pictures(known, tmp_path):
    results, failures = detect_to_folder(Detector(known, "cpu"), [tmp_path / "no.png"], tmp_path / "out")
    assert results == [] and len(failures) == 1
    assert (tmp_path / "out" / "detections.json").read_text(encoding="utf-8") == "[]\n"


def test_no_pictures_for_a_folder(known, tmp_path):
    assert detect_to_folder(Detector(known, "cpu"), [], tmp_path / "out") == ([], [])
    assert json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8")) == []


def test_pictures_of_the_same_name_are_numbered(known, pictures, tmp_path):
    paths = [
        pictures("a/cat.png", RED, (201, 100)), pictures("b/cat.jpg", RED, (202, 100)),
        pictures("c/cat-2.png", RED, (203, 100)), pictures("d/CAT.png", RED, (204, 100)),
    ]  # fmt: skip
    detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out")
    names = ["cat.jpg", "cat-2.jpg", "cat-2-2.jpg", "CAT-3.jpg"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*names, "detections.json"])
    for name, width in zip(names, (201, 202, 203, 204)):
        with Image.open(tmp_path / "out" / name) as opened:
            assert opened.width == width


def test_the_same_picture_twice(known, pictures, tmp_path):
    path = pictures("cat.png")
    results, _ = detect_to_folder(Detector(known, "cpu"), [path, path], tmp_path / "out")
    assert len(results) == 2 and results[0] == results[1]
    assert sorted(os.listdir(tmp_path / "out")) == ["cat-2.jpg", "cat.jpg", "detections.json"]


def test_unused_name():
    names = set()
    assert [unused_name(stem, names) for stem in ("a", "a", "A", "b", "a-2")] == [
        "a.jpg", "a-2.jpg", "A-3.jpg", "b.jpg", "a-2-2.jpg"
    ]  # fmt: skip


def test_pictures_in_the_output_folder_are_not_overwritten(known, pictures):
    path = pictures("red.jpg")
    before = path.read_bytes()
    detect_to_folder(Detector(known, "cpu"), [path], path.parent)
    assert path.read_bytes() == before
    assert len(os.listdir(path.parent)) == 3  # The picture, the annotated one and detections.json.


def test_results_of_an_earlier_run_are_replaced(known, pictures, tmp_path):
    for colour, label in ((RED, "cat"), (BLUE, "car")):
        path = pictures("picture.png", colour)
        detect_to_folder(Detector(known, "cpu"), [path], tmp_path / "deep" / "out")
        (entry,) = json.loads((tmp_path / "deep" / "out" / "detections.json").read_text(encoding="utf-8"))
        assert entry["detections"][0]["label"] == label
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == ["detections.json", "picture.jpg"]


@pytest.mark.parametrize("below", [(), ("inner",)])
def test_output_folder_is_a_file(known, pictures, tmp_path, below):
    (tmp_path / "out").write_text("mine")
    folder = tmp_path.joinpath("out", *below)
    with pytest.raises(ArtifactError) as caught:
        detect_to_folder(Detector(known, "cpu"), [pictures("red.png")], folder)
    assert str(caught.value).startswith(f"{folder} cannot be written: ")
    assert str(caught.value).endswith("Give another with -o.")
    assert (tmp_path / "out").read_text() == "mine"


def test_unwritable_output_folder(known, pictures, tmp_path, not_root):
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(ArtifactError, match="out cannot be written: Permission denied. Give another with -o."):
        detect_to_folder(Detector(known, "cpu"), [pictures("red.png")], tmp_path / "out")
