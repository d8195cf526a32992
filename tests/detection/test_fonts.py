"""Letters that Pillow's font lacks come from another font, or are replaced."""

import numpy as np
import pytest
from PIL import ImageFont

from ssdtrt import config
from ssdtrt.detection import fonts
from ssdtrt.detection.fonts import _built_in, _shows, _system_font, lettering


@pytest.fixture
def no_system_fonts(monkeypatch):
    monkeypatch.setattr(config, "SYSTEM_FONTS", ("no-such-font-anywhere.ttf",))


def ink(font, text):
    return np.array(font.getmask(text)).sum()


def test_plain_letters_need_no_other_font():
    text, font = lettering("traffic light 0.87", 20)
    assert (text, font) == ("traffic light 0.87", _built_in(20))


@pytest.mark.parametrize(
    "letter, there", [("a", True), ("~", True), (" ", True), ("\u732b", False), ("\n", False), ("\x00", False)]
)
def test_shows(letter, there):
    assert _shows(_built_in(20), letter) is there


def test_control_characters_are_missing_in_a_font_that_draws_them():
    class DrawsAll:
        def getmask(self, letter):
            return _built_in(12).getmask(f"{ord(letter):x}")

    font = DrawsAll()
    assert _shows(font, "\u732b") and not _shows(font, "\n")


@pytest.mark.parametrize(
    "text, shown",
    [("caf\u00e9", "cafe"), ("cafe\u0301", "cafe"), ("\u732b cat", "? cat"), ("\U0001f408\U0001f408", "??"),
     ("a\nb", "a?b"), ("", "")],
)  # fmt: skip
def test_missing_letters_are_replaced(no_system_fonts, text, shown):
    assert lettering(text, 16) == (shown, _built_in(16))


def test_missing_system_font_is_none():
    assert _system_font("no-such-font-anywhere.ttf", 12) is None


def test_a_font_of_the_system_shows_what_pillows_lacks():
    try:
        ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    text, font = lettering("caf\u00e9 \u0416\u0443\u043a", 20)
    assert text == "caf\u00e9 \u0416\u0443\u043a" and font.getname()[0] == "DejaVu Sans"
    assert ink(font, "\u00e9") > ink(font, "e")
    assert lettering("\u732b", 20)[0] in ("?", "\u732b")


def test_the_font_with_most_letters_is_taken(monkeypatch):
    class Font:
        def __init__(self, letters):
            self.letters = letters

    fakes = {"none.ttf": None, "few.ttf": Font("ab"), "many.ttf": Font("abcde?")}
    monkeypatch.setattr(config, "SYSTEM_FONTS", tuple(fakes))
    monkeypatch.setattr(fonts, "_built_in", lambda size: Font(""))
    monkeypatch.setattr(fonts, "_system_font", lambda name, size: fakes[name])
    monkeypatch.setattr(fonts, "_shows", lambda font, letter: letter in font.letters)
    assert lettering("abcdz", 9) == ("abcd?", fakes["many.ttf"])
    assert lettering("ab", 9) == ("ab", fakes["few.ttf"])
