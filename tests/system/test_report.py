"""Tests of the base class of results: JSON types only, and frozen."""

import json
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdtrt.system.report import Report, counted, differing


class Anything(Report, frozen=True):
    """A report with a field of any type."""

    value: Any


class Circle(Report, frozen=True):
    """A report with a derived property, a kind and a schema."""

    kind = "circle"
    schema = 7
    derived: ClassVar[tuple[str, ...]] = ("diameter",)

    radius: float

    @property
    def diameter(self):
        """Twice the radius."""
        return 2 * self.radius


def strict(text):
    """Parse standard JSON, which has no NaN and no Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(Path("a/b")),
    lambda some: st.lists(some, max_size=3) | st.tuples(some, some) | st.dictionaries(st.integers(), some, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_every_report_is_strict_json(value):
    found = Anything(value).as_dict()
    assert strict(json.dumps(found)) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_lacks_becomes_none(value):
    found = Anything((value, {"a": [value, 1.5]}, Anything(value))).as_dict()
    assert found == {"value": [None, {"a": [None, 1.5]}, {"value": None}]}


def test_paths_and_keys_become_text():
    assert Anything({1: Path("a") / "b", "c": (1, 2)}).as_dict() == {"value": {"1": str(Path("a/b")), "c": [1, 2]}}


def test_derived_properties_come_first_at_any_depth():
    assert list(Circle(2.0).as_dict().items()) == [("diameter", 4.0), ("radius", 2.0)]
    assert Anything([Circle(2.0)]).as_dict() == {"value": [{"diameter": 4.0, "radius": 2.0}]}


def test_document_begins_with_schema_and_kind():
    assert list(Circle(2.0).document().items()) == [
        ("schema", 7), ("kind", "circle"), ("diameter", 4.0), ("radius", 2.0)
    ]  # fmt: skip
    assert list(Anything(1).document()) == ["schema", "kind", "value"]


def test_a_reader_leaves_derived_properties_out():
    assert msgspec.convert(Circle(2.0).document(), Circle) == Circle(2.0)


def test_reports_are_frozen():
    report = Circle(2.0)
    with pytest.raises(AttributeError):
        report.radius = 3.0
    assert msgspec.structs.replace(report, radius=3.0) == Circle(3.0) and report.radius == 2.0


def test_what_differs_in_words():
    names = {"value": "the value"}
    assert differing(Anything(True), Anything(True), names) == []
    assert differing(Anything(True), Anything(None), names) == ["the value was on, is none"]
    assert differing(Anything(0.5), Anything(False), names) == ["the value was 0.5, is off"]


def test_a_number_and_its_noun():
    counts = [(0, "picture"), (1, "picture"), (2, "picture"), (1, "class"), (2, "class"), (5000, "batch"), (2, "category"),
              (2, "layer"), (2, "auxiliary stream")]  # fmt: skip
    assert [counted(*one) for one in counts] == [
        "0 pictures", "1 picture", "2 pictures", "1 class", "2 classes", "5,000 batches", "2 categories", "2 layers",
        "2 auxiliary streams",
    ]  # fmt: skip
