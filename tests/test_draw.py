"""Boxes and labels drawn on pictures of any size."""

import numpy as np
import pytest
from PIL import Image

from ssdtrt.draw import colour_of, draw_detections
from ssdtrt.results import Detection

NOTE_GROUND = (40, 40, 40)


def detection(box, label_id=1, label="person", score=0.5):
    return Detection(label, label_id, score, tuple(float(edge) for edge in box))


def black(width, height):
    return Image.new("RGB", (width, height))


def where(picture, colour):
    """[H, W] of bool: which pixels have this colour."""
    return (np.asarray(picture) == colour).all(-1)


def changed(picture):
    """(left, top, right, bottom), all inclusive, of what is not black."""
    rows, columns = np.where(np.asarray(picture).any(-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_original_is_not_modified():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    before = picture.tobytes()
    drawn = draw_detections(picture, [detection((10, 20, 50, 50))], "a note")
    assert picture.tobytes() == before and drawn.tobytes() != before
    assert drawn.size == picture.size and drawn.mode == "RGB"


def test_without_detections_it_is_a_copy():
    picture = black(30, 20)
    drawn = draw_detections(picture, [])
    assert drawn is not picture and drawn.tobytes() == picture.tobytes()


@pytest.mark.parametrize("label_id", [1, 16, 80])
def test_box_has_its_class_colour_at_its_place(label_id):
    drawn = draw_detections(black(400, 320), [detection((100, 150, 300, 250), label_id)])
    mask = where(drawn, colour_of(label_id))
    for x, y in ((100, 200), (300, 200), (200, 250), (101, 249), (300, 250), (100, 250), (299, 151)):
        assert mask[y, x], (x, y)
    for x, y in ((99, 200), (301, 200), (200, 251), (102, 200), (298, 200), (200, 248), (200, 200)):
        assert not mask[y, x], (x, y)


@pytest.mark.parametrize("size", [(1000, 640), (640, 1000)])
def test_lines_are_thicker_on_large_pictures(size):
    mask = where(draw_detections(black(*size), [detection((100, 200, 600, 600))]), colour_of(1))
    assert np.flatnonzero(mask[400]).tolist() == [100, 101, 102, 103, 597, 598, 599, 600]


def test_lines_are_never_thinner_than_a_pixel():
    mask = where(draw_detections(black(60, 40), [detection((10, 20, 50, 35))]), colour_of(1))
    assert mask[20:36, 10].all() and mask[20:36, 50].all() and mask[35, 10:51].all()


def test_nothing_else_is_painted():
    picture = Image.new("RGB", (400, 320), (9, 9, 9))
    drawn = np.asarray(draw_detections(picture, [detection((100, 150, 300, 250))]))
    outside = (drawn != 9).any(-1)
    outside[120:251, 100:301] = False
    assert not outside.any()


@pytest.mark.parametrize("size", [(60, 40), (200, 150), (480, 480), (1000, 640)])
def test_box_of_the_whole_picture_has_all_four_edges(size):
    width, height = size
    mask = where(draw_detections(black(*size), [detection((0, 0, width, height))]), colour_of(1))
    assert mask[height // 2 :, 0].all()
    assert mask[height // 2 :, width - 1].all()
    assert mask[height - 1].all()


def test_label_stands_on_the_box():
    drawn = draw_detections(black(400, 320), [detection((100, 150, 300, 250), 17, "dog", 0.87)])
    left, top, right, bottom = changed(drawn)
    assert (left, right, bottom) == (100, 300, 250) and 125 <= top <= 140
    chip = where(drawn, colour_of(17))[top:150]
    width = chip.any(0).nonzero()[0].max() + 1
    assert chip[0, 100:width].all() and 30 <= width - 100 <= 90
    assert (~chip[:, 100:width]).sum() > 60  # The ink.


def test_label_holds_name_and_score():
    def chip(label, score):
        return np.asarray(draw_detections(black(400, 320), [detection((10, 100, 390, 300), 1, label, score)]))[:100]

    def width(pixels):
        return (pixels == colour_of(1)).all(-1).any(0).sum()

    assert np.array_equal(chip("cat", 0.501), chip("cat", 0.499))
    assert not np.array_equal(chip("cat", 0.5), chip("cat", 0.52))
    assert not np.array_equal(chip("cat", 0.5), chip("dog", 0.5))
    assert width(chip("traffic light", 0.5)) > width(chip("cat", 0.5)) + 30


@pytest.mark.parametrize("corner", [(0, 0), (399, 0), (0, 319), (399, 319), (399, 160), (200, 0)])
def test_label_lies_inside_the_picture(corner):
    middle = changed(draw_detections(black(400, 320), [detection((200, 160, 200, 160))]))
    found = changed(draw_detections(black(400, 320), [detection((*corner, *corner))]))
    assert 0 <= found[0] and found[2] < 400 and 0 <= found[1] and found[3] < 320
    assert found[2] - found[0] >= middle[2] - middle[0] - 2
    assert found[3] - found[1] >= middle[3] - middle[1] - 2


@pytest.mark.parametrize("label_id", [1, 4, 16, 44])
def test_ink_can_be_read_on_its_ground(label_id):
    drawn = draw_detections(black(400, 320), [detection((100, 150, 300, 250), label_id, "mmmmmm")])
    luminance = np.asarray(drawn) @ (0.299, 0.587, 0.114)
    chip = luminance[140:150, 104:140]  # The letters alone.
    ground = np.dot(colour_of(label_id), (0.299, 0.587, 0.114))
    assert np.abs(chip - ground).max() > 100
    assert (np.abs(chip - ground) > 50).mean() > 0.1


def test_every_class_has_its_own_colour():
    colours = [colour_of(label_id) for label_id in range(1, 81)]
    assert len(set(colours)) == 80
    assert all(0 <= part <= 255 and isinstance(part, int) for colour in colours for part in colour)
    assert all(max(colour) - min(colour) > 150 for colour in colours)
    assert colours == [colour_of(label_id) for label_id in range(1, 81)]


def test_neighbouring_classes_differ_much():
    for label_id in range(1, 80):
        difference = np.subtract(colour_of(label_id), colour_of(label_id + 1))
        assert np.abs(difference).sum() > 200


def test_the_best_is_on_top():
    best, other = detection((100, 150, 300, 250), 3, score=0.9), detection((100, 150, 300, 250), 5, score=0.6)
    drawn = draw_detections(black(400, 320), [best, other])
    assert drawn.getpixel((100, 200)) == colour_of(3)
    assert not where(drawn, colour_of(5))[150:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (16, 16)])
@pytest.mark.parametrize("note", ["", "untrained: random weights"])
def test_tiny_pictures(size, note):
    width, height = size
    boxes = [(0, 0, width, height), (0, 0, 0, 0), (width, height, width, height), (0.4, 0.4, 0.6, 0.6)]
    drawn = draw_detections(black(*size), [detection(box) for box in boxes], note)
    assert drawn.size == size and np.asarray(drawn).any()


@pytest.mark.parametrize(
    "box",
    [(50, 60, 50, 60), (50, 60, 50, 90), (50, 60, 90, 60), (50.2, 60.2, 50.3, 60.3), (0, 0, 0, 0), (200, 150, 200, 150)],
)
def test_boxes_without_area(box):
    drawn = draw_detections(black(200, 150), [detection(box)])
    assert where(drawn, colour_of(1)).any()


@pytest.mark.parametrize("box", [(10, 10, 11, 11), (10, 10, 12, 80), (10, 10, 13, 13)])
def test_boxes_narrower_than_their_lines(box):
    drawn = draw_detections(black(1000, 1000), [detection(box)])
    assert where(drawn, colour_of(1))[10, 10]


def test_note_is_along_the_bottom():
    plain = draw_detections(black(400, 320), [detection((100, 50, 300, 150))])
    drawn = draw_detections(black(400, 320), [detection((100, 50, 300, 150))], "untrained")
    mask = where(drawn, NOTE_GROUND)
    assert mask[319, :20].all() and mask.sum() > 200
    assert not mask[:290].any() and not mask[:, 200:].any()
    assert (np.asarray(drawn)[290:].min(-1) > 128).sum() > 40  # White letters.
    assert np.array_equal(np.asarray(drawn)[:290], np.asarray(plain)[:290])
    assert not where(plain, NOTE_GROUND).any()


def test_note_lies_over_the_boxes():
    drawn = draw_detections(black(400, 320), [detection((0, 0, 400, 320))], "untrained")
    assert drawn.getpixel((0, 319)) == NOTE_GROUND


def test_labels_of_any_script():
    drawn = draw_detections(black(400, 320), [detection((10, 50, 300, 150), 1, "café 猫 🐈")])
    assert where(drawn, colour_of(1)).any()


def test_tuple_of_detections():
    boxes = (detection((10, 50, 300, 150)), detection((50, 80, 200, 250), 2))
    picture = black(400, 320)
    assert draw_detections(picture, boxes).tobytes() == draw_detections(picture, list(boxes)).tobytes()
