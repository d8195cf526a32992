"""What becomes of detections: pictures in a folder, JSON lines, COCO's results; each alone, together and broken off."""

import io
import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from known import BLUE, CAT, DOG, PERSON, RED, known_file
from ssdtrt import config
from ssdtrt.artifact.baseline import EagerRunner
from ssdtrt.detect import Detector
from ssdtrt.detection import sinks
from ssdtrt.detection.sinks import (
    UNTRAINED,
    CocoSink,
    FolderSink,
    JsonLinesSink,
    Summary,
    bar,
    detect_files,
    detect_to_folder,
    unused_name,
)
from ssdtrt.errors import ArtifactError, ImageError


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


def three(folder, detector, failures=None):
    """An output of every kind in `folder`."""
    labels = detector.runner.labels
    return [
        FolderSink(folder / "out", detector),
        JsonLinesSink(folder / "d.jsonl", labels),
        CocoSink(folder / "coco.json", labels, [] if failures is None else failures),
    ]


def written(folder):
    """The pictures that stand in each of the three, by name."""
    entries = strict((folder / "out" / "detections.json").read_text(encoding="utf-8"))
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
    assert sorted(os.listdir(tmp_path / "out")) == ["0002.jpg", "1.jpg", "detections.json"]
    expected = [found.as_dict() for found in detector(paths)]
    assert strict((tmp_path / "out" / "detections.json").read_text(encoding="utf-8")) == expected
    assert jsonl(tmp_path / "d.jsonl") == expected
    rows = strict((tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert [(row["image_id"], row["category_id"]) for row in rows] == [
        (1, 17), (1, 18), (1, 1), (2, 3), (2, 18), (2, 1)
    ]  # fmt: skip
    assert [row["score"] for row in rows[:3]] == pytest.approx([CAT, DOG, PERSON], abs=2e-6)
    assert rows[0]["bbox"] == pytest.approx([13.0, 6.5, 174.0, 87.0], abs=0.011)
    assert (summary.pictures, summary.detections, summary.failures) == (2, 6, ())
    assert [found.as_dict() for found in summary.first] == expected


def test_the_80_classes_have_cocos_numbers(tmp_path):
    coco = CocoSink(tmp_path / "r.json", config.COCO_LABELS, [])
    with coco:
        assert [coco.categories[label] for label in (1, 11, 12, 13, 80)] == [1, 11, 13, 14, 90]
    with CocoSink(tmp_path / "r.json", ["background", "cat", "dog"], []) as own:
        assert list(own.categories) == [0, 1, 2]


def test_classes_of_ones_own_keep_their_numbers(pictures, tmp_path):
    labels = ["background", *(f"kind {n}" for n in range(1, 81))]
    detector = Detector(known_file(tmp_path / "own.ts", labels=labels), "cpu")
    detect_files(detector, [pictures("7.png")], [CocoSink(tmp_path / "r.json", labels, [])])
    assert [row["category_id"] for row in strict((tmp_path / "r.json").read_text())] == [16, 17, 1]


def test_a_name_that_is_no_number_is_a_failure_and_the_others_are_written(detector, pictures, tmp_path):
    names = ["1.png", "two.png", "3.png", "\u0664.png", "-5.png", "6.png"]
    paths = [pictures(name) for name in names]
    failures, said = [], []
    summary = detect_files(detector, paths, three(tmp_path, detector, failures), failures, len(paths), said.append)
    assert written(tmp_path) == (names, names, [1, 3, 6])
    assert [str(failure) for failure in summary.failures] == [
        f"{path} is not in COCO's results: they need a number as the file's name, as 000139.jpg."
        for path in (paths[1], paths[3], paths[4])
    ]
    assert summary.pictures == 6 and said[-1].startswith(f"detecting [{20 * '#'}] 6 of 6 pictures, ")


def test_a_broken_picture_among_good_ones(detector, pictures, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no picture")
    failures = []
    paths = [pictures("1.png"), tmp_path / "2.png", pictures("3.png")]
    said = []
    summary = detect_files(detector, paths, three(tmp_path, detector, failures), failures, 3, said.append)
    assert written(tmp_path) == (["1.png", "3.png"], ["1.png", "3.png"], [1, 3])
    assert summary.pictures == 2 and len(summary.failures) == len(failures) == 1
    assert str(failures[0]).startswith(f"{tmp_path / '2.png'} cannot be read as a picture (")
    assert said[-1].startswith(f"detecting [{20 * '#'}] 3 of 3 pictures, ")


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
        monkeypatch.setattr(sinks, "worker_count", lambda: 1)
        draw = sinks.draw_detections
        count = iter(range(9))
        monkeypatch.setattr(sinks, "draw_detections", lambda *of: draw(*of) if next(count) < 1 else stop_now(error))
    with pytest.raises(error):
        detect_files(detector, some(), three(tmp_path, detector), each=stop)
    in_folder, in_lines, in_coco = written(tmp_path)
    if place == "between":
        assert (in_folder, in_lines, in_coco) == (["1.png", "2.png", "3.png"], ["1.png", "2.png", "3.png"], [1, 2, 3])
    assert [f"{number}.png" for number in in_coco] == in_lines and in_folder[: len(in_lines)] == in_lines
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]  # Nothing half-written.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ssdtrt")]
    for name in os.listdir(tmp_path / "out"):
        if name.endswith(".jpg"):
            with Image.open(tmp_path / "out" / name) as opened:
                opened.load()


def stop_now(error):
    raise error


def test_an_interrupt_in_the_middle_of_a_write_leaves_whole_pieces(detector, pictures, tmp_path):
    """The second picture's line is cut in half, as by Ctrl-C."""
    lines = JsonLinesSink(tmp_path / "d.jsonl", detector.runner.labels)
    listed = FolderSink(tmp_path / "out", detector)

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

    lines.lines.output.file = Torn(lines.lines.output.file)
    with pytest.raises(KeyboardInterrupt):
        detect_files(detector, [pictures("1.png"), pictures("2.png"), pictures("3.png")], [listed, lines])
    assert [line["image"] for line in jsonl(tmp_path / "d.jsonl")] == [str(tmp_path / "pictures" / "1.png")]
    assert len(strict((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))) == 2


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
    for kind in (JsonLinesSink, lambda stream, labels: CocoSink(stream, labels, [])):
        stream = io.StringIO()
        detect_files(detector, [pictures("1.png")], [kind(stream, detector.runner.labels)])
        assert not stream.closed and strict(stream.getvalue())


def test_a_summary_remembers_the_first_twenty(detector, pictures):
    path = pictures("red.png")
    summary = detect_files(detector, [path] * 23, [])
    assert (summary.pictures, summary.detections, len(summary.first)) == (23, 69, 20)
    assert summary.seconds > 0 and summary.images_per_second == pytest.approx(23 / summary.seconds)
    assert Summary(0, 0, 0.0, (), ()).images_per_second == 0


@pytest.mark.parametrize(
    "done, total, text",
    [
        (1, 4, "detecting [#####...............] 1 of 4 pictures, 12 images/s"),
        (0, 4, "detecting [....................] 0 of 4 pictures, 12 images/s"),
        (4, 4, "detecting [####################] 4 of 4 pictures, 12 images/s"),
        (5, 4, "detecting [####################] 5 of 4 pictures, 12 images/s"),
        (7, None, "detecting, 7 pictures, 12 images/s"),
    ],
)
def test_bar(done, total, text):
    assert bar(done, total, 12.3) == text


def test_side_by_side_is_twice_as_wide(detector, known, pictures, tmp_path):
    """Both halves are there, the peer's with what the peer sees."""
    path = pictures("white.png", (255, 255, 255), (400, 200))
    peer = Detector(known, "cpu", threshold=0.99)  # It sees nothing.
    detect_files(detector, [path], [FolderSink(tmp_path / "out", detector, peer=peer)])
    with Image.open(tmp_path / "out" / "white.jpg") as opened:
        pixels = np.asarray(opened).astype(int)
    assert 800 <= pixels.shape[1] <= 840 and 200 <= pixels.shape[0] <= 260
    halves = pixels[-190:-10, 10:390], pixels[-190:-10, -390:-10]
    colored = [(np.ptp(half, axis=-1) > 60).sum() for half in halves]
    assert colored[0] > 100 and colored[1] == 0


def test_side_by_side_with_an_eager_peer_names_both(detector, pictures, tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(sinks, "side_by_side", lambda left, right, titles: names.append(titles) or left)
    eager = EagerRunner("eager", detector.runner.module, detector.runner, "fp32")
    peer = Detector(eager)
    detect_files(detector, [pictures("red.png")], [FolderSink(tmp_path / "out", detector, peer=peer)])
    assert names == [("FP32 known.ts", "FP32 eager")]


def test_folder_holds_pictures_and_json(known, pictures, tmp_path):
    paths = [pictures("red.png"), pictures("blue.jpg", BLUE, (400, 200))]
    lines = []
    results, failures = detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out", lines.append)
    assert sorted(os.listdir(tmp_path / "out")) == ["blue.jpg", "detections.json", "red.jpg"]
    assert [result.image for result in results] == [str(path) for path in paths] and failures == []
    assert lines and lines[-1].startswith("detecting [####################] 2 of 2 pictures, ")


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
    path = pictures("gray.png", (128, 128, 129), (400, 200))
    detect_to_folder(Detector(known, "cpu", max_detections=1), [path], tmp_path / "out")
    with Image.open(tmp_path / "out" / "gray.jpg") as opened:
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
    text = (tmp_path / "out" / "detections.json").read_text(encoding="utf-8")
    assert strict(text) == [] and text.endswith("]\n")


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


def test_a_link_to_a_picture_in_the_output_folder_does_not_cost_the_picture(known, pictures, tmp_path):
    target = pictures("photos/red.jpg", RED, (200, 100))
    before = target.read_bytes()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "red.jpg").symlink_to(target)
    detect_to_folder(Detector(known, "cpu"), [tmp_path / "links" / "red.jpg"], target.parent)
    assert target.read_bytes() == before
    assert sorted(os.listdir(target.parent)) == ["detections.json", "red-2.jpg", "red.jpg"]


def test_beside_a_picture_nothing_else_is_overwritten_either(known, pictures):
    path, other = pictures("red.jpg", RED, (200, 100)), pictures("red-2.jpg", RED, (100, 200))
    before = other.read_bytes()
    detect_to_folder(Detector(known, "cpu"), [path], path.parent)
    assert other.read_bytes() == before and (path.parent / "red-3.jpg").is_file()


def test_of_a_list_that_is_not_known_nothing_is_overwritten(known, pictures, tmp_path):
    first, second = pictures("in/a.png", RED, (200, 100)), pictures("out/a.jpg", RED, (100, 200))
    before, detector = second.read_bytes(), Detector(known, "cpu")
    detect_files(detector, iter([first, second]), [FolderSink(second.parent, detector)])
    assert second.read_bytes() == before
    assert sorted(os.listdir(second.parent)) == ["a-2.jpg", "a-3.jpg", "a.jpg", "detections.json"]


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
    for color, label in ((RED, "cat"), (BLUE, "car")):
        path = pictures("picture.png", color)
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
    with pytest.raises(ArtifactError, match="detections.json cannot be written: Permission denied. Give another with"):
        detect_to_folder(Detector(known, "cpu"), [pictures("red.png")], tmp_path / "out")


def test_the_list_of_detections_is_a_directory(known, pictures, tmp_path):
    place = tmp_path / "out" / "detections.json"
    place.mkdir(parents=True)
    with pytest.raises(ArtifactError) as caught:
        detect_to_folder(Detector(known, "cpu"), [pictures("red.png")], tmp_path / "out")
    assert str(caught.value) == f"{place} cannot be written: Is a directory. Give another with -o."
