"""Boxes and labels drawn on pictures of any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssdtrt.detection.drawing import color_of, draw_detections, side_by_side
from ssdtrt.detection.results import Detection
from ssdtrt.images.decode import load_image

NOTE_GROUND = (40, 40, 40)


def detection(box, label_id=1, label="person", score=0.5):
    return Detection(label, label_id, score, tuple(float(edge) for edge in box))


def black(width, height):
    return Image.new("RGB", (width, height))


def where(picture, color):
    """[H, W] of bool: which pixels have this color."""
    return (np.asarray(picture) == color).all(-1)


def changed(picture):
    """(left, top, right, bottom), all inclusive, of what is not black."""
    rows, columns = np.where(np.asarray(picture).any(-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_original_is_not_modified():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    before = picture.tobytes()
    drawn = draw_detections(picture, [detection((10, 20, 50, 50))], "a note")
    assert picture.tobytes() == before and drawn.tobytes() != before
    assert drawn.size == picture.size and drawn.mode == "RGB"


def test_without_detections_it_is_a_copy():
    picture = black(30, 20)
    drawn = draw_detections(picture, [])
    assert drawn is not picture and drawn.tobytes() == picture.tobytes()


@pytest.mark.parametrize("label_id", [1, 16, 80])
def test_box_has_its_class_color_at_its_place(label_id):
    drawn = draw_detections(black(400, 320), [detection((100, 150, 300, 250), label_id)])
    mask = where(drawn, color_of(label_id))
    for x, y in ((100, 200), (300, 200), (200, 250), (101, 249), (300, 250), (100, 250), (299, 151)):
        assert mask[y, x], (x, y)
    for x, y in ((99, 200), (301, 200), (200, 251), (102, 200), (298, 200), (200, 248), (200, 200)):
        assert not mask[y, x], (x, y)


@pytest.mark.parametrize("size", [(1000, 640), (640, 1000)])
def test_lines_are_thicker_on_large_pictures(size):
    mask = where(draw_detections(black(*size), [detection((100, 200, 600, 600))]), color_of(1))
    assert np.flatnonzero(mask[400]).tolist() == [100, 101, 102, 103, 597, 598, 599, 600]


def test_lines_are_never_thinner_than_a_pixel():
    mask = where(draw_detections(black(60, 40), [detection((10, 20, 50, 35))]), color_of(1))
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
    mask = where(draw_detections(black(*size), [detection((0, 0, width, height))]), color_of(1))[:height, :width]
    assert mask[height // 2 :, 0].all()
    assert mask[height // 2 :, width - 1].all()
    assert mask[height - 1].all()


def test_label_stands_on_the_box():
    drawn = draw_detections(black(400, 320), [detection((100, 150, 300, 250), 17, "dog", 0.87)])
    left, top, right, bottom = changed(drawn)
    assert (left, right, bottom) == (100, 300, 250) and 125 <= top <= 140
    chip = where(drawn, color_of(17))[top:150]
    width = chip.any(0).nonzero()[0].max() + 1
    assert chip[0, 100:width].all() and 30 <= width - 100 <= 90
    assert (~chip[:, 100:width]).sum() > 60  # The ink.


def test_label_holds_name_and_score():
    def chip(label, score):
        return np.asarray(draw_detections(black(400, 320), [detection((10, 100, 390, 300), 1, label, score)]))[:100]

    def width(pixels):
        return (pixels == color_of(1)).all(-1).any(0).sum()

    assert np.array_equal(chip("cat", 0.501), chip("cat", 0.499))
    assert not np.array_equal(chip("cat", 0.5), chip("cat", 0.52))
    assert not np.array_equal(chip("cat", 0.5), chip("dog", 0.5))
    assert width(chip("traffic light", 0.5)) > width(chip("cat", 0.5)) + 30


@pytest.mark.parametrize("corner", [(0, 0), (399, 0), (0, 319), (399, 319), (399, 160), (200, 0)])
def test_label_lies_inside_the_picture(corner):
    middle = changed(draw_detections(black(400, 320), [detection((200, 160, 200, 160))]))
    found = changed(draw_detections(black(400, 320), [detection((*corner, *corner))]))
    assert found[0] >= 0 and found[2] < 400 and found[1] >= 0 and found[3] < 320
    assert found[2] - found[0] >= middle[2] - middle[0] - 2
    assert found[3] - found[1] >= middle[3] - middle[1] - 3


@pytest.mark.parametrize("label_id", [1, 4, 16, 44])
def test_ink_can_be_read_on_its_ground(label_id):
    drawn = draw_detections(black(400, 320), [detection((100, 150, 300, 250), label_id, "mmmmmm")])
    luminance = np.asarray(drawn) @ (0.299, 0.587, 0.114)
    chip = luminance[140:150, 104:140]  # The letters alone.
    ground = np.dot(color_of(label_id), (0.299, 0.587, 0.114))
    assert np.abs(chip - ground).max() > 100
    assert (np.abs(chip - ground) > 50).mean() > 0.1


def test_every_class_has_its_own_color():
    colors = [color_of(label_id) for label_id in range(1, 81)]
    assert len(set(colors)) == 80
    assert all(0 <= part <= 255 and isinstance(part, int) for color in colors for part in color)
    assert all(max(color) - min(color) > 150 for color in colors)
    assert colors == [color_of(label_id) for label_id in range(1, 81)]


def test_neighbouring_classes_differ_much():
    for label_id in range(1, 80):
        difference = np.subtract(color_of(label_id), color_of(label_id + 1))
        assert np.abs(difference).sum() > 200


def test_the_best_is_on_top():
    best, other = detection((100, 150, 300, 250), 3, score=0.9), detection((100, 150, 300, 250), 5, score=0.6)
    drawn = draw_detections(black(400, 320), [best, other])
    assert drawn.getpixel((100, 200)) == color_of(3)
    assert where(drawn, color_of(5))[150:].sum() < 2000  # Its label, which moved out of the way, and no outline.


def chips(drawn, colors):
    """For each color (left, top, right, bottom), all inclusive, of its pixels: the label where there is no box."""
    found = []
    for color in colors:
        rows, columns = np.where(where(drawn, color))
        found.append((columns.min(), rows.min(), columns.max(), rows.max()))
    return found


def overlap(one, other):
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def test_labels_do_not_hide_each_other():
    """Thirty points close to each other, each with a label of another class."""
    points = [(120 + 37 * i % 301, 100 + 53 * i % 251) for i in range(30)]
    drawn = draw_detections(black(640, 480), [detection((*p, *p), i + 1) for i, p in enumerate(points)])
    alone = draw_detections(black(640, 480), [detection((300, 200, 300, 200))])
    usual = where(alone, color_of(1)).sum()
    for i, (x, y) in enumerate(points):
        rows, columns = np.where(where(drawn, color_of(i + 1)))
        assert len(rows) > 0.8 * usual, i
        assert np.abs(columns - x).max() < 120 and np.abs(rows - y).max() < 240


def test_where_labels_crowd_the_best_stay():
    crowd = [detection((50, 50, 50, 50), i + 1, score=1 - i / 100) for i in range(80)]
    drawn = draw_detections(black(200, 150), crowd)
    labelled = [i for i in range(80) if where(drawn, color_of(i + 1)).sum() > 100]
    assert labelled[:4] == [0, 1, 2, 3] and len(labelled) < 20
    assert all(where(drawn, color_of(i + 1)).sum() > 550 for i in labelled)  # and can be read
    assert drawn.size == (200, 150)


def test_label_is_short_and_in_one_line():
    long = changed(draw_detections(black(640, 480), [detection((10, 100, 10, 100), label="m\nn " * 100)]))
    assert long[2] < 420 and long[3] - long[1] < 24
    broken, whole = (detection((9, 99, 9, 99), label=label) for label in ("a\nb", "a b"))
    assert draw_detections(black(400, 320), [broken]).tobytes() == draw_detections(black(400, 320), [whole]).tobytes()


def test_labels_are_equally_high():
    found = [
        changed(draw_detections(black(400, 320), [detection((100, 150, 300, 250), label=label)]))[1]
        for label in ("cow", "dog", "Tie", "...")
    ]
    assert len(set(found)) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (16, 16), (20, 2000), (2000, 20), (60, 40)])
@pytest.mark.parametrize("note", ["", "untrained: random weights"])
def test_labels_of_small_pictures_stand_beside_them(size, note):
    width, height = size
    picture = Image.new("RGB", size, (77, 66, 55))
    boxes = [(0, 0, width, height), (0, 0, 0, 0), (width, height, width, height), (width / 3, 0, width / 2, height)]
    drawn = draw_detections(picture, [detection(box, i + 1) for i, box in enumerate(boxes)], note)
    assert drawn.width >= width and drawn.height >= height
    rest = np.asarray(drawn).copy()
    rest[:height, :width] = 255  # What is not the picture: the labels alone.
    found = chips(Image.fromarray(rest), [color_of(i + 1) for i in range(4)])
    assert all(box[2] - box[0] >= 60 and box[3] - box[1] >= 12 for box in found)
    assert all(overlap(found[i], found[j]) == 0 for i in range(4) for j in range(i))
    ground = where(rest, NOTE_GROUND)
    assert ground.any() == bool(note) and not ground[: max(box[3] for box in found) + 1].any()
    assert set(map(tuple, rest[:, -1])) <= {(255, 255, 255), NOTE_GROUND, *(color_of(i + 1) for i in range(4))}


def test_margin_leaves_the_picture_where_it_was():
    picture = load_image(np.random.default_rng(3).integers(0, 200, (60, 50, 3), dtype=np.uint8))
    drawn = draw_detections(picture, [detection((10, 20, 40, 50))])
    inside = np.asarray(drawn)[:60, :50].copy()
    same = (inside == np.asarray(picture)).all(-1)
    assert (~same).sum() == 2 * 31 + 2 * 29  # The outline, a pixel thick.
    assert not same[20, 10:41].any() and not same[50, 10:41].any() and not same[20:51, 10].any()


def test_margin_counts_what_it_leaves_out():
    few, many = ([detection((0, 0, 5, 5), 1)] * count for count in (30, 200))
    assert draw_detections(black(10, 10), many).height <= draw_detections(black(10, 10), few).height + 25
    assert where(draw_detections(black(10, 10), many), NOTE_GROUND).any()
    assert not where(draw_detections(black(10, 10), few), NOTE_GROUND).any()


FRACTIONS = st.tuples(*[st.floats(0, 1)] * 4)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    fractions=st.lists(FRACTIONS, max_size=12),
    label=st.text(max_size=40),
    note=st.sampled_from(["", "untrained"]),
)
def test_any_boxes_on_a_picture_of_any_size(size, fractions, label, note):
    scale = (*size, *size)
    boxes = [[part * edge for part, edge in zip(box, scale)] for box in fractions]
    boxes = [(*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])) for box in boxes]
    drawn = draw_detections(black(*size), [detection(box, i + 1, label) for i, box in enumerate(boxes)], note)
    assert drawn.width >= size[0] and drawn.height >= size[1]
    if min(size) > 350:
        assert drawn.size == size


def test_large_pictures_have_large_letters():
    label = changed(draw_detections(black(4000, 3000), [detection((100, 1500, 100, 1500))]))
    assert 90 <= label[3] - label[1] <= 170 and label[2] - label[0] > 400


@pytest.mark.parametrize(
    "box",
    [(50, 60, 50, 60), (50, 60, 50, 90), (50, 60, 90, 60), (50.2, 60.2, 50.3, 60.3), (0, 0, 0, 0),
     (200, 150, 200, 150)],
)  # fmt: skip
def test_boxes_without_area(box):
    drawn = draw_detections(black(200, 150), [detection(box)])
    assert where(drawn, color_of(1)).any()


@pytest.mark.parametrize("box", [(10, 10, 11, 11), (10, 10, 12, 80), (10, 10, 13, 13)])
def test_boxes_narrower_than_their_lines(box):
    drawn = draw_detections(black(1000, 1000), [detection(box)])
    assert where(drawn, color_of(1))[10, 10]


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


def test_tuple_of_detections():
    boxes = (detection((10, 50, 300, 150)), detection((50, 80, 200, 250), 2))
    picture = black(400, 320)
    assert draw_detections(picture, boxes).tobytes() == draw_detections(picture, list(boxes)).tobytes()


@pytest.mark.parametrize(
    "sizes", [((60, 40), (60, 40)), ((300, 200), (300, 200)), ((200, 300), (400, 99)), ((1, 1), (1, 9))]
)
def test_side_by_side(sizes):
    left, right = Image.new("RGB", sizes[0], (200, 10, 10)), Image.new("RGB", sizes[1], (10, 10, 200))
    before = left.tobytes(), right.tobytes()
    joined = side_by_side(left, right, ("FP32 eager", "TensorRT FP16"))
    reds, blues = chips(joined, [(200, 10, 10), (10, 10, 200)])
    assert (reds[2] - reds[0] + 1, reds[3] - reds[1] + 1) == sizes[0]
    assert (blues[2] - blues[0] + 1, blues[3] - blues[1] + 1) == sizes[1]
    assert reds[2] < blues[0] and reds[1] == blues[1] >= 14
    bar = np.asarray(joined)[: reds[1]]
    letters = (bar.min(-1) > 128) & (np.arange(joined.width) < blues[0] - 12)
    assert letters.any() and (bar[:, blues[0] :].min(-1) > 128).sum() > 40
    assert (left.tobytes(), right.tobytes()) == before
    assert joined.mode == "RGB" and joined.height == reds[1] + max(sizes[0][1], sizes[1][1])


def test_captions_stand_over_their_pictures():
    joined = np.asarray(side_by_side(black(300, 50), black(300, 50), ("m" * 20, "i")))
    ink = (joined[:14] > 128).all(-1)
    assert ink[:, :300].sum() > 5 * ink[:, 306:].sum() > 0
