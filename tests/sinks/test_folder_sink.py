"""Annotated pictures and detections.json in a folder, where nothing of the user's is lost."""

import numpy as np
import pytest
from command_line import pictures_in
from picture_files import visible
from PIL import Image

from known import BLUE, CAT, RED, known_file
from ssdtrt import config
from ssdtrt.detect import Detector, detect_files, folder_sink
from ssdtrt.detection.results import UNTRAINED, Detections
from ssdtrt.errors import ArtifactError, ImageError
from ssdtrt.run import detect_to_folder
from ssdtrt.sinks.folder_sink import FolderSink, _unused_name


def test_folder_holds_pictures_and_json(known, pictures, tmp_path):
    paths = [pictures("red.png"), pictures("blue.jpg", BLUE, (400, 200))]
    lines = []
    results, failures = detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out", lines.append)
    assert visible(tmp_path / "out") == ["blue.jpg", "detections.json", "red.jpg"]
    assert [result.image for result in results] == [str(path) for path in paths] and failures == []
    assert lines and lines[-1].startswith("detecting [####################] 2 of 2 images, ")


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_the_longest_names(letter, known, pictures, tmp_path):
    """A file's name has at most 255 bytes: the number, and the suffix, come off its end."""
    stem = letter * (251 // len(letter.encode()))
    paths = [pictures(f"{part}/{stem}.png") for part in "abc"]
    _, failures = detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out")
    cut = stem[: -2 // len(letter.encode())]
    assert failures == []
    expected = {f"{stem}.jpg", f"{cut}-2.jpg", f"{cut}-3.jpg", "detections.json"}
    assert set(visible(tmp_path / "out")) == expected


def test_json_schema(known, pictures, tmp_path):
    path = pictures("red.png")
    detect_to_folder(Detector(known, "cpu", max_detections=1), [path], tmp_path / "out")
    text = (tmp_path / "out" / "detections.json").read_text(encoding="utf-8")
    (entry,) = pictures_in(tmp_path / "out")
    assert list(entry) == ["image", "width", "height", "drawing", "detections"]
    (found_one,) = entry.pop("detections")
    assert entry == {"image": str(path), "width": 200, "height": 100, "drawing": "red.jpg"}
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
    entries = pictures_in(tmp_path)
    assert [entry.pop("drawing") for entry in entries] == ["a.jpg", "b.jpg"]
    assert entries == [result.as_dict() for result in results]


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
    assert visible(tmp_path / "out") == ["blue.jpg", "detections.json", "red.jpg"]
    assert len(pictures_in(tmp_path / "out")) == 2
    assert all(isinstance(failure, ImageError) for failure in failures)
    bad = [broken, empty, tmp_path / "no.png"]
    assert [str(failure).startswith(str(path)) for path, failure in zip(bad, failures)] == [True, True, True]


def test_only_bad_pictures(known, tmp_path):
    results, failures = detect_to_folder(Detector(known, "cpu"), [tmp_path / "no.png"], tmp_path / "out")
    assert results == [] and len(failures) == 1
    text = (tmp_path / "out" / "detections.json").read_text(encoding="utf-8")
    assert pictures_in(tmp_path / "out") == [] and text.endswith("]}\n")


def test_no_pictures_for_a_folder(known, tmp_path):
    assert detect_to_folder(Detector(known, "cpu"), [], tmp_path / "out") == ([], [])
    assert pictures_in(tmp_path / "out") == []


def test_pictures_of_the_same_name_are_numbered(known, pictures, tmp_path):
    paths = [
        pictures("a/cat.png", RED, (201, 100)), pictures("b/cat.jpg", RED, (202, 100)),
        pictures("c/cat-2.png", RED, (203, 100)), pictures("d/CAT.png", RED, (204, 100)),
    ]  # fmt: skip
    detect_to_folder(Detector(known, "cpu"), paths, tmp_path / "out")
    names = ["cat.jpg", "cat-2.jpg", "cat-2-2.jpg", "CAT-3.jpg"]
    assert visible(tmp_path / "out") == sorted([*names, "detections.json"])
    for name, width in zip(names, (201, 202, 203, 204)):
        with Image.open(tmp_path / "out" / name) as opened:
            assert opened.width == width


def test_the_same_picture_twice(known, pictures, tmp_path):
    path = pictures("cat.png")
    results, _ = detect_to_folder(Detector(known, "cpu"), [path, path], tmp_path / "out")
    assert len(results) == 2 and results[0] == results[1]
    assert visible(tmp_path / "out") == ["cat-2.jpg", "cat.jpg", "detections.json"]


def test_a_link_to_a_picture_in_the_output_folder_does_not_cost_the_picture(known, pictures, tmp_path):
    target = pictures("photos/red.jpg", RED, (200, 100))
    before = target.read_bytes()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "red.jpg").symlink_to(target)
    detect_to_folder(Detector(known, "cpu"), [tmp_path / "links" / "red.jpg"], target.parent)
    assert target.read_bytes() == before
    assert visible(target.parent) == ["detections.json", "red-2.jpg", "red.jpg"]


def test_beside_a_picture_nothing_else_is_overwritten_either(known, pictures):
    path, other = pictures("red.jpg", RED, (200, 100)), pictures("red-2.jpg", RED, (100, 200))
    before = other.read_bytes()
    detect_to_folder(Detector(known, "cpu"), [path], path.parent)
    assert other.read_bytes() == before and (path.parent / "red-3.jpg").is_file()


def test_of_a_list_that_is_not_known_nothing_is_overwritten(known, pictures, tmp_path):
    first, second = pictures("in/a.png", RED, (200, 100)), pictures("out/a.jpg", RED, (100, 200))
    before, detector = second.read_bytes(), Detector(known, "cpu")
    detect_files(detector, iter([first, second]), [folder_sink(detector, second.parent)])
    assert second.read_bytes() == before
    assert visible(second.parent) == ["a-2.jpg", "a-3.jpg", "a.jpg", "detections.json"]


def test_a_file_of_the_same_name_is_not_overwritten(known, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "RED.jpg").write_text("mine")
    detect_to_folder(Detector(known, "cpu"), [pictures("red.png")], tmp_path / "out")
    assert (tmp_path / "out" / "RED.jpg").read_text() == "mine"
    assert visible(tmp_path / "out") == ["RED.jpg", "detections.json", "red-2.jpg"]


def test_a_run_never_mixes_with_the_one_before(known, pictures, tmp_path):
    """Pictures and crops of the run before go; what the user put there or changed stays."""
    out, detector = tmp_path / "out", Detector(known, "cpu")
    paths = [pictures(f"{name}.png", RED) for name in "abc"]
    detect_files(detector, paths, [folder_sink(detector, out, save_crops=True)])
    (out / "b.jpg").write_text("edited")
    (out / "crops" / "cat" / "mine.jpg").write_text("mine")
    detect_files(detector, [pictures("d.png", BLUE)], [folder_sink(detector, out, save_crops=True)])
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {config.RECORD_FILE}
    assert files == {
        "b.jpg", "crops/cat/mine.jpg", "d.jpg", "crops/car/d.jpg", "crops/dog/d.jpg", "crops/person/d.jpg",
        "detections.json",
    }  # fmt: skip
    (entry,) = pictures_in(out)
    assert [entry["drawing"], *(one["crop"] for one in entry["detections"])] == [
        "d.jpg", "crops/car/d.jpg", "crops/dog/d.jpg", "crops/person/d.jpg"
    ]  # fmt: skip


def test_crops_are_what_lies_in_the_boxes(tmp_path):
    """Two cats of one picture, in a model whose class has a name that no folder can have."""
    labels = ("background", "../a/b. ", "dog")
    image = Image.new("RGB", (100, 80), (0, 0, 0))
    image.paste((200, 200, 200), (10, 20, 40, 60))
    boxes = np.float32([[10.0, 20.0, 39.5, 60.0], [-5.0, 70.2, 3.0, 99.0], [50.0, 50.0, 50.0, 50.0]])
    arrays = boxes, np.int64([1, 1, 2]), np.float32([0.9, 0.8, 0.7])
    found = Detections("a.png", 100, 80, *arrays, labels, lambda: image)
    with FolderSink(tmp_path, labels, save_crops=True) as sink:
        sink.write(found)
    (entry,) = pictures_in(tmp_path)
    crops = [one["crop"] for one in entry["detections"]]
    assert crops == ["crops/_a_b/a.jpg", "crops/_a_b/a-2.jpg", "crops/dog/a.jpg"]
    opened = [np.asarray(Image.open(tmp_path / crop)) for crop in crops]
    assert [crop.shape for crop in opened] == [(40, 30, 3), (10, 3, 3), (1, 1, 3)]
    assert abs(opened[0].astype(int) - 200).max() < 3 and opened[1].max() < 3


def test_what_no_jpeg_can_hold_is_drawn_smaller(tmp_path):
    image = Image.new("RGB", (66_000, 20))
    arrays = np.float32([[0, 0, 66_000, 20]]), np.int64([1]), np.float32([0.9])
    with FolderSink(tmp_path, ("background", "a"), save_crops=True) as sink:
        sink.write(Detections("a.png", *image.size, *arrays, load=lambda: image))
    (entry,) = pictures_in(tmp_path)
    assert (entry["width"], entry["detections"][0]["box"]) == (66_000, [0, 0, 66_000, 20])
    for name in (entry["drawing"], entry["detections"][0]["crop"]):
        with Image.open(tmp_path / name) as opened:
            assert opened.width == 65_500
    assert image.width == 66_000


def test_without_labels_there_are_boxes_alone(known, pictures, tmp_path):
    path, detector = pictures("gray.png", (128, 128, 129), (400, 200)), Detector(known, "cpu", max_detections=1)
    ink = []
    for labels in (True, False):
        detect_files(detector, [path], [folder_sink(detector, tmp_path / "out", show_labels=labels)])
        pixels = np.asarray(Image.open(tmp_path / "out" / "gray.jpg")).astype(int)
        ink.append(np.abs(pixels - 128).max(-1)[15:185, 28:372].max())  # Inside the box, (26, 13, 374, 187).
        assert np.abs(pixels - 128).max(-1)[100, 26] > 60
    assert ink[0] > 60 and ink[1] < 30


@pytest.mark.parametrize(
    "content", ['{"images": []}', '{"schema": 2, "kind": "picture", "pictures": [', "[\n {", "[1]", '[{"image": 1}]']
)
def test_a_list_of_detections_of_somebody_else_is_not_overwritten(content, known, pictures, tmp_path):
    (tmp_path / "detections.json").write_text(content)
    with pytest.raises(ArtifactError) as caught:
        detect_to_folder(Detector(known, "cpu"), [pictures("red.png")], tmp_path)
    place = tmp_path / "detections.json"
    assert str(caught.value) == f"{place} was not written by ssdtrt, and is not overwritten. Give another with -o."
    assert place.read_text() == content and visible(tmp_path) == ["detections.json", "pictures"]


def test_unused_name():
    names = set()
    assert [_unused_name(stem, names) for stem in ("a", "a", "A", "b", "a-2")] == [
        "a.jpg", "a-2.jpg", "A-3.jpg", "b.jpg", "a-2-2.jpg"
    ]  # fmt: skip
    assert _unused_name("é" * 127, set()) == "é" * 125 + ".jpg"


def test_pictures_in_the_output_folder_are_not_overwritten(known, pictures):
    path = pictures("red.jpg")
    before = path.read_bytes()
    detect_to_folder(Detector(known, "cpu"), [path], path.parent)
    assert path.read_bytes() == before
    assert len(visible(path.parent)) == 3  # The picture, the annotated one and detections.json.


def test_results_of_an_earlier_run_are_replaced(known, pictures, tmp_path):
    for color, label in ((RED, "cat"), (BLUE, "car")):
        path = pictures("picture.png", color)
        detect_to_folder(Detector(known, "cpu"), [path], tmp_path / "deep" / "out")
        (entry,) = pictures_in(tmp_path / "deep" / "out")
        assert entry["detections"][0]["label"] == label
    assert visible(tmp_path / "deep" / "out") == ["detections.json", "picture.jpg"]


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
