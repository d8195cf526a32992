"""Tables, lists where there is no room, and words where there is no number."""

import pytest

from ssdtrt.artifact.parity_report import DetectionAgreement
from ssdtrt.commands.tables import fill, match_rate, milliseconds, shorten, table


def test_table():
    assert table(("name", "n"), [("a", "1"), ("longer", "22")], 80) == "name     n\na        1\nlonger  22"


def test_table_that_just_fits():
    rows = [("ab", "1", "333")]
    assert table(("x", "yyyy", "z"), rows, 13) == "x   yyyy    z\nab     1  333"
    assert table(("x", "yyyy", "z"), rows, 12) == "ab\n  yyyy: 1\n  z: 333"


def test_narrow_table_is_stacked():
    text = table(("name", "n"), [("a" * 30, "1"), ("b", "2" * 30)], 40)
    assert text == f"{'a' * 30}\n  n: 1\n\nb\n  n: {'2' * 30}"


def test_table_without_rows():
    assert table(("name", "n"), [], 80) == "name  n"


def test_lines_are_filled_and_words_stay_whole():
    assert fill("one two three four five", 20) == "one two three four\nfive"
    assert fill("one two three four five", 5) == "one two three four\nfive"  # Narrower than any terminal.
    assert fill("one two three four five", 20, "  ") == "  one two three four\n  five"
    assert fill("one two three four five", 20, "  ", "    ") == "  one two three four\n    five"
    assert fill("one two three four five", 20, hanging="    ") == "one two three four\n    five"
    assert fill("a path/that/is/too/long/to/fit well-known", 20) == "a\npath/that/is/too/long/to/fit\nwell-known"


def test_names_are_shortened():
    assert [shorten("traffic light", width) for width in (20, 13, 12, 11)] == [
        "traffic light", "traffic light", "traffic l...", "traffic..."
    ]  # fmt: skip


@pytest.mark.parametrize("value, text", [(0.38812, "0.388"), (9.9994, "9.999"), (14.1234, "14.12"), (120.44, "120.4")])
def test_milliseconds(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    "counts, text", [((0, 0, 0), "none to compare"), ((5, 0, 0), "0.0 %"), ((3, 3, 2), "66.7 %"), ((40, 39, 38), "95.0 %")]
)  # fmt: skip
def test_a_match_rate_is_never_a_percentage_of_nothing(counts, text):
    assert match_rate(DetectionAgreement(*counts)) == text
