"""Pictures of more than 8 bits a channel to 8 bits, by the range of values that they hold. No torch here."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import Any

import numpy as np
from PIL import Image

from ssdtrt.system.progress import Progress

ValueRange = tuple[float, float]
"""The values that become 0 and 255."""

_TOPS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_SLACK = 0.25  # the share by which floating-point values may pass a range at either end: filters overshoot
_LEAST_SHARE = 0.1  # of a range that floating-point values must reach to count as filling it
_DEEP = re.compile(r";16[BLN]$")  # Pillow's name of such a layout, of which it keeps the high bytes
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def is_deep(image: Image.Image) -> bool:
    """Return whether the image has one channel of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_levels(image: Image.Image, value_range: ValueRange | None, note: Progress) -> Image.Image:
    """Convert an image of one channel of more than 8 bits to grays of 8 bits.

    Args:
        image: An image of mode I, I;16 (either byte order) or F.
        value_range: The values that become black and white, others are clipped; None for the range that the pixels
            fill: 0 to 2^8, 2^10, 2^12, 2^14 or 2^16 less one, for floating-point values also 0..1, and where none of
            these holds the pixels, or floating-point values reach no tenth of it, the least and the greatest.
        note: Called with a line on a range that was derived, unless it is that of 16 bits.
    """
    values = np.asarray(image).astype(np.float64)
    found = value_range or _filled(values, image.mode == "F")
    if value_range is None and (found != (0, 65535) or image.mode == "F"):
        note(_derived(found))
    return Image.fromarray(_scaled(values, found))


def sixteen_bit_channels(image: Image.Image) -> np.ndarray | None:
    """Read the values of a picture with several channels of 16 bits, of which Pillow keeps the high bytes.

    Args:
        image: An opened picture whose pixels were not loaded yet.

    Returns:
        uint16 [H, W, channels]; None for another picture. Where Pillow gives the high bytes alone, the low ones are 0.
    """
    tiles = list(getattr(image, "tile", None) or ())
    layouts = [_layout(tile) for tile in tiles]
    if image.mode not in ("RGB", "RGBA", "CMYK") or not tiles or not all(map(_DEEP.search, layouts)):
        return None
    content = _content(image)
    with Image.open(content) as opened:
        opened.seek(image.tell())
        high = np.asarray(opened)
    low = np.zeros_like(high)
    with Image.open(content) as opened, contextlib.suppress(ValueError):  # Pillow lacks some layouts.
        opened.seek(image.tell())
        opened.tile = [_of_other_byte(tile) for tile in opened.tile]
        low = np.asarray(opened)
    return high.astype(np.uint16) << 8 | low


def channels_to_levels(
    values: np.ndarray, value_range: ValueRange | None, note: Progress, *, alpha: bool
) -> np.ndarray | None:
    """Convert channels of 16 bits to 8 bits, by the range that the colors fill.

    Args:
        values: uint16 [H, W, channels].
        value_range: As for `to_levels`.
        note: As for `to_levels`.
        alpha: Whether the fourth channel is alpha, which keeps its own range where that is larger.

    Returns:
        uint8 [H, W, channels]; None where the colors fill 16 bits, which Pillow converts.
    """
    colors = values[..., :3] if alpha else values
    found = value_range or _filled(colors, False)
    if found == (0, 65535):
        return None
    if value_range is None:
        note(_derived(found))
    levels = _scaled(values.astype(np.float64), found)
    if alpha and values[..., 3].max() > found[1]:
        levels[..., 3] = values[..., 3] >> 8
    return levels


def _filled(values: np.ndarray, floating: bool) -> ValueRange:
    """The smallest usual range that holds the values, else their least and greatest."""
    finite = values[np.isfinite(values)] if floating else values
    if not finite.size:
        return 0, 1
    least, most = float(finite.min()), float(finite.max())
    for top in (1, *_TOPS) if floating else _TOPS:
        slack = _SLACK if floating else 0
        if -slack * most <= least and most <= top * (1 + slack):
            # Floating-point values far below the next range are none of its pictures: 0..2 is not 0..255.
            if floating and 0 < most < top * _LEAST_SHARE:
                break
            return 0, top
    return (least, most) if least < most else (min(least, 0.0), max(most, 0.0))


def _scaled(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """The values as uint8; what is no number is black."""
    low, high = value_range
    with np.errstate(invalid="ignore", over="ignore"):
        levels = (values - low) * 255 / (high - low)
    return np.nan_to_num(levels, nan=0.0).clip(0, 255).round().astype(np.uint8)


def _derived(found: ValueRange) -> str:
    low, high = found
    return (
        f"its values of more than 8 bits are read as {low:g}..{high:g}, the range that they fill; "
        "--range (value_range) gives another"
    )


def _content(image: Any) -> io.BytesIO:
    """What the image's file holds; the file stays where it was."""
    place = image.fp.tell()
    image.fp.seek(0)
    content = io.BytesIO(image.fp.read())
    image.fp.seek(place)
    return content


def _layout(tile: Any) -> str:
    """The layout of a tile's pixels, such as `RGB;16B`; "" where its decoder has none."""
    arguments = tile[3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _of_other_byte(tile: Any) -> Any:
    """The tile with the layout whose high byte is this one's low byte."""
    layout = _layout(tile)
    other = layout[:-1] + _OTHER_BYTE[layout[-1]]
    arguments = (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other
    return (*tile[:3], arguments) if type(tile) is tuple else tile._replace(args=arguments)
