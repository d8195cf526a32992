"""Detections drawn on a picture: one color a class, and labels that can be read and do not hide each other."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ssdtrt.detection import fonts
from ssdtrt.detection.results import Detection

GOLDEN_ANGLE = 0.381966  # turns; successive classes get hues far apart
MIN_LETTERS = 12  # pixels
LETTERS_SHARE = 28  # the shorter side over the height of letters
LINE_SHARE = 160  # the shorter side over the thickness of lines
MAX_TEXT = 32  # letters of a label
MIN_LINES = 5  # labels one above the other that a picture must be able to hold
MAX_COVERED = 0.15  # of a label's area by better ones; one that no place saves from more is left out
MAX_MARGIN_LABELS = 30  # labels beside a picture that is too small to hold them
SLIDES = 12  # places tried below each other
GAP = 2  # pixels between labels in a margin
DARK, WHITE, BLACK = (40, 40, 40), (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Chip:
    """Text on a filled ground of `width` x `height` pixels; `origin` is where in it the text is drawn."""

    text: str
    font: ImageFont.FreeTypeFont
    color: tuple[int, int, int]
    width: int
    height: int
    origin: tuple[float, float]


Placed = tuple[Chip, tuple[int, int]]  # and its upper left corner


def color_of(label_id: int) -> tuple[int, int, int]:
    """A class's color, RGB 0..255, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((label_id * GOLDEN_ANGLE) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(image: Image.Image, detections: Sequence[Detection], note: str = "") -> Image.Image:
    """A copy of an RGB picture with boxes, labels and scores, the best on top; `note` is written along the bottom.

    A picture too small for labels is drawn with a white margin that holds them, on its right or below. Boxes stay where
    they are: the picture lies in the upper left corner. Where labels crowd, some of the lowest scores go without.
    """
    letters = letter_size(image)
    labels = [
        make_chip(f"{shorten(found.label)} {found.score:.2f}", letters, color_of(found.label_id))
        for found in detections
    ]
    notes = [make_chip(note, letters, DARK)] if note else []
    if any(chip.width > image.width or MIN_LINES * chip.height > image.height for chip in labels + notes):
        placed = beside(image, labels, detections, letters)
        bottom = max([image.height] + [y + chip.height + GAP for chip, (_, y) in placed])
        placed += [(chip, (0, bottom)) for chip in notes]
    else:
        corner = [(chip, (0, image.height - chip.height)) for chip in notes]
        placed = corner + on_top(image, labels, detections, corner)
    width = max([image.width] + [x + chip.width for chip, (x, _) in placed])
    height = max([image.height] + [y + chip.height for chip, (_, y) in placed])
    picture = Image.new("RGB", (width, height), WHITE)
    picture.paste(with_boxes(image, detections))
    canvas = ImageDraw.Draw(picture)
    for chip, place in reversed(placed):  # No box strikes through a label.
        draw_chip(canvas, chip, place)
    return picture


def side_by_side(left: Image.Image, right: Image.Image, captions: tuple[str, str]) -> Image.Image:
    """Two pictures joined, the left one's caption and the right one's above them, RGB."""
    letters = max(letter_size(left), letter_size(right))
    chips = [make_chip(caption, letters, DARK) for caption in captions]
    widths = [max(picture.width, chip.width) for picture, chip in zip((left, right), chips)]
    bar, gap = max(chip.height for chip in chips), max(4, letters // 2)
    joined = Image.new("RGB", (sum(widths) + gap, bar + max(left.height, right.height)), WHITE)
    canvas = ImageDraw.Draw(joined)
    for x, width, picture, chip in zip((0, widths[0] + gap), widths, (left, right), chips):
        canvas.rectangle((x, 0, x + width - 1, bar - 1), fill=DARK)
        draw_chip(canvas, chip, (x, 0))
        joined.paste(picture, (x, bar))
    return joined


def letter_size(image: Image.Image) -> int:
    """The height of letters that suits a picture, in pixels."""
    return max(MIN_LETTERS, min(image.size) // LETTERS_SHARE)


def shorten(text: str) -> str:
    """At most MAX_TEXT letters, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def make_chip(text: str, letters: int, color: tuple[int, int, int]) -> Chip:
    """A chip around a text; all chips of one font are equally high, but for letters that reach further."""
    text, font = fonts.lettering(text, letters)
    left, top, right, bottom = font.getbbox(text)
    _, usual_top, _, usual_bottom = font.getbbox("Hg")
    top, bottom = min(top, usual_top), max(bottom, usual_bottom)
    margin = max(2, letters // 6)
    width, height = round(right - left) + 2 * margin, round(bottom - top) + 2 * margin
    return Chip(text, font, color, width, height, (margin - left, margin - top))


def on_top(
    image: Image.Image, labels: Sequence[Chip], detections: Sequence[Detection], taken: Sequence[Placed]
) -> list[Placed]:
    """Labels in the picture, each at the place by its box where it covers least of the better ones and of `taken`."""
    placed = list(taken)
    for chip, detection in zip(labels, detections):
        best, least = (0, 0), chip.width * chip.height
        for x, y in places_at(detection.box, chip):
            x = round(max(0, min(x, image.width - chip.width)))
            y = round(max(0, min(y, image.height - chip.height)))
            covered = sum(shared(x, y, chip, other, place) for other, place in placed)
            if covered < least:
                best, least = (x, y), covered
            if not covered:
                break
        if least <= MAX_COVERED * chip.width * chip.height:
            placed.append((chip, best))
    return placed[len(taken) :]


def places_at(box: tuple[float, float, float, float], chip: Chip) -> list[tuple[float, float]]:
    """Upper left corners for a label at its box, the usual first: above, inside, below, then further down and up."""
    left, top, right, bottom = box
    sides = [(left, top - chip.height), (left, top), (right - chip.width, top - chip.height), (left, bottom)]
    sides += [(right - chip.width, top), (left, bottom - chip.height), (right - chip.width, bottom - chip.height)]
    down = [(x, top + i * chip.height) for i in range(1, SLIDES) for x in (left, right - chip.width)]
    up = [(x, top - i * chip.height) for i in range(2, SLIDES) for x in (left, right - chip.width)]
    return sides + [place for place in down if place[1] + chip.height <= bottom] + up


def shared(x: int, y: int, chip: Chip, other: Chip, place: tuple[int, int]) -> int:
    """The area that a chip at (x, y) shares with another at `place`."""
    across = min(x + chip.width, place[0] + other.width) - max(x, place[0])
    down = min(y + chip.height, place[1] + other.height) - max(y, place[1])
    return across * down if across > 0 and down > 0 else 0


def beside(image: Image.Image, labels: Sequence[Chip], detections: Sequence[Detection], letters: int) -> list[Placed]:
    """Labels in a margin: a column right of a picture that is narrower than they are, else lines below it.

    Below, each stands under its box's left edge, in the first line that has room there. After MAX_MARGIN_LABELS one
    label says how many are left out.
    """
    chips, edges = list(labels[:MAX_MARGIN_LABELS]), [detection.box[0] for detection in detections]
    if len(labels) > len(chips):
        chips.append(make_chip(f"and {len(labels) - len(chips)} more", letters, DARK))
    pitch = max([chip.height for chip in chips], default=0) + GAP
    if any(chip.width > image.width for chip in chips):
        return [(chip, (image.width + GAP, i * pitch)) for i, chip in enumerate(chips)]
    lefts = [round(max(0, min(edge, image.width - chip.width))) for edge, chip in zip(edges, chips)]
    ends: list[int] = []  # how far each line is filled
    placed: list[Placed] = []
    for x, chip in sorted(zip(lefts, chips), key=lambda pair: pair[0]):
        line = next((i for i, end in enumerate(ends) if end <= x), len(ends))
        ends[line : line + 1] = [x + chip.width + GAP]
        placed.append((chip, (x, image.height + GAP + line * pitch)))
    return placed


def with_boxes(image: Image.Image, detections: Sequence[Detection]) -> Image.Image:
    """A copy with the detections' outlines, the best on top, whole also where they end at the picture's edge."""
    picture = image.copy()
    canvas = ImageDraw.Draw(picture)
    thickness = max(1, round(min(image.size) / LINE_SHARE))
    for detection in reversed(detections):
        left, top, right, bottom = detection.box
        right, bottom = min(right, image.width - 1), min(bottom, image.height - 1)  # the last pixels
        box = (min(left, right), min(top, bottom), right, bottom)
        canvas.rectangle(box, outline=color_of(detection.label_id), width=thickness)
    return picture


def draw_chip(canvas: ImageDraw.ImageDraw, chip: Chip, place: tuple[int, int]) -> None:
    """A chip with its upper left corner at `place`; the text black or white, whichever can be read."""
    x, y = place
    canvas.rectangle((x, y, x + chip.width - 1, y + chip.height - 1), fill=chip.color)
    brightness = 0.299 * chip.color[0] + 0.587 * chip.color[1] + 0.114 * chip.color[2]
    ink = BLACK if brightness > 140 else WHITE
    canvas.text((x + chip.origin[0], y + chip.origin[1]), chip.text, fill=ink, font=chip.font)
