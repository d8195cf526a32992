"""From pictures to detections: the real network against one by hand, and a network whose answers are known."""

import doctest
import io
import json
import multiprocessing
import os
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import lines_of, pictures_in
from picture_files import png, visible
from PIL import Image

from known import BLUE, CAT, DOG, PERSON, RED, Twins, known_file
from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.detect import Detector, detect_files, folder_sink
from ssdtrt.detection.results import Detection, Detections, Summary
from ssdtrt.errors import ArtifactError, GpuError, ImageError, SsdtrtError
from ssdtrt.hub import nvidia_ssd_processing_utils
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.reading import reader
from ssdtrt.runners import torchscript
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.runner import load_engine
from ssdtrt.sinks import folder_sink as folder_sink_module
from ssdtrt.sinks.json_sinks import CocoSink, JsonLinesSink
from ssdtrt.system.digests import sha256_file


@pytest.fixture(scope="module")
def found(module, engine, photographs):
    """Detections of the sample photographs with the real network, from 0.3 up: {"module": [...], "engine": [...]}."""
    return {
        "module": Detector(module, "cpu", threshold=0.3)(photographs),
        "engine": Detector(engine, threshold=0.3)(photographs),
    }


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
    assert isinstance(answer, Detections) and isinstance(answer.detections[0], Detection)
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


def test_thresholds_and_classes_of_a_call(known, pictures):
    detector, path = Detector(known, "cpu", classes=["cat", 17], max_detections=1), pictures("red.png")
    names = lambda **settings: detector(path, **settings).class_name.tolist()  # noqa: E731
    assert names() == ["cat"] and names(classes=["person", "dog"]) == ["dog"] and names(threshold=0.9) == []
    assert names(classes="person", threshold=0.41) == [] and names(classes=1) == ["person"]
    assert [found.class_name.tolist() for _, found in detector.stream([path], classes="dog")] == [["dog"]]
    assert detector.classes == (16, 17) == pickle.loads(pickle.dumps(detector)).classes
    for wrong in ({"threshold": 5}, {"classes": "dgo"}, {"classes": []}):
        with pytest.raises(SsdtrtError):
            detector(path, **wrong)


def test_the_iou_of_nms(tmp_path, pictures):
    """Two squares around the center, whose IoU is 0.829."""
    twins, path = known_file(tmp_path / "twins.ts", network=Twins), pictures("red.png", size=(1000, 1000))
    found = Detector(twins, "cpu", nms_iou=0.84)(path)
    assert found.class_name.tolist() == ["cat", "cat"]
    assert found.xyxy[:, 0].tolist() == pytest.approx([65.0, 22.11], abs=0.01)
    assert [len(Detector(twins, "cpu", **iou)(path)) for iou in ({}, {"nms_iou": 0.82})] == [1, 1]


def test_results_have_the_picture_that_was_detected_in(known, pictures):
    """Turned as it was seen; of a path, an open file, an image, an array and a tensor."""
    path = pictures("red.png", size=(80, 60))
    rgb = np.asarray(Image.open(path))
    detector = Detector(known, "cpu")
    tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    for given in (path, io.BytesIO(path.read_bytes()), Image.open(path), rgb, tensor):
        (one,) = detector([given])
        assert np.array_equal(np.asarray(one.picture), rgb) and [crop.size for crop in one.crop()][2] == (40, 60)
    (_, found), *_ = detector.stream([path] * 3, many=True)
    assert np.array_equal(np.asarray(found.picture), rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    assert detector(path).plot().size[0] >= 60 and detector(path).picture.size == (60, 80)
    assert Detector(known, "cpu", orient=False)(path).picture.size == (80, 60)


def test_untrained_weights_are_named_on_every_drawing(tmp_path, pictures):
    found = Detector(known_file(tmp_path / "file.ts", trained=False), "cpu")(pictures("a.png", size=(400, 300)))
    assert found.note == "untrained: random weights"


def test_a_notebook_shows_detectors_and_files(tmp_path):
    detector = Detector(known_file(tmp_path / "a&b.ts"), "cpu", classes="cat", nms_iou=0.6)
    shown = detector._repr_html_()
    assert "<caption>Detector: a&amp;b.ts</caption>" in shown
    for name, value in {"kind": "module, torchscript", "precision": "fp32", "batch size": "any", "device": "cpu",
                        "classes": "80: person, bicycle, car, motorcycle, airplane, ...", "weights": "coco",
                        "threshold": "0.4", "nms_iou": "0.6", "reported classes": "cat"}.items():  # fmt: skip
        assert f"<tr><th>{name}</th><td>{value}</td></tr>" in shown
    assert "<tr><th>device</th><td>cpu</td></tr>" in detector.runner._repr_html_()


@pytest.mark.parametrize("most, labels", [(1, ["cat"]), (2, ["cat", "dog"]), (3, ["cat", "dog", "person"])])
def test_max_detections_keeps_the_best(known, pictures, most, labels):
    (answer,) = Detector(known, "cpu", max_detections=most)([pictures("red.png")])
    assert [d.label for d in answer.detections] == labels


def test_defaults(known):
    detector = Detector(known, "cpu")
    assert (detector.threshold, detector.max_detections, detector.batch_size) == (0.4, 200, 2)


@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
def test_every_picture_gets_its_own_answer(known, pictures, batch_size):
    detector = Detector(known, "cpu")
    detector.batch_size = batch_size
    colors = [RED, BLUE, BLUE, RED, BLUE, RED, RED, BLUE, RED, BLUE]
    paths = [pictures(f"{i}.png", color, (100 + i, 50)) for i, color in enumerate(colors)]
    answers = detector(paths)
    assert [answer.image for answer in answers] == [str(path) for path in paths]
    assert [answer.width for answer in answers] == list(range(100, 110))
    best = ["cat" if color == RED else "car" for color in colors]
    assert [answer.detections[0].label for answer in answers] == best


def test_pictures_of_every_kind(known, pictures):
    path = pictures("red.png")
    with Image.open(path) as image:
        array = np.asarray(image)
        answers = Detector(known, "cpu")([path, str(path), image, array, array[:, :, 0]])
    assert [answer.image for answer in answers] == [str(path), str(path), "", "", ""]
    assert all((answer.width, answer.height) == (200, 100) for answer in answers)
    assert [answer.detections[0].label for answer in answers] == ["cat"] * 4 + ["car"]  # Gray has no more red.


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


def test_stream_gives_places_and_arrays_and_collects_failures(known, pictures, tmp_path, monkeypatch):
    failures = []
    paths = [tmp_path / "no.png", pictures("red.png"), tmp_path, pictures("blue.png", BLUE, (30, 20))]
    detector = Detector(known, "cpu")
    pairs = list(detector.stream(paths, failures, keep=True))
    assert [index for index, _ in pairs] == [1, 3] and all(isinstance(found, Detections) for _, found in pairs)
    assert [found.image for _, found in pairs] == [str(paths[1]), str(paths[3])]
    assert [(found.width, found.height) for _, found in pairs] == [(200, 100), (30, 20)]
    assert [found.picture.size for _, found in pairs] == [(200, 100), (30, 20)]
    assert [found.class_id.tolist() for _, found in pairs] == [[16, 17, 1], [3, 17, 1]]
    found = pairs[0][1]
    assert (found.xyxy.dtype, found.class_id.dtype, found.confidence.dtype) == (np.float32, np.int64, np.float32)
    assert found.confidence.tolist() == pytest.approx([CAT, DOG, PERSON], abs=2e-6)
    assert found.xyxy[0].tolist() == pytest.approx([13.0, 6.5, 187.0, 93.5], abs=0.011)
    assert [str(failure) for failure in failures] == [
        f"{tmp_path / 'no.png'}: no such file.",
        f"{tmp_path} is a directory; expected a picture.",
    ]
    monkeypatch.setattr("ssdtrt.reading.reader.load_image", pytest.fail)
    assert pairs[0][1].picture is pairs[0][1].picture  # Held, not read again.


def test_stream_is_lazy(known, pictures, tmp_path):
    detector = Detector(known, "cpu")
    detector.batch_size = 1
    stream = detector.stream([pictures("red.png"), pictures("blue.png", BLUE), tmp_path / "no.png"])
    assert next(stream)[1].class_id[0] == 16
    with pytest.raises(ImageError):
        list(stream)


@pytest.mark.parametrize("workers", [1, 3])
def test_stream_takes_only_what_it_needs(known, pictures, workers):
    """Of many pictures no more are taken than a few batches hold, and none after leaving."""
    path = pictures("red.png")
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield path

    detector = Detector(known, "cpu", workers=workers)
    detector.batch_size = 2
    stream = detector.stream(endless())
    for number in range(5):
        assert next(stream)[0] == number
    # Those given, the batch that runs, the one that is decoded, and those read ahead.
    assert len(taken) <= 5 + 2 * detector.batch_size + 2 * max(detector.batch_size, workers)
    stream.close()
    count = len(taken)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ssdtrt")]
    assert len(taken) == count


def test_start_gives_packed_detections(known):
    images = torch.full((2, 3, 300, 300), 20, dtype=torch.uint8)
    images[0, 0] = 230
    packed = Detector(known, "cpu", max_detections=2).start(images)()
    assert packed.shape == (2, 201, 6)
    assert packed[:, -1, 0].tolist() == [3, 3] and packed[:, :2, 4].tolist() == [[16, 17], [3, 17]]


def test_a_runner_may_be_given_instead_of_a_path(known, pictures):
    runner = load_engine(known, "cpu")
    detector = Detector(runner, threshold=0.7)
    (answer,) = detector([pictures("red.png")])
    assert detector.runner is runner and [d.label for d in answer.detections] == ["cat"]


def test_orientation_may_be_left_alone(known, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), RED).save(tmp_path / "turned.jpg", exif=exif)
    (answer,) = Detector(known, "cpu", orient=False)([tmp_path / "turned.jpg"])
    assert (answer.width, answer.height) == (200, 100)


@pytest.mark.parametrize(
    "given, message",
    [
        ([np.zeros((300, 300, 3), np.float32)], "An array of float32 [300, 300, 3] cannot be read as a picture; exp"),
        (np.zeros((300, 300, 3), np.float32), "An array of float32 [300, 300, 3] cannot be read as a picture; expec"),
        ([np.zeros((3, 300, 300), np.uint8)], "An array of uint8 [3, 300, 300] cannot be read as a picture; expected"),
        (np.zeros((3, 300, 300), np.uint8), "An array [3, 300, 300] is neither one picture [H, W] or [H, W, 1 | 3"),
        (
            [torch.zeros(3, 300, 300)],
            "A tensor of float32 [3, 300, 300] cannot be read as a picture; expected uint8; fl",
        ),
        (torch.zeros(1, 300, 300, 3), "A tensor [1, 300, 300, 3] is neither one picture [H, W] or [1 | 3 | 4, H, W]"),
        ([torch.zeros(300, 300, 3).byte()], "A tensor [300, 300, 3] is neither one picture [H, W] or [1 | 3 | 4, H"),
        ([None], "A NoneType cannot be read as a picture; expected a path, a PIL image or a uint8 array."),
        (None, "A NoneType is neither a picture nor a list of pictures; expected paths, open files, PIL images"),
        ("no.jpg", "no.jpg: no such file."),
    ],
)
def test_what_is_neither_a_picture_nor_several_is_one_line(known, given, message):
    with pytest.raises(ImageError) as caught:
        Detector(known, "cpu")(given)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_one_picture_gives_one_result(known, pictures):
    detector, path = Detector(known, "cpu"), pictures("red.png", size=(80, 60))
    rgb = np.full((60, 80, 3), RED, np.uint8)
    gray = rgb[..., 1]
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    (expected,) = detector([path])
    given = [
        path,
        str(path),
        Image.open(path),
        io.BytesIO(path.read_bytes()),
        rgb,
        np.dstack([rgb, 255 - gray]),
        tensor,
    ]
    for one in given:
        found = detector(one)
        assert (found.width, found.height, found.detections) == (80, 60, expected.detections)
        assert found == detector([one])[0]
    dark = [detector(one) for one in (gray, gray[..., None], torch.from_numpy(gray), torch.from_numpy(gray)[None])]
    assert dark == [detector([gray])[0]] * 4 and dark[0].detections[0].label == "car"


def test_a_batch_gives_a_list(known):
    colors = [RED, BLUE]
    batch = np.stack([np.full((50, 60, 3), color, np.uint8) for color in colors])
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    detector = Detector(known, "cpu")
    for given in (batch, list(batch), tuple(batch), iter(batch), tensors, list(tensors), batch[:1], tensors[:1]):
        found = detector(given)
        assert [one.detections[0].label for one in found] == ["cat", "car"][: len(found)]
        assert all((one.width, one.height) == (60, 50) for one in found)
    assert len(detector(batch)) == len(detector(tensors)) == 2 and len(detector(batch[:1])) == 1
    assert len(detector(np.zeros((2, 50, 60, 1), np.uint8))) == len(detector(torch.zeros(2, 1, 50, 60).byte())) == 2


def test_settings_out_of_range_are_refused(known):
    for settings in (
        {"threshold": 5},
        {"max_detections": 0},
        {"workers": 0},
        {"max_pixels": 0},
        {"value_range": (1, 0)},
    ):
        with pytest.raises(SsdtrtError, match=r"^(The .* is|[a-z_]+ is) .*; expected "):
            Detector(known, "cpu", **settings)


@pytest.mark.parametrize("many", [False, True])
def test_notes_on_pictures_and_what_they_advise(known, tmp_path, many):
    """Red in 12 bits is seen as red, with one note; with another range it is black."""
    row = b"\0" + np.array([[4000, 0, 0]] * 20, ">u2").tobytes()
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(png(20, 10, 16, 2, row * 10))
    notes = []
    detector = Detector(known, "cpu", workers=2, note=notes.append)
    labels = [detector.runner.labels[found.class_id[0]] for _, found in detector.stream(paths, many=many)]
    assert labels == ["cat"] * 3
    assert notes == [
        f"{paths[0]}: its values of more than 8 bits are read as 0..4095, the range that they fill; "
        "--range (value_range) gives another."
    ]
    detector = Detector(known, "cpu", workers=2, note=pytest.fail, value_range=(0, 65535))
    assert [detector.runner.labels[found.class_id[0]] for _, found in detector.stream(paths, many=many)] == ["car"] * 3
    detector = pickle.loads(pickle.dumps(Detector(known, "cpu", value_range=(0, 65535), max_pixels=199)))
    with pytest.raises(ImageError, match="has more than 199 pixels; --max-pixels"):
        list(detector.stream(paths, many=many))


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(2, 300, 300, 3, dtype=torch.uint8), r"uint8 \[2, 300, 300, 3\]"),
        (torch.zeros(3, 300, 300, dtype=torch.uint8), r"uint8 \[3, 300, 300\]"),
        (torch.zeros(1, 3, 300, 300), r"float32 \[1, 3, 300, 300\]"),
        (np.zeros((1, 3, 300, 300), np.uint8), "ndarray"),
    ],
)
def test_start_takes_images_alone(known, images, found):
    with pytest.raises(ImageError, match=rf"^Expected a tensor of uint8 images \[N, 3, 300, 300\]; found {found}.$"):
        Detector(known, "cpu").start(images)


def test_a_detector_may_be_used_between_two_results_of_its_stream(known, pictures, monkeypatch):
    """Its next batch runs then, and as with a CUDA graph, whose outputs lie in one place, later work overwrites them."""
    detector, start, place = Detector(known, "cpu"), Detector(known, "cpu").pipeline.postprocessor.start, []

    class Overwritten:
        """What is started without a graph of the whole, and so waited for before more is."""

        def __init__(self, loc, conf):
            place[:] = [start(loc, conf)()]

        def __call__(self):
            return place[0].clone()

        keep = pytest.fail

    monkeypatch.setattr(detector.pipeline.postprocessor, "start", Overwritten)
    detector.batch_size = 1
    red, blue = pictures("red.png"), pictures("blue.png", BLUE)
    inside, outside = [], []
    for _, found in detector.stream([red, blue, red, blue]):
        outside.append(detector.runner.labels[found.class_id[0]])
        inside += [one.detections[0].label for one in detector([blue, red])]
    assert outside == ["cat", "car", "cat", "car"] and inside == ["car", "cat"] * 4


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known_file("ssd300.ts")
    Image.new("RGB", (640, 480), RED).save("street.jpg")
    for documented, least in ((Detector, 5), (Detections, 4)):
        (example,) = doctest.DocTestFinder(recurse=False).find(documented)
        assert len(example.examples) >= least and doctest.DocTestRunner().run(example).failed == 0


def test_boxes_of_the_middle_square_are_mapped_back(tmp_path, pictures):
    path = known_file(tmp_path / "hub.ts", preprocess="hub")
    (answer,) = Detector(path, "cpu")([pictures("wide.png", RED, (600, 300))])
    # What is 0..1 of the middle 300 pixels is 150..450 of the picture's width.
    assert answer.detections[0].box == pytest.approx((169.5, 19.5, 430.5, 280.5), abs=0.011)
    assert answer.detections[1].box == pytest.approx((150.0, 57.72, 450.0, 242.28), abs=0.011)


def test_a_hub_module_is_prepared_as_the_hub_utilities_do(hub_module, photographs):
    """The same detections as with the utilities' own picture rounded to bytes, in the middle square's coordinates."""
    path = photographs[2]  # 600 x 400: the middle square is 100..500.
    utils = nvidia_ssd_processing_utils()
    levels = torch.from_numpy(utils.prepare_input(path)).permute(2, 0, 1)[None].add(1).mul(127.5).round()
    images = levels / 127.5 - 1
    with torchscript.quiet(), torch.no_grad():
        loc, conf = torch.jit.load(str(hub_module))(images)
    ((boxes, labels, scores),) = detect(loc, conf, default_boxes())
    edges = boxes.double().numpy() * 400 + (100, 0, 100, 0)
    expected = list(zip(labels.tolist(), scores.tolist(), edges.clip(0, (600, 400, 600, 400)).tolist()))
    (answer,) = Detector(hub_module, "cpu", threshold=0.3)([path])
    assert_same(answer.detections, [d for d in expected if d[1] >= 0.3], 0.3)


def test_missing_file(tmp_path):
    with pytest.raises(
        ArtifactError, match="x.engine.ts: no such file. Make it first: ssdtrt export && ssdtrt compile"
    ):
        Detector(tmp_path / "x.engine.ts")


@pytest.fixture
def mixed(photographs, tmp_path):
    """Paths of twenty pictures: of six sizes, one turned, some too large to be read whole, every fourth broken."""
    sizes = [(64, 48), (300, 300), (48, 64), (310, 400), (700, 650), (1300, 20)]
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        if number % 4 == 3:
            paths[-1].write_text("no picture")
            continue
        image = Image.open(photographs[number % 3]).convert("RGB").rotate(number)
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 5 == 0 else 1
        image.resize(sizes[number % 6]).save(paths[-1], exif=exif)
    return paths


@pytest.mark.skipif(os.name != "posix", reason="files are handed to processes as on POSIX")
@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_pictures_resized_on_the_device_are_those_that_pillow_resizes(mixed, tmp_path, preprocess, monkeypatch):
    """The very pixels, and so the same detections, by threads, by processes, and by processes that resize nothing."""
    file = known_file(tmp_path / "known.ts", preprocess=preprocess)
    ways = {}
    for way in ("threads", "processes", "whole"):
        detector, seen, failures = Detector(file, "cpu", workers=2), [], []
        detector.batch_size, detector._resize_on_device = 3, way == "whole"  # 12 slots
        start = detector.start
        monkeypatch.setattr(detector.batches, "start", lambda images: seen.append(images) or start(images))
        pairs = list(detector.stream(mixed, failures, many=way != "threads"))
        answers = [(place, found.named(detector.runner.labels)) for place, found in pairs]
        ways[way] = torch.cat(seen), answers, list(map(str, failures))
    pixels, answers, failures = ways["threads"]
    assert [place for place, _ in answers] == [place for place in range(20) if place % 4 != 3]
    assert len(failures) == 5 and pixels.shape == (15, 3, 300, 300)
    assert answers[0][1].width == 48 and answers[0][1].height == 64 and len(answers[0][1].detections) == 3
    for way in ("processes", "whole"):
        assert torch.equal(ways[way][0], pixels)
        assert ways[way][1:] == (answers, failures)


@pytest.fixture
def no_threads(monkeypatch):
    """Fail where a picture is read in a thread."""
    monkeypatch.setattr(reader, "in_order", lambda *_: pytest.fail("threads were started"))


@pytest.mark.parametrize("resizes", [False, True])
@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_arrays_without_threads_give_what_their_files_give(tmp_path, photographs, preprocess, resizes, monkeypatch):
    """The very pixels and detections of the same pixels as PNG files, which threads read."""
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, size in zip(paths, ((640, 480), (300, 300), (200, 310), (700, 650))):
        Image.open(photographs[0]).convert("RGB").resize(size).save(path)
    arrays = [np.asarray(Image.open(path)) for path in paths]
    file, ways = known_file(tmp_path / "known.ts", preprocess=preprocess), []
    for pictures in (paths, arrays):
        detector, seen = Detector(file, "cpu"), []
        detector.batch_size, detector._resize_on_device = 4, resizes
        start = detector.start
        monkeypatch.setattr(detector.batches, "start", lambda images: seen.append(images) or start(images))
        ways.append((detector(pictures), torch.cat(seen)))
        monkeypatch.setattr(reader, "in_order", lambda *_: pytest.fail("threads were started"))
    (answers, pixels), (found, same_pixels) = ways
    assert torch.equal(same_pixels, pixels) and sum(len(answer.detections) for answer in answers) > 4
    assert [(one.width, one.height, one.detections) for one in found] == [
        (one.width, one.height, one.detections) for one in answers
    ]
    assert {one.image for one in found} == {""}


@pytest.mark.parametrize("resizes", [False, True])
def test_a_bad_array_among_others_without_threads(known, resizes, no_threads):
    good = np.full((60, 80, 3), RED, np.uint8)
    pictures = [good, good, good.astype(np.float32), good[..., :2], good]
    detector, failures = Detector(known, "cpu"), []
    detector.batch_size, detector._resize_on_device = 5, resizes
    assert [place for place, _ in detector.stream(pictures, failures)] == [0, 1, 4]
    said = ["An array of float32 [60, 80, 3] cannot", "An array of uint8 [60, 80, 2] cannot"]
    assert [str(failure).split(" be")[0] for failure in failures] == said
    with pytest.raises(ImageError, match=r"^An array of float32 \[60, 80, 3\] cannot be read as a picture"):
        detector(pictures)
    assert [one.detections[0].label for one in detector([good])] == ["cat"]  # It still works.


def test_threads_start_for_files_and_for_more_arrays_than_a_batch(known, pictures, monkeypatch):
    started, in_order = [], reader.in_order
    monkeypatch.setattr(reader, "in_order", lambda *given: started.append(1) or in_order(*given))
    array, path, detector = np.full((60, 80, 3), RED, np.uint8), pictures("red.png"), Detector(known, "cpu")
    detector.batch_size = 2
    for given, threads in (([array], 0), ([array] * 2, 0), ([array] * 3, 1), ([array, path], 1), (iter([array]), 1)):
        started.clear()
        assert {found.detections[0].label for found in detector(given)} == {"cat"} and len(started) == threads
    detector._resize_on_device = True
    started.clear()
    assert len(detector([array] * 5)) == 5 and not started  # Nothing is left to a thread.


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


# Memory, digests and processes


def narrow(runner, room, batch=None):
    """The runner with room for so many images at once, as an engine of this range."""
    runner.batch, module, tried = batch, runner.module, []

    def run(images):
        tried.append(len(images))
        if len(images) > room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return module(images)

    runner.module = run
    return tried


@pytest.mark.parametrize("batch, sizes", [("2:4:8", [8, 4, 2, 2, 2, 2, 2, 2]), ("1:8:8", [8, 4, 2, 2, 2, 2, 2, 2])])
def test_too_little_memory_halves_the_batch_and_loses_nothing(known, pictures, batch, sizes):
    colors = [RED, BLUE, BLUE, RED, RED, BLUE, RED, BLUE, BLUE, BLUE, RED, BLUE]
    paths = [pictures(f"{i}.png", color, (100 + i, 50)) for i, color in enumerate(colors)]
    runner, notes = load_engine(known, "cpu"), []
    tried = narrow(runner, 3, BatchRange.parse(batch))
    answers = Detector(runner, note=notes.append)(paths)
    assert answers == Detector(known, "cpu")(paths) and len(answers) == 12
    assert notes == [f"There is not enough memory for {n} pictures at once; going on with {n // 2}." for n in (8, 4)]
    assert tried == sizes


@pytest.mark.parametrize("batch, tries", [("8", [8]), ("4:4:16", [16, 8, 4])])
def test_too_little_memory_for_the_smallest_batch_is_one_message(known, pictures, batch, tries):
    runner = load_engine(known, "cpu")
    tried = narrow(runner, 3, BatchRange.parse(batch))
    with pytest.raises(
        GpuError, match=f"not enough memory for a batch of {tries[-1]}, the smallest that this file takes"
    ):
        Detector(runner)([pictures("red.png")] * 16)
    assert tried == tries


def test_expected_sha256(known):
    digest = sha256_file(known)
    assert Detector(known, "cpu", sha256=digest.upper()).runner.path == known
    with pytest.raises(ArtifactError, match=f"has the SHA-256 {digest}; expected {'0' * 64}, as requested"):
        Detector(known, "cpu", sha256="0" * 64)
    with pytest.raises(ArtifactError, match="give it to load_engine"):
        Detector(load_engine(known, "cpu"), sha256=digest)


def test_a_spawned_process_loads_the_file_itself(known, pictures):
    """Pickled are its path and options, and the digest is checked there too."""
    detector = Detector(known, sha256=sha256_file(known), threshold=0.7, max_detections=2, orient=False, workers=1)
    copied = pickle.loads(pickle.dumps(detector))
    assert (copied.threshold, copied.max_detections, copied.orient, copied.workers) == (0.7, 2, False, 1)
    options = {"device": None, "sha256": sha256_file(known), "cuda_graph": None, "reuse_outputs": True}
    assert copied.runner.load_options == options
    path = pictures("red.png")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(detector, ([path],)) == detector([path])


def test_a_pickled_detector_does_not_take_a_file_that_has_changed(tmp_path):
    path = known_file(tmp_path / "known.ts")
    pickled = pickle.dumps(Detector(path, "cpu", sha256=sha256_file(path)))
    known_file(path, trained=False)
    with pytest.raises(ArtifactError, match="as requested"):
        pickle.loads(pickled)


def test_a_process_forked_from_one_that_uses_the_gpu_is_told_so(known, monkeypatch):
    """As torch sees it there; without a GPU it can only be pretended."""
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(GpuError, match="was forked from one that uses the GPU.*multiprocessing's spawn"):
        Detector(known)
    Detector(known, "cpu")


# Running over files


@pytest.fixture
def detector(known):
    return Detector(known, "cpu")


def strict(text):
    """JSON as the standard has it: NaN and Infinity are refused."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def jsonl(path):
    """The objects of a file of JSON lines, every line of which is whole."""
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [strict(line) for line in text.splitlines()]


class Numbers(dict):
    """The image ids of pictures whose names are numbers."""

    def __missing__(self, path):
        return int(Path(path).stem)


def three(folder, detector):
    """A sink of every kind in `folder`."""
    labels = detector.runner.labels
    return [
        folder_sink(detector, folder / "out"),
        JsonLinesSink(folder / "d.jsonl", labels),
        CocoSink(folder / "coco.json", Numbers(), config.COCO_CATEGORY_IDS),
    ]


def written(folder):
    """The pictures that stand in each of the three, by name."""
    entries = pictures_in(folder / "out")
    rows = strict((folder / "coco.json").read_text(encoding="utf-8"))
    return (
        [os.path.basename(entry["image"]) for entry in entries],
        [os.path.basename(line["image"]) for line in jsonl(folder / "d.jsonl")],
        sorted({row["image_id"] for row in rows}),
    )


def test_every_kind_at_once_says_the_same(detector, pictures, tmp_path):
    paths = [pictures("1.png"), pictures("0002.png", BLUE, (60, 40))]
    summary = detect_files(detector, iter(paths), three(tmp_path, detector))
    assert written(tmp_path) == (["1.png", "0002.png"], ["1.png", "0002.png"], [1, 2])
    assert visible(tmp_path / "out") == ["0002.jpg", "1.jpg", "detections.json"]
    expected = [found.as_dict() for found in detector(paths)]
    entries = pictures_in(tmp_path / "out")
    assert [entry.pop("drawing") for entry in entries] == ["1.jpg", "0002.jpg"] and entries == expected
    assert lines_of((tmp_path / "d.jsonl").read_text(encoding="utf-8")) == expected
    rows = strict((tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert [(row["image_id"], row["category_id"]) for row in rows] == [
        (1, 17), (1, 18), (1, 1), (2, 3), (2, 18), (2, 1)
    ]  # fmt: skip
    assert [row["score"] for row in rows[:3]] == pytest.approx([CAT, DOG, PERSON], abs=2e-6)
    assert rows[0]["bbox"] == pytest.approx([13.0, 6.5, 174.0, 87.0], abs=0.011)
    assert (summary.pictures, summary.detections, summary.failures) == (2, 6, ())
    assert [found.as_dict() for found in summary.first] == expected


def test_a_broken_picture_among_good_ones(detector, pictures, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no picture")
    failures = []
    paths = [pictures("1.png"), tmp_path / "2.png", pictures("3.png")]
    lines = []
    summary = detect_files(detector, paths, three(tmp_path, detector), failures, 3, lines.append)
    assert written(tmp_path) == (["1.png", "3.png"], ["1.png", "3.png"], [1, 3])
    assert summary.pictures == 2 and len(summary.failures) == len(failures) == 1
    assert str(failures[0]).startswith(f"{tmp_path / '2.png'} cannot be read as a picture (")
    assert lines[-1].startswith(f"detecting [{20 * '#'}] 3 of 3 images, ")


def test_progress_ends_at_the_total_where_the_last_picture_is_broken(detector, pictures, tmp_path):
    lines = []
    detect_files(detector, [pictures("1.png"), tmp_path / "no.png"], [], [], 2, lines.append)
    assert lines[-1].startswith(f"detecting [{20 * '#'}] 2 of 2 images, ")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("place", ["between", "reading", "drawing"])
def test_what_is_written_is_valid_wherever_a_run_breaks_off(detector, pictures, tmp_path, monkeypatch, error, place):
    detector.batch_size = 1
    paths = [pictures(f"{number}.png") for number in range(1, 7)]

    def stop(found):
        if found.image == str(paths[2]) and place == "between":
            raise error

    def some():
        yield from paths[:4]
        if place == "reading":
            raise error
        yield from paths[4:]

    if place == "drawing":
        monkeypatch.setattr(folder_sink_module, "worker_count", lambda: 1)
        draw = folder_sink_module.draw_detections
        count = iter(range(9))
        monkeypatch.setattr(
            folder_sink_module, "draw_detections", lambda *of: draw(*of) if next(count) < 1 else stop_now(error)
        )
    with pytest.raises(error):
        detect_files(detector, some(), three(tmp_path, detector), each=stop)
    in_folder, in_lines, in_coco = written(tmp_path)
    if place == "between":
        assert (in_folder, in_lines, in_coco) == (["1.png", "2.png", "3.png"], ["1.png", "2.png", "3.png"], [1, 2, 3])
    assert [f"{number}.png" for number in in_coco] == in_lines and in_folder[: len(in_lines)] == in_lines
    hidden = [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]
    assert hidden == [config.RECORD_FILE]  # Nothing half-written.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ssdtrt")]
    for name in os.listdir(tmp_path / "out"):
        if name.endswith(".jpg"):
            with Image.open(tmp_path / "out" / name) as opened:
                opened.load()


def stop_now(error):
    raise error


def test_an_interrupt_in_the_middle_of_a_write_leaves_whole_pieces(detector, pictures, tmp_path):
    """The second picture's line is cut in half, as by Ctrl-C."""
    detector.batch_size = 1
    lines = JsonLinesSink(tmp_path / "d.jsonl", detector.runner.labels)
    listed = folder_sink(detector, tmp_path / "out")

    class Torn:
        def __init__(self, file):
            self.file, self.writes = file, 0

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, piece):
            self.writes += 1
            if self.writes == 3:
                raise KeyboardInterrupt
            return self.file.write(piece if self.writes == 1 else piece[: len(piece) // 2])

    lines.output.file = Torn(lines.output.file)
    with pytest.raises(KeyboardInterrupt):
        detect_files(detector, [pictures("1.png"), pictures("2.png"), pictures("3.png")], [listed, lines])
    assert [line["image"] for line in jsonl(tmp_path / "d.jsonl")] == [str(tmp_path / "pictures" / "1.png")]
    assert len(pictures_in(tmp_path / "out")) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_breaks_off_in_a_batch_keeps_those_before_and_its_own_whole_lines(detector, pictures, tmp_path, error):
    lines, detector.batch_size = JsonLinesSink(tmp_path / "d.jsonl", detector.runner.labels), 3
    write, pieces = lines.output.file.write, []

    def torn(piece):
        pieces.append(bytes(piece))
        if len(pieces) == 3:
            raise error
        return write(piece if len(pieces) == 1 else piece[: 2 * len(piece) // 3 - 1])

    lines.output.file = SimpleNamespace(
        **{name: getattr(lines.output.file, name) for name in ("close", "seek", "seekable", "tell", "truncate")},
        write=torn,
    )
    paths = [pictures(f"{number}.png") for number in range(9)]
    with pytest.raises(type(error)):
        detect_files(detector, paths, [lines])
    assert [Path(line["image"]).name for line in jsonl(tmp_path / "d.jsonl")] == ["0.png", "1.png", "2.png", "3.png"]
    assert len(pieces[0].splitlines()) == len(pieces[1].splitlines()) == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ssdtrt")]


def test_json_lines_are_there_as_they_come(detector, pictures, tmp_path):
    detector.batch_size = 1
    seen = []
    paths = [pictures(f"{number}.png") for number in range(3)]
    detect_files(
        detector, paths, [JsonLinesSink(tmp_path / "d.jsonl", detector.runner.labels)],
        each=lambda found: seen.append(len(jsonl(tmp_path / "d.jsonl"))),
    )  # fmt: skip
    assert seen == [1, 2, 3]


def test_lines_and_results_go_to_a_stream_that_stays_open(detector, pictures):
    for kind in (JsonLinesSink, lambda stream, _: CocoSink(stream, Numbers(), config.COCO_CATEGORY_IDS)):
        stream = io.StringIO()
        detect_files(detector, [pictures("1.png")], [kind(stream, detector.runner.labels)])
        assert not stream.closed and strict(stream.getvalue())


def test_a_summary_remembers_the_first_twenty(detector, pictures):
    path = pictures("red.png")
    summary = detect_files(detector, [path] * 23, [])
    assert (summary.pictures, summary.detections, len(summary.first)) == (23, 69, 20)
    assert summary.seconds > 0 and summary.images_per_second == pytest.approx(23 / summary.seconds)
    assert Summary(0, 0, 0.0, (), ()).images_per_second == 0


def test_side_by_side_is_twice_as_wide(detector, known, pictures, tmp_path):
    """Both halves are there, the baseline's with what the baseline sees."""
    path = pictures("white.png", (255, 255, 255), (400, 200))
    baseline = Detector(known, "cpu", threshold=0.99)  # It sees nothing.
    detect_files(detector, [path], [folder_sink(detector, tmp_path / "out", baseline=baseline)])
    with Image.open(tmp_path / "out" / "white.jpg") as opened:
        pixels = np.asarray(opened).astype(int)
    assert 800 <= pixels.shape[1] <= 840 and 200 <= pixels.shape[0] <= 260
    halves = pixels[-190:-10, 10:390], pixels[-190:-10, -390:-10]
    colored = [(np.ptp(half, axis=-1) > 60).sum() for half in halves]
    assert colored[0] > 100 and colored[1] == 0


def test_side_by_side_with_the_eager_baseline_names_both(detector, pictures, tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(folder_sink_module, "side_by_side", lambda left, right, titles: names.append(titles) or left)
    eager = EagerRunner("eager-fp32", detector.runner.module, detector.runner, "fp32")
    baseline = Detector(eager)
    detect_files(detector, [pictures("red.png")], [folder_sink(detector, tmp_path / "out", baseline=baseline)])
    assert names == [("known.ts FP32", "eager-fp32")]


# Addresses


def served(web, *paths):
    """Serve files; return their addresses, with a user name and password."""
    for path in paths:
        web.pages[f"/x/{path.name}"] = path.read_bytes()
    return [web.address(f"/x/{path.name}", user="me:secret@") for path in paths]


def test_what_was_fetched_is_detected_in_once_and_kept(known, pictures, web, monkeypatch):
    red, blue = pictures("red.png"), pictures("blue.png", BLUE)
    addresses = served(web, red, blue)
    detector = Detector(known, "cpu", allow_private=True)
    found, files = detector(addresses), detector([red, blue])
    assert [one.image for one in found] == [web.address(f"/x/{name}.png") for name in ("red", "blue")]
    assert [one.detections for one in found] == [one.detections for one in files]
    web.pages["/x/red.png"] = blue.read_bytes()  # As a camera's address: another picture the next time.
    assert found[0].picture.getpixel((0, 0)) == RED and found[0].plot().size == (200, 100)
    assert pickle.loads(pickle.dumps(found[0])).picture.getpixel((0, 0)) == RED
    assert sorted(web.paths) == ["/x/blue.png", "/x/red.png"]
    ((_, kept),) = detector.stream([addresses[1]], keep=True)
    assert kept.picture.getpixel((0, 0)) == BLUE and len(web.requests) == 3
    monkeypatch.setattr(config, "KEPT_BYTES", 0)
    assert detector(addresses[0]).picture.getpixel((0, 0)) == BLUE and len(web.requests) == 5
    assert {headers["Authorization"] for _, headers in web.requests} == {"Basic bWU6c2VjcmV0"}


def test_what_may_be_fetched_goes_with_the_detector(known, pictures, web):
    (address,) = served(web, pictures("red.png"))
    with pytest.raises(ImageError, match=r"--allow-private \(allow_private\)"):
        Detector(known, "cpu")(address)
    detector = Detector(known, "cpu", allow_private=True, max_bytes=10, timeout=3)
    for one in (detector, pickle.loads(pickle.dumps(detector))):
        assert one.addresses == (True, 10, 3.0)
        with pytest.raises(ImageError, match="it has more than 10 bytes") as caught:
            one([address])
        assert "secret" not in str(caught.value)


def test_drawings_are_named_after_the_paths_of_addresses(known, pictures, web, tmp_path):
    content = pictures("red.png").read_bytes()
    paths = ["/x/a.jpg?size=2", "/y/a.jpg", "/..%2f..%2fetc%2fb.jpg", "/", "/200/300"]
    for path in paths:
        web.pages[path] = content
    detector, failures = Detector(known, "cpu", allow_private=True), []
    sinks = [folder_sink(detector, tmp_path / "out")]
    detect_files(detector, map(web.address, paths), sinks, failures, len(paths))
    names = ["a.jpg", "a-2.jpg", "_.._etc_b.jpg", "picture.jpg", "300.jpg"]
    assert not failures and [entry["drawing"] for entry in pictures_in(tmp_path / "out")] == names
    assert visible(tmp_path / "out") == sorted([*names, "detections.json"])
    assert sorted(os.listdir(tmp_path)) == ["out", "pictures"] and sorted(web.paths) == sorted(paths)


def test_pictures_that_were_prepared_elsewhere_are_detected_in_alike(known, pictures):
    paths = [pictures(f"{n}.png", color, (200 + n, 100)) for n, color in enumerate((RED, BLUE, RED))]
    detector, failures = Detector(known), []

    def prepared():
        for n, path in enumerate(paths):
            with Image.open(path) as opened:
                pixels = np.asarray(opened.resize((300, 300), Image.Resampling.BILINEAR))  # It is read-only.
                yield reader.PreparedPicture(2 * n, str(path), opened.size, pixels, str(path))
            yield ImageError(f"nothing behind {n}")

    found = [one for batch in detector.stream_prepared(prepared(), failures) for one in batch]
    assert [index for index, _ in found] == [0, 2, 4]
    assert [one for _, one in found] == detector(paths)
    assert [one.class_name[0] for _, one in found] == ["cat", "car", "cat"]
    assert list(map(str, failures)) == ["nothing behind 0", "nothing behind 1", "nothing behind 2"]
    with pytest.raises(ImageError, match="^nothing behind 0$"):
        list(detector.stream_prepared(prepared()))
