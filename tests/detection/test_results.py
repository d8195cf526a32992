"""What a detector finds: arrays for Python, names and rounded numbers for JSON."""

import json
import os
import pickle
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from ssdtrt.detection.drawing import draw_detections
from ssdtrt.detection.results import Detection, Detections, ImageDetections
from ssdtrt.errors import ArtifactError, ImageError, SsdtrtError
from ssdtrt.images.decode import load_image

CAT = Detection("cat", 16, 0.75, (1.5, 2.0, 30.25, 40.0))


def test_image_detections_as_dict():
    found = ImageDetections("a/cat.jpg", 451, 300, (CAT,)).as_dict()
    assert found == {
        "image": "a/cat.jpg",
        "width": 451,
        "height": 300,
        "detections": [{"label": "cat", "label_id": 16, "score": 0.75, "box": [1.5, 2.0, 30.25, 40.0]}],
    }
    assert list(found) == ["image", "width", "height", "detections"]
    assert json.loads(json.dumps(found)) == found


def test_detections_are_frozen():
    with pytest.raises(AttributeError):
        CAT.label = "dog"


def arrays(count):
    xyxy = np.float32([[1.504, 2.0, 30.256, 40.0], [0.0, 0.0, 5.125, 6.0]])[:count]
    return Detections("cat.jpg", 451, 300, xyxy, np.int64([2, 1])[:count], np.float32([0.1234567, 0.1])[:count])


def test_named_has_the_labels_and_rounds():
    found = arrays(2).named(["background", "dog", "cat"])
    assert (found.image, found.width, found.height) == ("cat.jpg", 451, 300)
    assert found.detections == (
        Detection("cat", 2, 0.123457, (1.5, 2.0, 30.26, 40.0)),
        Detection("dog", 1, 0.1, (0.0, 0.0, 5.12, 6.0)),
    )
    assert [type(one.label_id) for one in found.detections] == [int, int]


def test_named_without_a_detection():
    assert arrays(0).named(["background", "dog"]).detections == ()


# What a result can do

LABELS = ("background", "dog", "<cat>")


def result(picture=None, count=2, note=""):
    """A cat and a dog in a picture of 60 x 40."""
    xyxy = np.float32([[10.0, 5.0, 30.5, 20.0], [0.0, 0.0, 60.0, 40.0]])[:count]
    arrays = xyxy, np.int64([2, 1])[:count], np.float32([0.75, 0.5])[:count]
    load = None if picture is None else partial(load_image, picture)
    return Detections("", 60, 40, *arrays, LABELS, load, note)


@pytest.fixture
def gray():
    return Image.new("RGB", (60, 40), (90, 90, 90))


def test_names_records_and_length():
    found = result()
    assert found.class_name.tolist() == ["<cat>", "dog"] and len(found) == 2 and len(result(count=0)) == 0
    assert found.detections == (
        Detection("<cat>", 2, 0.75, (10.0, 5.0, 30.5, 20.0)), Detection("dog", 1, 0.5, (0.0, 0.0, 60.0, 40.0))
    )  # fmt: skip
    assert found.as_dict() == ImageDetections("", 60, 40, found.detections).as_dict()
    assert repr(found) == "<Detections picture 60x40: <cat> 0.75, dog 0.50>"
    assert repr(result(count=0)) == "<Detections picture 60x40: nothing>"


def test_equal_are_results_with_equal_arrays(gray):
    assert result() == result(gray) and result() != result(count=1) and result() != 3
    assert pickle.loads(pickle.dumps(result(gray))).plot().tobytes() == result(gray).plot().tobytes()


def test_other_libraries_take_the_arrays_as_they_are():
    """torchvision draws the very outlines; NumPy and torch share the types that are usual."""
    from torchvision.utils import draw_bounding_boxes

    found = result()
    assert (found.xyxy.dtype, found.class_id.dtype, found.confidence.dtype) == (np.float32, np.int64, np.float32)
    drawn = draw_bounding_boxes(torch.zeros(3, 40, 60).byte(), torch.from_numpy(found.xyxy[:1]), colors="white")
    rows, columns = torch.where(drawn[0] > 0)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 5, 30, 20)


def test_plot_is_what_detect_draws(gray):
    found, before = result(gray, note="untrained"), gray.tobytes()
    assert found.plot().tobytes() == draw_detections(gray, found.detections, "untrained").tobytes()
    assert found.plot(labels=False).tobytes() == draw_detections(gray, found.detections, "untrained", False).tobytes()
    assert found.plot().tobytes() != found.plot(labels=False).tobytes() and gray.tobytes() == before


def test_save_writes_the_format_of_the_suffix(gray, tmp_path):
    found = result(gray)
    for name, kind in (("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")):
        assert found.save(tmp_path / name, labels=False) == tmp_path / name
        with Image.open(tmp_path / name) as opened:
            assert opened.format == kind and opened.size == found.plot(labels=False).size
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.tobytes() == found.plot(labels=False).tobytes()
    for name in ("a.txt", "a", "a.psd"):
        with pytest.raises(ArtifactError, match=r"expected that of a picture, such as \.jpg or \.png\.$"):
            found.save(tmp_path / name)
    with pytest.raises(ArtifactError, match="cannot be written: No such file or directory.$"):
        found.save(tmp_path / "none" / "a.png")
    image = Image.new("RGB", (66_000, 2))
    wide = Detections(
        "a.png", *image.size, found.xyxy[:0], found.class_id[:0], found.confidence[:0], load=lambda: image
    )
    for name in ("b.webp", "b.gif", "b.tga", "b.sgi"):
        with pytest.raises(ArtifactError, match=rf"{name} cannot be written as {name[2:].upper()} \("):
            wide.save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["a.JPG", "a.png", "a.webp"]


def test_crops_are_in_the_order_of_the_detections(gray):
    gray.paste((200, 10, 10), (10, 5, 31, 20))
    crops = result(gray).crop()
    assert [crop.size for crop in crops] == [(21, 15), (60, 40)]
    assert crops[0].getcolors() == [(21 * 15, (200, 10, 10))]


def test_a_data_frame_has_a_row_for_each_detection(monkeypatch):
    frame = result().to_dataframe()
    assert frame.to_dict("records") == [
        {"image": "", "class_name": "<cat>", "class_id": 2, "confidence": 0.75,
         "xmin": 10.0, "ymin": 5.0, "xmax": 30.5, "ymax": 20.0},
        {"image": "", "class_name": "dog", "class_id": 1, "confidence": 0.5,
         "xmin": 0.0, "ymin": 0.0, "xmax": 60.0, "ymax": 40.0},
    ]  # fmt: skip
    assert isinstance(frame, pandas.DataFrame) and list(result(count=0).to_dataframe().columns) == list(frame.columns)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SsdtrtError, match="^to_dataframe needs pandas: pip install pandas$"):
        result().to_dataframe()


def test_a_notebook_shows_the_picture_and_a_table(gray):
    shown = result(gray)._repr_html_()
    assert '<img src="data:image/jpeg;base64,' in shown and "picture, 60x40: 2 objects" in shown
    assert "<tr><td>&lt;cat&gt;</td><td>0.75</td><td>10, 5, 30, 20</td></tr>" in shown
    without = result()._repr_html_()
    assert "<img" not in without and "The picture of these detections is not there any more." in without


def test_a_picture_that_is_not_there_or_another_one_is_one_line(gray, tmp_path):
    gray.save(tmp_path / "a.png")
    found = result(tmp_path / "a.png")
    assert found.picture.tobytes() == gray.tobytes()
    Image.new("RGB", (61, 40)).save(tmp_path / "a.png")
    for method in (found.plot, found.show, found.crop, partial(found.save, tmp_path / "b.png")):
        with pytest.raises(ImageError, match="^The picture is 61x40 now; it was 60x40 when it was detected in.$"):
            method()
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match="a.png: no such file.$"):
        found.plot()
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("shell", [None, SimpleNamespace(), SimpleNamespace(kernel=1)])
def test_show_opens_a_viewer_but_in_a_notebook(gray, shell, monkeypatch):
    """The viewer and the notebook's display are those of the machine, which a test must not open."""
    seen = []
    display = SimpleNamespace(display=lambda image: seen.append(("notebook", image.tobytes())))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setattr(Image.Image, "show", lambda image: seen.append(("viewer", image.tobytes())))
    result(gray).show()
    assert seen == [("notebook" if hasattr(shell, "kernel") else "viewer", result(gray).plot().tobytes())]
