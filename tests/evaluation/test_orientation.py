"""The notes on pictures that do not lie as they are annotated."""

import json

import pytest
from coco_files import write_annotations
from PIL import Image

from ssdtrt.evaluation.annotations import read_annotations
from ssdtrt.evaluation.orientation import orientation_notes
from ssdtrt.images.decode import load_image

STORED, TURNED, OTHER = (60, 40), (40, 60), (61, 40)
UPRIGHT = "not turned by EXIF orientation, but annotated upright, as the recorded sizes show: give --orient"
AS_STORED = "turned by EXIF orientation, but annotated as stored, as the recorded sizes show: leave out --orient"
IGNORED = (
    "with an EXIF orientation that was ignored, as in the published evaluation; if annotated upright, give --orient"
)
TIFF = "TIFF or HEIC with an orientation, by which it is always turned"
STORED_TIFF = f"{TIFF}, but annotated as stored, as the recorded sizes show: remove the tag"
EXCHANGED = "width and height exchanged in the annotations, and no EXIF orientation that says so"
ANOTHER = "another size than in the annotations"


def save(path, orientation=None):
    """A picture whose pixels are stored 60 x 40, with an EXIF orientation."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", STORED, "red").save(path, exif=exif)


@pytest.fixture
def notes(tmp_path):
    """The notes on pictures {name: (orientation, recorded size or None)}: `notes(pictures, orient)`."""

    def find(pictures, orient=False):
        names = dict(enumerate(pictures, 1))
        path = write_annotations(tmp_path / "a.json", names, [(1, 1, [0, 0, 9, 9])], {1: "cat"})
        data = json.loads(path.read_text())
        for image, (name, (orientation, recorded)) in zip(data["images"], pictures.items()):
            save(tmp_path / name, orientation)
            if recorded:
                image["width"], image["height"] = recorded
        path.write_text(json.dumps(data))
        paths = {number: tmp_path / name for number, name in names.items()}
        sizes = {number: load_image(path, orient=orient).size for number, path in paths.items()}
        return orientation_notes(read_annotations(path), paths, sizes, orient)

    return find


@pytest.mark.parametrize(
    "name, orientation, recorded, orient, text",
    [
        ("a.jpg", None, STORED, False, None),
        ("a.jpg", None, None, True, None),
        ("a.jpg", 1, None, False, None),
        ("a.jpg", 0, None, False, None),
        ("a.jpg", 6, TURNED, False, UPRIGHT),
        ("a.jpg", 6, STORED, False, None),  # As COCO's own are annotated.
        ("a.jpg", 6, None, False, IGNORED),
        ("a.jpg", 3, STORED, False, IGNORED),  # Half a turn leaves the size as it is.
        ("a.jpg", 6, OTHER, False, ANOTHER),
        ("a.jpg", 6, TURNED, True, None),
        ("a.jpg", 8, STORED, True, AS_STORED),
        ("a.jpg", 6, None, True, None),
        ("a.jpg", 3, STORED, True, None),
        ("a.jpg", None, TURNED, False, EXCHANGED),
        ("a.jpg", 3, TURNED, True, EXCHANGED),
        ("a.jpg", None, OTHER, True, ANOTHER),
        ("a.png", 6, TURNED, False, UPRIGHT),
        ("a.webp", 5, TURNED, False, UPRIGHT),
        ("a.tif", 6, TURNED, False, TIFF),
        ("a.tif", 6, None, False, TIFF),
        ("a.tif", 6, STORED, False, STORED_TIFF),
        ("a.tif", 6, STORED, True, STORED_TIFF),
        ("a.tif", 6, TURNED, True, None),
        ("a.tif", None, STORED, False, None),
    ],
)
def test_note(notes, name, orientation, recorded, orient, text):
    found = notes({name: (orientation, recorded)}, orient)
    assert found == (() if text is None else (f"1 of 1 picture: {text} ({name})",))


def test_each_way_has_one_note_with_the_first_names(notes):
    pictures = {f"{number}.jpg": (6, TURNED) for number in range(1, 6)}
    pictures |= {"x.jpg": (3, None), "y.jpg": (1, OTHER), "z.jpg": (None, STORED)}
    assert notes(pictures) == (
        f"5 of 8 pictures: {UPRIGHT} (1.jpg, 2.jpg, 3.jpg and 2 more)",
        f"1 of 8 pictures: {IGNORED} (x.jpg)",
        f"1 of 8 pictures: {ANOTHER} (y.jpg)",
    )


def test_a_square_picture_may_be_turned_unseen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 50)).save(tmp_path / "a.jpg", exif=exif)
    path = write_annotations(tmp_path / "a.json", {1: "a.jpg"}, [(1, 1, [0, 0, 9, 9])], {1: "cat"})
    data = json.loads(path.read_text())
    data["images"][0].update(width=50, height=50)
    path.write_text(json.dumps(data))
    known = read_annotations(path)
    found = orientation_notes(known, {1: tmp_path / "a.jpg"}, {1: (50, 50)}, False)
    assert found == (f"1 of 1 picture: {IGNORED} (a.jpg)",)
    assert orientation_notes(known, {1: tmp_path / "a.jpg"}, {}, False) == ()  # It could not be read.


def test_a_heic_is_turned_whatever_is_asked(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    path, exif = tmp_path / "a.heic", Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(Image.new("RGB", STORED, "red")).save(path, exif=exif.tobytes())
    truth = read_annotations(write_annotations(tmp_path / "a.json", {1: "a.heic"}, [(1, 1, [0, 0, 9, 9])], {1: "cat"}))
    assert load_image(path, orient=False).size == load_image(path).size == TURNED
    assert orientation_notes(truth, {1: path}, {1: TURNED}, False) == (f"1 of 1 picture: {TIFF} (a.heic)",)


def test_a_tiff_is_turned_whatever_is_asked(tmp_path):
    """Pillow does it; if this fails, the note and the documents are to change."""
    save(tmp_path / "a.tif", 6)
    save(tmp_path / "a.jpg", 6)
    sizes = [load_image(tmp_path / f"a.{kind}", orient=orient).size for kind in ("tif", "jpg") for orient in (0, 1)]
    assert sizes == [TURNED, TURNED, STORED, TURNED]
