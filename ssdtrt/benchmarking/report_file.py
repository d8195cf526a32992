"""Benchmark reports that were saved as JSON: read, checked, and brought to one form. No torch here."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdtrt import config
from ssdtrt.artifact import fields
from ssdtrt.artifact.fields import is_number, shown
from ssdtrt.errors import ReportError

FIRST_EAGER = "eager FP32"  # the one row of the first schema, which had no peers, that was not a file's
FIGURES = ("median_ms", "images_per_second", "speedup")
FILES = ("torchscript", "engine", "engine-graph")  # the peers that a file can be
NEEDED = {
    "machine": fields.OBJECT,
    "machine.gpu": fields.TEXT_OR_NULL,
    "machine.cpu": fields.TEXT,
    "machine.cores": fields.COUNT,
    "machine.versions": fields.OBJECT,
    "machine.versions.torch": fields.TEXT,
    "machine.versions.torch_tensorrt": fields.TEXT_OR_NULL,
    "machine.versions.tensorrt": fields.TEXT_OR_NULL,
    "machine.versions.driver": fields.TEXT_OR_NULL,
    "settings": fields.OBJECT,
    "settings.rounds": fields.COUNT,
    "settings.iterations": fields.COUNT,
    "settings.clock": fields.TEXT,
}
MAKE_IT = "Make one with: ssdtrt bench --json FILE"


@dataclass(frozen=True)
class Row:
    """One runner at one batch size. `file` is the name of the file it ran, None for what ran no file.

    The figures are None where the row failed, and `reason` says why it did. `built` is False for a module's file.
    """

    peer: str
    file: str | None
    precision: str
    batch_size: int
    median_ms: float | None
    images_per_second: float | None
    speedup: float | None
    reason: str | None = None
    built: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is one of the files that were measured, and not what they were set against."""
        return self.file is not None and self.peer in FILES

    @property
    def key(self) -> tuple:
        """What makes it the same row as one of another report."""
        return self.peer, self.file, self.precision, self.batch_size

    @property
    def runner(self) -> str:
        """The runner in words, such as `b8.engine.ts FP16` or `eager-tf32 FP32`."""
        name = self.peer if self.file is None else self.file
        if self.precision not in name.lower():
            name = f"{name} {self.precision.upper()}"
        return name if self.file is None or self.peer == "engine" else f"{name}, {self.peer}"

    @property
    def label(self) -> str:
        """The runner and its batch size."""
        return f"{self.runner}, batch {self.batch_size}"


@dataclass(frozen=True)
class Record:
    """A benchmark's report: where it is from, the machine with its versions, how it was measured, and the rows."""

    source: str
    machine: dict
    settings: dict
    rows: tuple[Row, ...]


def read(path: str | Path) -> Record:
    """The report at `path`, of any schema so far. Raises ReportError, or OSError where the file cannot be read."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON ({error}). {MAKE_IT}") from error
    return parse(data, str(path))


def parse(data: Any, source: str) -> Record:
    """The report that JSON data holds. Raises ReportError for anything else."""
    check_kind(data, source)
    rows = data.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f"{source} has no rows; expected those of a benchmark. {MAKE_IT}")
    if reason := fields.complaint(data, NEEDED):
        raise ReportError(f"{source} is damaged or not whole: {reason}. {MAKE_IT}")
    names = short_names([file_of(row) for row in rows])
    found = tuple(row_of(row, names, f"row {index} of {source}") for index, row in enumerate(rows, 1))
    twice = [row for row, count in Counter(row.key for row in found).items() if count > 1]
    if twice:
        label = next(row.label for row in found if row.key == twice[0])
        raise ReportError(f"{source} holds more than one row of {label}; expected one. Measure again.")
    return Record(source, data["machine"], data["settings"], found)


def check_kind(data: Any, source: str) -> None:
    """Raises ReportError for JSON that is no benchmark's report, or that a newer ssdtrt wrote."""
    if not isinstance(data, dict):
        raise ReportError(f"{source} holds {shown(data)}; expected a benchmark's report. {MAKE_IT}")
    schema = data.get("schema", 1)  # The first version had none.
    kind = data.get("kind", "bench" if {"machine", "settings", "rows"} <= data.keys() else None)
    if kind != "bench":
        what = "another kind of report" if kind is None else f"a report of kind {shown(kind)}"
        raise ReportError(f"{source} is {what}; expected a benchmark's. {MAKE_IT}")
    if type(schema) is not int or schema < 1:
        raise ReportError(f"{source} has the schema {shown(schema)}; expected a number from 1. {MAKE_IT}")
    if schema > config.BENCH_SCHEMA:
        raise ReportError(
            f"{source} was written by a newer ssdtrt (schema {schema}, this one reads up to {config.BENCH_SCHEMA}). "
            "Update ssdtrt."
        )


def file_of(row: dict) -> Any:
    """The path that a row of any schema names; None where it ran no file."""
    if "peer" in row:
        return row.get("file")
    return None if row.get("name") == FIRST_EAGER else row.get("name")


def peer_of(row: dict) -> Any:
    """The peer of a row of any schema; a runner of the caller's own has none and is known by its name."""
    if "peer" in row:
        return row["peer"] or row.get("name")
    return "eager-fp32" if row.get("name") == FIRST_EAGER else "engine"


def short_names(paths: list) -> dict[str, str]:
    """The name for each path: its last part, or the whole path where two paths end alike."""
    whole = {path for path in paths if isinstance(path, str)}
    ends = Counter(Path(path).name for path in whole)
    return {path: Path(path).name if ends[Path(path).name] == 1 else path for path in whole}


def row_of(row: dict, names: dict[str, str], where: str) -> Row:
    """One row. Raises ReportError where a field is missing or not of its kind."""
    file, peer = file_of(row), peer_of(row)
    size, reason = row.get("batch_size"), row.get("reason")
    wrong = [
        (name, value)
        for name, value, fits in (
            ("peer", peer, isinstance(peer, str)),
            ("file", file, file is None or isinstance(file, str)),
            ("precision", row.get("precision"), isinstance(row.get("precision"), str)),
            ("batch_size", size, type(size) is int and size > 0),
            ("reason", reason, reason is None or isinstance(reason, str)),
            *((name, row.get(name), is_figure(row.get(name))) for name in FIGURES),
        )
        if not fits
    ]
    if wrong:
        name, value = wrong[0]
        raise ReportError(f"{where} is damaged or not whole: {name} is {shown(value)}. {MAKE_IT}")
    failed = row.get("status", "ok") != "ok" or row.get("median_ms") is None
    figures = {name: None if failed else row.get(name) for name in FIGURES}
    reason = (reason or "it gives no reason") if failed else None
    built = row.get("build_seconds") is not None
    return Row(peer, names.get(file), row["precision"], size, reason=reason, built=built, **figures)


def is_figure(value: Any) -> bool:
    """Whether it is null or a positive, finite number."""
    return value is None or (is_number(value) and 0 < value < math.inf)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
