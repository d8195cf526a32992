"""The kinds of values that options take."""

import click
import pytest

from ssdtrt.artifact.request import BatchRange
from ssdtrt.commands.params import Device, Names, Percent, Positive, Range, Score, Sizes, Values


@pytest.mark.parametrize(
    "kind, text, value",
    [
        (Range(), "1:8:32", BatchRange(1, 8, 32)),
        (Range(), "8:8:8", BatchRange(8, 8, 8)),
        (Sizes(), "1,8,32", [1, 8, 32]),
        (Sizes(), "4096", [4096]),
        (Device(), "cuda:12", "cuda:12"),
        (Names(("a", "b")), "b, a", ["b", "a"]),
        (Score(), "0.5", 0.5),
        (Percent(), "2.5 %", 0.025),
        (Percent(), "5%", 0.05),
        (Percent(), "5", 0.05),
        (Percent(), "12.5", 0.125),
        (Percent(), "0", 0.0),
        (Percent(), "0.05%", 0.0005),
        (Positive(), "1e-3", 1e-3),
        (Values(), "0:4095", (0, 4095)),
        (Values(), "-1:1.5", (-1, 1.5)),
    ],
)
def test_values(kind, text, value):
    assert kind.convert(text, None, None) == value


ORDER = "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found {}."
FORM = "A batch is a number or MIN:OPT:MAX, such as 8 or 1:8:32; found {!r}."


@pytest.mark.parametrize(
    "kind, text, message",
    [
        (Range(), "8:1:32", ORDER.format("8:1:32")),
        (Range(), "1:32:8", ORDER.format("1:32:8")),
        (Range(), "0:1:2", ORDER.format("0:1:2")),
        (Range(), "1:2:3:4", FORM.format("1:2:3:4")),
        (Range(), "a:b:c", FORM.format("a:b:c")),
        (Range(), "1:²:3", FORM.format("1:²:3")),
        (Range(), "1:8:", FORM.format("1:8:")),
        (Range(), "8", "'8' is not MIN:OPT:MAX, such as 1:8:32."),
        (Range(), "", "'' is not MIN:OPT:MAX, such as 1:8:32."),
        (Range(), "1:8:5000", "5000 is not in the range 1<=x<=4096."),
        (Sizes(), "0", "0 is not in the range 1<=x<=4096."),
        (Sizes(), "8,99999999999999999999", "99999999999999999999 is not in the range 1<=x<=4096."),
        (Sizes(), "1,,2", "'' is not a valid integer range."),
        (Sizes(), "one", "'one' is not a valid integer range."),
        (Sizes(), "1:8:32", "'1:8:32' is not a valid integer range."),
        (Device(), "gpu", "'gpu' is not cpu, cuda or cuda:N."),
        (Device(), "cuda:9999", "'cuda:9999' is not cpu, cuda or cuda:N."),
        (Names(("a", "b")), "a,c", "'c' is not one of a, b."),
        (Score(), "1.5", "1.5 is not in the range 0<=x<=1."),
        (Score(), "-0.1", "-0.1 is not in the range 0<=x<=1."),
        (Score(), "nan", "'nan' is not in the range 0<=x<=1."),
        (Percent(), "five", "'five' is not a percentage, such as 5, 5% or 2.5%."),
        (Percent(), "0.05", "'0.05' may be 0.05 % or 5 %; give it with its sign."),
        (Positive(), "0", "'0' is not a number above 0."),
        (Positive(), "inf", "'inf' is not a number above 0."),
        (Positive(), "nan", "'nan' is not a number above 0."),
        (Positive(), "x", "'x' is not a number above 0."),
    ],
)
def test_what_is_none_is_refused(kind, text, message):
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert caught.value.message == message
