"""Read saved benchmark reports of every schema. No torch here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from ssdtrt import config
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.errors import ReportError, first_line
from ssdtrt.system.files import decode_text

_MAKE_IT = "Make one with: ssdtrt bench --json FILE"
_FIRST_BASELINE = "eager FP32"  # in schema 1 the one row that was not a file's
# Cases up to schema 3. Until schema 4 an engine on a GPU ran without a CUDA graph by default.
_OLD_GPU_CASES = {"engine": "engine-plain", "engine-graph": "engine"}
_OLD_CPU_CASES = {"engine-graph": "engine-plain"}  # Neither runs there.
_RENAMED = {"peer": "case", "worst_ms": "max_ms", "variation": "coefficient_of_variation"}  # since schema 2


def read(path: str | Path) -> BenchReport:
    """Read the report of `ssdtrt bench --json` at `path`.

    Raises:
        ReportError: Where the file holds no intact benchmark report.
        OSError: Where the file cannot be read.
    """
    path = Path(path)
    try:
        data = msgspec.json.decode(decode_text(path.read_bytes()))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON ({first_line(error)}). {_MAKE_IT}") from error
    return parse(data, str(path))


def parse(data: Any, source: str) -> BenchReport:
    """Return the report that JSON data of any schema holds; `source` names it in messages.

    Raises:
        ReportError: Where it is no intact benchmark report.
    """
    schema = _check_kind(data, source)
    try:
        report = msgspec.convert(data if schema == config.BENCH_SCHEMA else _upgrade(data), BenchReport)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ReportError(f"{source} is damaged ({first_line(error)}). {_MAKE_IT}") from error
    if not (report.machine.gpu or report.machine.cpu):
        raise ReportError(f"{source} is damaged (its machine has neither `gpu` nor `cpu`). {_MAKE_IT}")
    for key, count in Counter(row.key for row in report.rows).items():
        if count > 1:
            label = next(row.label for row in report.rows if row.key == key)
            raise ReportError(f"{source} holds more than one row of {label}; expected one. Measure again.")
    return report


def _check_kind(data: Any, source: str) -> int:
    """The schema. Raises ReportError for JSON that is no benchmark report, or that a newer ssdtrt wrote."""
    if not isinstance(data, dict):
        raise ReportError(f"{source} holds no JSON object; expected a benchmark report. {_MAKE_IT}")
    kind = data.get("kind", "bench" if {"machine", "settings", "rows"} <= data.keys() else None)
    if kind != "bench":
        found = "another kind of report" if kind is None else f"a report of kind {ascii(kind)[:40]}"
        raise ReportError(f"{source} is {found}; expected a benchmark report. {_MAKE_IT}")
    schema = data.get("schema", 1)  # Schema 1 did not record it.
    if type(schema) is not int or schema < 1:
        raise ReportError(f"{source} has the schema {ascii(schema)[:40]}; expected a number from 1. {_MAKE_IT}")
    if schema > config.BENCH_SCHEMA:
        raise ReportError(
            f"{source} was written by a newer ssdtrt (schema {schema}, this one reads up to {config.BENCH_SCHEMA}). "
            "Update ssdtrt."
        )
    return schema


def _upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """A report of an older schema as one of today's. What is no row at all is left for the decoder to refuse."""
    rows, machine = data.get("rows"), data.get("machine")
    if not isinstance(rows, list):
        return data
    cases = _OLD_GPU_CASES if isinstance(machine, dict) and machine.get("gpu") else _OLD_CPU_CASES
    return {**data, "rows": [_upgrade_row(row, cases) if isinstance(row, dict) else row for row in rows]}


def _upgrade_row(row: dict[str, Any], cases: dict[str, str]) -> dict[str, Any]:
    if not {"peer", "case"} & row.keys():
        first = row.get("name") == _FIRST_BASELINE
        row = {**row, "peer": config.BENCH_CASES[0] if first else "engine", "file": None if first else row.get("name")}
    row = _renamed(row)
    if isinstance(row.get("case"), str):
        row["case"] = cases.get(row["case"], row["case"])
    if isinstance(row.get("host"), dict):
        row["host"] = _renamed(row["host"])
    if row["case"] and row.get("file") is None:
        row["name"] = row["case"]
    return row


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(name, name): value for name, value in data.items()}
