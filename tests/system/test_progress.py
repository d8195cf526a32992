"""Tests of the progress bar: its rate over the last seconds, the time left, and how often it reports."""

import pytest

from ssdtrt.system.progress import ProgressBar, silent, tracked


class Clock:
    """Seconds that pass when a test lets them."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def bar(clock, lines):
    """Return a function that makes a bar with a method `at(seconds, done)`, an update at a time after the start."""

    def make(total, **options):
        made = ProgressBar(lines.append, "detecting", total, clock=clock, **options)

        def at(seconds, done):
            clock.now = 100.0 + seconds
            made.update(done)

        made.at = at
        return made

    return make


@pytest.mark.parametrize(
    "done, total, line",
    [
        (1, 4, "detecting [#####...............] 1 of 4 images, 0.5 images/s, 6 s left"),
        (2, 4, "detecting [##########..........] 2 of 4 images, 1.0 images/s, 2 s left"),
        (4, 4, "detecting [####################] 4 of 4 images, 2.0 images/s"),
        (5, 4, "detecting [####################] 5 of 4 images, 2.5 images/s"),
        (20, 40, "detecting [##########..........] 20 of 40 images, 10 images/s, 2 s left"),
        (5000, 40_000, "detecting [##..................] 5,000 of 40,000 images, 2,500 images/s, 14 s left"),
        (0, 4, "detecting [....................] 0 of 4 images, 0.0 images/s"),
        (7, None, "detecting, 7 images, 3.5 images/s"),
        (1, 301, "detecting [....................] 1 of 301 images, 0.5 images/s, 10:00 min left"),
        (1, 9001, "detecting [....................] 1 of 9,001 images, 0.5 images/s, 5:00 h left"),
    ],
)
def test_line_after_two_seconds(bar, lines, done, total, line):
    bar(total).at(2, done)
    assert lines == [line]


def test_the_rate_is_that_of_the_last_seconds(bar, lines):
    """The rate is that of the last five seconds, after a change from ten to one per second."""
    slow = bar(1000)
    for second in range(1, 11):
        slow.at(second, 10 * second)
    assert lines[-1].endswith(", 10 images/s, 1:30 min left")
    for second in range(1, 6):
        slow.at(10 + second, 100 + second)
    assert lines[-1].endswith("105 of 1,000 images, 1.0 images/s, 14:55 min left")


def test_a_rate_covers_more_time_where_little_is_done(bar, lines):
    rare = bar(10)
    rare.at(60, 1)
    assert lines[-1].endswith("1 of 10 images, 0.0 images/s, 9:00 min left")
    rare.at(120, 2)
    assert lines[-1].endswith("2 of 10 images, 0.0 images/s, 8:00 min left")


def test_lines_are_a_tenth_of_a_second_apart(bar, lines):
    quick = bar(None)
    for tick in range(100):
        quick.at(tick / 100, tick)
    assert [int(line.split()[1]) for line in lines] == pytest.approx(list(range(10, 100, 10)), abs=10)
    assert len(lines) in (8, 9)


def test_the_last_line_always_comes(bar, lines):
    quick = bar(3)
    for done in (1, 2, 3):
        quick.at(0.01 * done, done)
    assert [line.split("] ")[1].split(",")[0] for line in lines] == ["3 of 3 images"]


def test_a_line_without_any_time_has_no_rate(bar, lines):
    bar(1).at(0, 1)
    assert lines == ["detecting [####################] 1 of 1 image, 0.0 images/s"]


def test_units_of_more_than_one(bar, lines):
    bar(90_000_000, unit="MB", scale=1e6).at(3, 45_600_000)
    assert lines == ["detecting [##########..........] 46 of 90 MB, 15 MB/s, 3 s left"]


@pytest.mark.parametrize(
    "unit, done, line",
    [
        ("round", 1, "detecting [######..............] 1 of 3 rounds, 4 s left"),
        ("batch size", 2, "detecting [#############.......] 2 of 3 batch sizes, 1 s left"),
        ("class", 3, "detecting [####################] 3 of 3 classes"),
    ],
)
def test_units_whose_rate_says_nothing_show_the_time_left_alone(bar, lines, unit, done, line):
    bar(3, unit=unit, rate=False).at(2, done)
    assert lines == [line]


def test_units_are_added_to_those_that_are_done(bar, lines):
    added = bar(4)
    added.add(1)
    added.add(3)
    assert [line.split("] ")[1].split(",")[0] for line in lines] == ["4 of 4 images"]


def test_what_is_tracked_is_named_first_and_done_when_the_next_is_asked_for(lines):
    seen = [(item, len(lines)) for item in tracked("a", lines.append, "reading", "picture")]
    assert seen == [("a", 1)] and lines == ["reading", "reading [####################] 1 of 1 picture"]
    assert list(tracked("ab", silent, "reading", "picture")) == ["a", "b"]
    assert list(tracked((), lines.append, "looking", "picture")) == [] and lines[-1] == "looking"


def test_nothing_is_shown_where_nothing_is_asked_for():
    assert silent("a line") is None
