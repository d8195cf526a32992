"""Draw detections on a picture: a color for each class, labels that can be read and do not hide each other. And crops."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ssdtrt.detection import fonts
from ssdtrt.detection.results import Detection

_GOLDEN_ANGLE = 0.381966  # turns; successive classes get hues far apart
_MIN_FONT = 12  # pixels
_FONT_SHARE = 28  # the shorter side over the size of the font
_LINE_SHARE = 160  # the shorter side over the thickness of lines
_MAX_TEXT = 32  # letters of a label
_MIN_LINES = 5  # labels one above the other that a picture must be able to hold
_MAX_COVERED = 0.15  # of a label's area by better ones; a label that is covered more in every place is left out
_MAX_MARGIN_LABELS = 30  # labels beside a picture that is too small to hold them
_SLIDES = 12  # places tried below each other
_GAP = 2  # pixels between labels in a margin
_DARK, _WHITE, _BLACK = (40, 40, 40), (255, 255, 255), (0, 0, 0)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class _TextBox:
    """Text on a filled ground of `width` x `height` pixels; `origin` is where in it the text is drawn."""

    text: str
    font: fonts.Font
    color: Color
    width: int
    height: int
    origin: tuple[float, float]


_Placed = tuple[_TextBox, tuple[int, int]]  # with its upper left corner


def color_of(label_id: int) -> Color:
    """Return the color of a class, RGB 0..255, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((label_id * _GOLDEN_ANGLE) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: Image.Image, detections: Sequence[Detection], note: str = "", labels: bool = True
) -> Image.Image:
    """Draw boxes, labels and scores on a copy of an image, the best on top.

    An image too small for labels gets a white margin on its right or below that holds them, and lies in the upper left
    corner of the result. Where labels crowd, some of the lowest scores have none.

    Args:
        image: An RGB image.
        detections: The best first, with boxes in the image's pixels.
        note: A text along the bottom.
        labels: Whether there are labels and scores, beside the boxes.

    Returns:
        An RGB image, at least as large.
    """
    size = _font_size(image)
    named = detections if labels else ()
    texts = [_text_box(f"{_shorten(found.label)} {found.score:.2f}", size, color_of(found.label_id)) for found in named]
    notes = [_text_box(note, size, _DARK)] if note else []
    if any(label.width > image.width or _MIN_LINES * label.height > image.height for label in texts + notes):
        placed = _place_in_margin(image, texts, detections, size)
        bottom = max([image.height] + [y + label.height + _GAP for label, (_, y) in placed])
        placed += [(box, (0, bottom)) for box in notes]
    else:
        corner = [(box, (0, image.height - box.height)) for box in notes]
        placed = corner + _place_inside(image, texts, detections, corner)
    width = max([image.width] + [x + box.width for box, (x, _) in placed])
    height = max([image.height] + [y + box.height for box, (_, y) in placed])
    picture = Image.new("RGB", (width, height), _WHITE)
    picture.paste(_with_outlines(image, detections))
    canvas = ImageDraw.Draw(picture)
    for box, corner_xy in reversed(placed):  # After the outlines, which would strike through labels.
        _draw_text_box(canvas, box, corner_xy)
    return picture


def crop_boxes(image: Image.Image, boxes_xyxy: np.ndarray) -> list[Image.Image]:
    """Cut boxes out of an image: whole pixels, at least one, and nothing beyond its edges.

    Args:
        image: The image.
        boxes_xyxy: Boxes [K, 4] in its pixels.
    """
    crops = []
    for left, top, right, bottom in np.nan_to_num(boxes_xyxy.astype(float)).tolist():
        x, y = (max(0, min(math.floor(edge), end - 1)) for edge, end in zip((left, top), image.size))
        across, down = (min(math.ceil(edge), end) for edge, end in zip((right, bottom), image.size))
        crops.append(image.crop((x, y, max(across, x + 1), max(down, y + 1))))
    return crops


def side_by_side(left: Image.Image, right: Image.Image, captions: tuple[str, str]) -> Image.Image:
    """Join two RGB images, each under its caption."""
    size = max(_font_size(left), _font_size(right))
    titles = [_text_box(caption, size, _DARK) for caption in captions]
    widths = [max(picture.width, title.width) for picture, title in zip((left, right), titles)]
    bar, gap = max(title.height for title in titles), max(4, size // 2)
    joined = Image.new("RGB", (sum(widths) + gap, bar + max(left.height, right.height)), _WHITE)
    canvas = ImageDraw.Draw(joined)
    for x, width, picture, title in zip((0, widths[0] + gap), widths, (left, right), titles):
        canvas.rectangle((x, 0, x + width - 1, bar - 1), fill=_DARK)
        _draw_text_box(canvas, title, (x, 0))
        joined.paste(picture, (x, bar))
    return joined


def _font_size(image: Image.Image) -> int:
    """The size of letters that suits an image, in pixels."""
    return max(_MIN_FONT, min(image.size) // _FONT_SHARE)


def _shorten(text: str) -> str:
    """At most _MAX_TEXT letters, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _text_box(text: str, size: int, color: Color) -> _TextBox:
    """A box around a text; all boxes of one font have the same height, unless a letter reaches further."""
    text, font = fonts.lettering(text, size)
    left, top, right, bottom = font.getbbox(text)
    _, usual_top, _, usual_bottom = font.getbbox("Hg")
    top, bottom = min(top, usual_top), max(bottom, usual_bottom)
    margin = max(2, size // 6)
    width, height = round(right - left) + 2 * margin, round(bottom - top) + 2 * margin
    return _TextBox(text, font, color, width, height, (margin - left, margin - top))


def _place_inside(
    image: Image.Image, labels: Sequence[_TextBox], detections: Sequence[Detection], taken: Sequence[_Placed]
) -> list[_Placed]:
    """Labels in the image, each at its box where it covers the least of better labels and of what is `taken`."""
    placed = list(taken)
    for label, detection in zip(labels, detections):
        best, least = (0, 0), label.width * label.height
        for left, top in _candidate_corners(detection.box, label):
            x = round(max(0, min(left, image.width - label.width)))
            y = round(max(0, min(top, image.height - label.height)))
            covered = sum(_shared_area(x, y, label, other, corner) for other, corner in placed)
            if covered < least:
                best, least = (x, y), covered
            if not covered:
                break
        if least <= _MAX_COVERED * label.width * label.height:
            placed.append((label, best))
    return placed[len(taken) :]


def _candidate_corners(box: tuple[float, float, float, float], label: _TextBox) -> list[tuple[float, float]]:
    """Upper left corners for a label at its box, the usual first: above, inside, below, then further down and up."""
    left, top, right, bottom = box
    sides = [(left, top - label.height), (left, top), (right - label.width, top - label.height), (left, bottom)]
    sides += [(right - label.width, top), (left, bottom - label.height), (right - label.width, bottom - label.height)]
    down = [(x, top + i * label.height) for i in range(1, _SLIDES) for x in (left, right - label.width)]
    up = [(x, top - i * label.height) for i in range(2, _SLIDES) for x in (left, right - label.width)]
    return sides + [corner for corner in down if corner[1] + label.height <= bottom] + up


def _shared_area(x: int, y: int, box: _TextBox, other: _TextBox, corner: tuple[int, int]) -> int:
    """The area that a box at (x, y) shares with another at `corner`."""
    width = min(x + box.width, corner[0] + other.width) - max(x, corner[0])
    height = min(y + box.height, corner[1] + other.height) - max(y, corner[1])
    return width * height if width > 0 and height > 0 else 0


def _place_in_margin(
    image: Image.Image, labels: Sequence[_TextBox], detections: Sequence[Detection], size: int
) -> list[_Placed]:
    """Labels in a margin: a column right of an image that is narrower than they are, else lines below it.

    Below, each stands under its box's left edge, in the first line that has room there. After _MAX_MARGIN_LABELS one
    label counts those that are left out.
    """
    boxes, edges = list(labels[:_MAX_MARGIN_LABELS]), [detection.box[0] for detection in detections]
    if len(labels) > len(boxes):
        boxes.append(_text_box(f"and {len(labels) - len(boxes)} more", size, _DARK))
    pitch = max([box.height for box in boxes], default=0) + _GAP
    if any(box.width > image.width for box in boxes):
        return [(box, (image.width + _GAP, i * pitch)) for i, box in enumerate(boxes)]
    lefts = [round(max(0, min(edge, image.width - box.width))) for edge, box in zip(edges, boxes)]
    ends: list[int] = []  # how far each line is filled
    placed: list[_Placed] = []
    for x, box in sorted(zip(lefts, boxes), key=lambda pair: pair[0]):
        line = next((i for i, end in enumerate(ends) if end <= x), len(ends))
        ends[line : line + 1] = [x + box.width + _GAP]
        placed.append((box, (x, image.height + _GAP + line * pitch)))
    return placed


def _with_outlines(image: Image.Image, detections: Sequence[Detection]) -> Image.Image:
    """A copy with the boxes' outlines, the best on top, whole also where they end at the image's edge."""
    picture = image.copy()
    canvas = ImageDraw.Draw(picture)
    thickness = max(1, round(min(image.size) / _LINE_SHARE))
    for detection in reversed(detections):
        left, top, right, bottom = detection.box
        right, bottom = min(right, image.width - 1), min(bottom, image.height - 1)  # the last pixels
        box = (min(left, right), min(top, bottom), right, bottom)
        canvas.rectangle(box, outline=color_of(detection.label_id), width=thickness)
    return picture


def _draw_text_box(canvas: ImageDraw.ImageDraw, box: _TextBox, corner: tuple[int, int]) -> None:
    """Draw a box with its upper left corner at `corner`; the text is black or white, whichever can be read."""
    x, y = corner
    canvas.rectangle((x, y, x + box.width - 1, y + box.height - 1), fill=box.color)
    brightness = 0.299 * box.color[0] + 0.587 * box.color[1] + 0.114 * box.color[2]
    ink = _BLACK if brightness > 140 else _WHITE
    canvas.text((x + box.origin[0], y + box.origin[1]), box.text, fill=ink, font=box.font)
