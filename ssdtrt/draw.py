"""Detections drawn on a picture: one colour a class, labels that can be read at any size."""

from __future__ import annotations

import colorsys

from PIL import Image, ImageDraw, ImageFont

from ssdtrt.results import Detection

GOLDEN_ANGLE = 0.381966  # turns; successive classes get hues far apart


def colour_of(label_id: int) -> tuple[int, int, int]:
    """A class's colour, RGB 0..255, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((label_id * GOLDEN_ANGLE) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: Image.Image, detections: list[Detection] | tuple[Detection, ...], note: str = ""
) -> Image.Image:
    """A copy of an RGB picture with boxes, labels and scores, the best on top; `note` is written along the bottom."""
    picture = image.copy()
    canvas = ImageDraw.Draw(picture)
    shorter = min(picture.size)
    font = ImageFont.load_default(size=max(10, shorter // 28))
    width = max(1, round(shorter / 160))
    for detection in reversed(detections):
        colour = colour_of(detection.label_id)
        left, top, right, bottom = detection.box
        right, bottom = min(right, picture.width - 1), min(bottom, picture.height - 1)  # the last pixels
        canvas.rectangle((min(left, right), min(top, bottom), right, bottom), outline=colour, width=width)
    for detection in reversed(detections):  # No box strikes through a label.
        colour = colour_of(detection.label_id)
        text = f"{detection.label} {detection.score:.2f}"
        write(canvas, picture.size, text, (detection.box[0], detection.box[1]), font, colour)
    if note:
        write(canvas, picture.size, note, (0, picture.height), font, (40, 40, 40))
    return picture


def write(canvas: ImageDraw.ImageDraw, size: tuple[int, int], text: str, corner, font, colour) -> None:
    """Text on a filled ground above `corner`, moved to lie inside the picture; black or white, whichever can be read."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    margin = max(1, (bottom - top) // 6)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(corner[0], size[0] - width))
    y = max(0, min(corner[1] - height, size[1] - height))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if brightness > 140 else (255, 255, 255)
    canvas.text((x + margin - left, y + margin - top), text, fill=ink, font=font)
