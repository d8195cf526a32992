"""The base of what the library hands back: frozen records that become JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import msgspec


class Report(msgspec.Struct, frozen=True):
    """A frozen record that becomes plain JSON types with `as_dict`, and a whole document with `document`.

    `derived` names the properties that stand in the JSON beside the fields. A reader leaves them out again: unknown
    fields are ignored while a record is decoded. `kind` and `schema` are those of a record that a command writes.
    """

    derived: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = ""
    schema: ClassVar[int] = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a dict of JSON types.

        Returns:
            The derived properties first, then the fields. NaN and infinity, which JSON does not have, become None,
            and paths become text.
        """
        names = (*self.derived, *self.__struct_fields__)
        return {name: _plain(getattr(self, name)) for name in names}

    def document(self) -> dict[str, Any]:
        """Return what a command writes as JSON: `schema` and `kind`, then `as_dict`."""
        return {"schema": self.schema, "kind": self.kind, **self.as_dict()}


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
