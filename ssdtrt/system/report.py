"""The base class of results: frozen records that convert to JSON. And their form in a notebook, and counts in words."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec


class Report(msgspec.Struct, frozen=True):
    """A frozen record that converts to JSON types.

    Attributes:
        derived: The names of the properties that the JSON holds in addition to the fields. Decoding ignores them, as it
            ignores every unknown field.
        kind: The kind of document, for a record that a command writes.
        schema: The version of that document's layout.
    """

    derived: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = ""
    schema: ClassVar[int] = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a dict of JSON types.

        Returns:
            The derived properties first, then the fields. NaN and infinity, which JSON does not have, become None, and
            paths become text.
        """
        names = (*self.derived, *self.__struct_fields__)
        return {name: _plain(getattr(self, name)) for name in names}

    def document(self) -> dict[str, Any]:
        """Return the JSON document that a command writes: `schema` and `kind`, then `as_dict`."""
        return {"schema": self.schema, "kind": self.kind, **self.as_dict()}


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural but for 1: `1 picture`, `2,000 classes`."""
    if number != 1:
        noun = noun[:-1] + "ies" if noun.endswith("ry") else noun + ("es" if noun.endswith(("s", "ch")) else "s")
    return f"{number:,} {noun}"


def html_table(title: str, rows: Mapping[str, str]) -> str:
    """Return an HTML table of names and values, for a notebook."""
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{html.escape(title)}</caption>{''.join(cells)}</table>"


def differing(old: Report, new: Report, names: Mapping[str, str]) -> list[str]:
    """Return the values that differ, in words.

    Args:
        old: A record.
        new: A later one.
        names: The fields that are compared, and what to call them.
    """
    pairs = [(words, getattr(old, name), getattr(new, name)) for name, words in names.items()]
    return [f"{words} was {_in_words(then)}, is {_in_words(now)}" for words, then, now in pairs if then != now]


def _in_words(value: Any) -> str:
    return "none" if value is None else "on" if value is True else "off" if value is False else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Report):
        return value.as_dict()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
