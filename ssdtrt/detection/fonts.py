"""Fonts for labels: Pillow's own, a system font for what it lacks, and `?` for what neither can show."""

from __future__ import annotations

import functools
import unicodedata

from PIL import ImageFont

from ssdtrt import config

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_NO_LETTER = "\U0010ffff"  # a code point that no font has, so it shows as the font's sign for a missing letter


def lettering(text: str, size: int) -> tuple[str, Font]:
    """Choose a font for a text.

    It is the first that has all letters, of Pillow's own and the system's in config.SYSTEM_FONTS; where none has all,
    the one that has most. A letter that it lacks loses its accent or becomes `?`.

    Args:
        text: What is to be shown.
        size: The font's size in pixels.

    Returns:
        (the text as it can be shown, the font).
    """
    text = unicodedata.normalize("NFC", text)
    fonts = [_built_in(size)]
    for name in ("", *config.SYSTEM_FONTS):
        font = _system_font(name, size) if name else fonts[0]
        if font and all(_shows(font, letter) for letter in text):
            return text, font
        fonts += [font] if font and name else []
    font = max(fonts, key=lambda font: sum(_shows(font, letter) for letter in text))
    return "".join(letter if _shows(font, letter) else _replacement(font, letter) for letter in text), font


def _replacement(font: Font, letter: str) -> str:
    """The letter without its accent where the font has that, else `?`."""
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if _shows(font, base) else "?"


@functools.cache
def _built_in(size: int) -> Font:
    return ImageFont.load_default(size=size)


@functools.cache
def _system_font(name: str, size: int) -> Font | None:
    """A font of the system by its file's name; None where it is not installed."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.lru_cache(maxsize=10_000)
def _shows(font: Font, letter: str) -> bool:
    """Whether the font has the letter; control characters count as missing."""
    if not letter.isprintable():
        return False
    found, missing = font.getmask(letter), font.getmask(_NO_LETTER)
    return found.size != missing.size or bytes(found) != bytes(missing)
