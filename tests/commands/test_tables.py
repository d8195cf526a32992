"""Tables, lists where there is no room, and words where there is no number."""

import pytest

from ssdtrt.artifact.parity_report import DetectionAgreement, Repeatability
from ssdtrt.commands.tables import fill, match_rate, milliseconds, repeatability_lines, shorten, table


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


def test_repeatability_lines():
    assert repeatability_lines(None, 80) == []
    found = Repeatability((1, 3), 1e-5, 1.5e-6, 3, 1, 0.0)
    assert repeatability_lines(found, 80) == [
        "in a batch of 1, 3 against alone: 1.5e-06 (bound 1.0e-05)",
        "run again: 0.0e+00 (bound 1e-06)",
    ]
    found = Repeatability((1, 8, 17, 32), 1.6e-2, 1.5e-3, 8, 4, 0.0, 2e-7)
    assert repeatability_lines(found, 80)[1] == "run again: 0.0e+00, as a CUDA graph 2.0e-07 (bound 1e-06)"
    assert max(map(len, "\n".join(repeatability_lines(found, 40)).splitlines())) <= 40
