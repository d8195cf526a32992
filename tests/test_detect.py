"""From pictures to detections: the real network against one by hand, and a network whose answers are known."""

import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from known import BLUE, CAT, DOG, PERSON, RED, known_file
from ssdtrt import config
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.request import BatchRange
from ssdtrt.artifact.runner import load_engine
from ssdtrt.detect import Detector
from ssdtrt.detection.results import Detection, Detections, ImageDetections
from ssdtrt.errors import ArtifactError, GpuError, ImageError, SsdtrtError
from ssdtrt.hub import nvidia_ssd_processing_utils
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect
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


def test_stream_gives_places_and_arrays_and_collects_failures(known, pictures, tmp_path):
    failures = []
    paths = [tmp_path / "no.png", pictures("red.png"), tmp_path, pictures("blue.png", BLUE, (30, 20))]
    detector = Detector(known, "cpu")
    pairs = list(detector.stream(paths, failures, keep=True))
    assert [index for index, _ in pairs] == [1, 3] and all(isinstance(found, Detections) for _, found in pairs)
    assert [found.image for _, found in pairs] == [str(paths[1]), str(paths[3])]
    assert [(found.width, found.height) for _, found in pairs] == [(200, 100), (30, 20)]
    assert [found.picture.size for _, found in pairs] == [(200, 100), (30, 20)]
    assert [found.labels.tolist() for _, found in pairs] == [[16, 17, 1], [3, 17, 1]]
    found = pairs[0][1]
    assert (found.boxes.dtype, found.labels.dtype, found.scores.dtype) == (np.float32, np.int64, np.float32)
    assert found.scores.tolist() == pytest.approx([CAT, DOG, PERSON], abs=2e-6)
    assert found.boxes[0].tolist() == pytest.approx([13.0, 6.5, 187.0, 93.5], abs=0.011)
    assert [str(failure) for failure in failures] == [
        f"{tmp_path / 'no.png'}: no such file.",
        f"{tmp_path} is a directory; expected a picture.",
    ]
    assert all(found.picture is None for _, found in detector.stream(paths, []))


def test_stream_is_lazy(known, pictures, tmp_path):
    detector = Detector(known, "cpu")
    detector.batch_size = 1
    stream = detector.stream([pictures("red.png"), pictures("blue.png", BLUE), tmp_path / "no.png"])
    assert next(stream)[1].labels[0] == 16
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
    assert packed.shape == (2, 3, 6)
    assert packed[:, -1, 0].tolist() == [2, 2] and packed[:, :2, 4].tolist() == [[16, 17], [3, 17]]


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


def test_one_path_is_no_list(known):
    with pytest.raises(ImageError, match="a.jpg is one picture; expected a list of pictures."):
        Detector(known, "cpu")("a.jpg")


def test_boxes_of_the_middle_square_are_mapped_back(tmp_path, pictures):
    path = known_file(tmp_path / "hub.ts", preprocess="hub")
    (answer,) = Detector(path, "cpu")([pictures("wide.png", RED, (600, 300))])
    # What is 0..1 of the middle 300 pixels is 150..450 of the picture's width.
    assert answer.detections[0].box == pytest.approx((169.5, 19.5, 430.5, 280.5), abs=0.011)
    assert answer.detections[1].box == pytest.approx((150.0, 57.72, 450.0, 242.28), abs=0.011)


def test_a_hub_module_is_prepared_as_the_hub_utilities_do(hub_module, photographs):
    """The same detections as with the utilities' own preparation, in the middle square's coordinates."""
    path = photographs[2]  # 600 x 400: the middle square is 100..500.
    utils = nvidia_ssd_processing_utils()
    images = torch.from_numpy(utils.prepare_input(path)).permute(2, 0, 1)[None]
    with torchscript.quiet(), torch.no_grad():
        loc, conf = torch.jit.load(str(hub_module))(images)
    ((boxes, labels, scores),) = detect(loc, conf, default_boxes())
    edges = boxes.double().numpy() * 400 + (100, 0, 100, 0)
    expected = list(zip(labels.tolist(), scores.tolist(), edges.clip(0, (600, 400, 600, 400)).tolist()))
    (answer,) = Detector(hub_module, "cpu", threshold=0.3)([path])
    assert_same(answer.detections, [d for d in expected if d[1] >= 0.3], 0.3)


def test_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match="x.engine.ts: no such file. Make it first: ssdtrt compile"):
        Detector(tmp_path / "x.engine.ts")


@pytest.fixture
def mixed(photographs, tmp_path):
    """Paths of forty pictures: of seven sizes, one turned, some too large to be read whole, every fourth broken."""
    sizes = [(64, 48), (300, 300), (48, 64), (310, 400), (700, 650), (1300, 20)]
    paths = []
    for number in range(40):
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
def test_whole_pictures_resized_on_the_device_are_the_squeezed_ones(mixed, tmp_path, preprocess, monkeypatch):
    """The very pixels, and so the same detections, by threads, by processes, and by processes that resize nothing."""
    file = known_file(tmp_path / "known.ts", preprocess=preprocess)
    ways = {}
    for way in ("threads", "processes", "whole"):
        detector, seen, failures = Detector(file, "cpu", workers=2), [], []
        detector.batch_size, detector._resizes = 3, way == "whole"  # 12 slots
        start = detector.start
        monkeypatch.setattr(detector.batches, "start", lambda images: seen.append(images) or start(images))
        pairs = list(detector.stream(mixed, failures, many=way != "threads"))
        answers = [(place, found.named(detector.runner.labels)) for place, found in pairs]
        ways[way] = torch.cat(seen), answers, list(map(str, failures))
    pixels, answers, failures = ways["threads"]
    assert [place for place, _ in answers] == [place for place in range(40) if place % 4 != 3]
    assert len(failures) == 10 and pixels.shape == (30, 3, 300, 300)
    assert answers[0][1].width == 48 and answers[0][1].height == 64 and len(answers[0][1].detections) == 3
    for way in ("processes", "whole"):
        assert torch.equal(ways[way][0], pixels)
        assert ways[way][1:] == (answers, failures)


@pytest.mark.skipif(os.name != "posix", reason="files are handed to processes as on POSIX")
def test_what_processes_read_is_whole_only_where_it_is_resized_here(known, mixed, tmp_path):
    hub = known_file(tmp_path / "hub.ts", preprocess="hub")
    shapes = {}
    for file, resizes in ((known, True), (known, False), (hub, True)):
        detector = Detector(file, "cpu", workers=1)
        detector._resizes = resizes
        prepared = [one for one in detector._read_by_processes(mixed[:8]) if not isinstance(one, ImageError)]
        shapes[file, resizes] = [one.pixels.shape[:2] for one in prepared]
    # The first is turned; the fourth has too many pixels and the fifth is too long.
    assert shapes[known, True] == [(64, 48), (300, 300), (64, 48), (300, 300), (300, 300), (48, 64)]
    assert set(shapes[known, False] + shapes[hub, True]) == {(300, 300)}


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
    runner, said = load_engine(known, "cpu"), []
    tried = narrow(runner, 3, BatchRange.parse(batch))
    answers = Detector(runner, note=said.append)(paths)
    assert answers == Detector(known, "cpu")(paths) and len(answers) == 12
    assert said == [f"The GPU has not enough memory for {n} pictures at once; going on with {n // 2}." for n in (8, 4)]
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


def test_demanded_sha256(known):
    digest = sha256_file(known)
    assert Detector(known, "cpu", sha256=digest.upper()).runner.path == known
    with pytest.raises(ArtifactError, match=f"has the SHA-256 {digest}; expected {'0' * 64}, as demanded"):
        Detector(known, "cpu", sha256="0" * 64)
    with pytest.raises(ArtifactError, match="give it to load_engine"):
        Detector(load_engine(known, "cpu"), sha256=digest)


def test_a_spawned_process_loads_the_file_itself(known, pictures):
    """Pickled are its path and options, and the digest is demanded there too."""
    detector = Detector(known, sha256=sha256_file(known), threshold=0.7, max_detections=2, orient=False, workers=1)
    copied = pickle.loads(pickle.dumps(detector))
    assert (copied.threshold, copied.max_detections, copied.orient, copied.workers) == (0.7, 2, False, 1)
    assert copied.runner.asked == {"device": None, "sha256": sha256_file(known), "cuda_graph": False}
    path = pictures("red.png")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(detector, ([path],)) == detector([path])


def test_a_pickled_detector_does_not_take_a_file_that_has_changed(tmp_path):
    path = known_file(tmp_path / "known.ts")
    pickled = pickle.dumps(Detector(path, "cpu", sha256=sha256_file(path)))
    known_file(path, trained=False)
    with pytest.raises(ArtifactError, match="as demanded"):
        pickle.loads(pickled)


def test_a_process_forked_from_one_that_uses_the_gpu_is_told_so(known, monkeypatch):
    """As torch sees it there; without a GPU it can only be pretended."""
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(GpuError, match="was forked from one that uses the GPU.*multiprocessing's spawn"):
        Detector(known)
    Detector(known, "cpu")
