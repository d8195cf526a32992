"""Letters for labels: Pillow's own font, a system font for what it lacks, and `?` for what neither shows."""

from __future__ import annotations

import functools
import unicodedata

from PIL import ImageFont

from ssdtrt import config

NO_LETTER = "\U0010ffff"  # a code point that no font has, so it shows as the font's sign for a missing letter


def lettering(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """`text` as it can be shown, and the font of `size` pixels to show it in.

    The first font that has all its letters, of Pillow's own and the system's of config.SYSTEM_FONTS. Where none has,
    the one that has most; a letter that it lacks loses its accent or becomes `?`.
    """
    text = unicodedata.normalize("NFC", text)
    fonts = [built_in(size)]
    for name in ("", *config.SYSTEM_FONTS):
        font = system_font(name, size) if name else fonts[0]
        if font and all(shows(font, letter) for letter in text):
            return text, font
        fonts += [font] if font and name else []
    font = max(fonts, key=lambda font: sum(shows(font, letter) for letter in text))
    return "".join(letter if shows(font, letter) else plain(font, letter) for letter in text), font


def plain(font: ImageFont.FreeTypeFont, letter: str) -> str:
    """The letter without its accent where the font has that, else `?`."""
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if shows(font, base) else "?"


@functools.cache
def built_in(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    return ImageFont.load_default(size=size)


@functools.cache
def system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font of the system by its file's name, or None where it is not installed."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.lru_cache(maxsize=10_000)
def shows(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether the font has the letter; control characters count as missing."""
    if not letter.isprintable():
        return False
    found, missing = font.getmask(letter), font.getmask(NO_LETTER)
    return found.size != missing.size or bytes(found) != bytes(missing)
