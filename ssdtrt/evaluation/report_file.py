"""Read saved evaluations of every schema. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ssdtrt.errors import ReportError, first_line
from ssdtrt.evaluation.report import FIGURES, EvalReport
from ssdtrt.system.files import decode_text

_MAKE_IT = "Make one with: ssdtrt evaluate --json FILE"


def is_evaluation(path: str | Path) -> bool:
    """Return whether a file holds a report of `ssdtrt evaluate --json`; False also for what cannot be read."""
    try:
        return _is_evaluation(msgspec.json.decode(decode_text(Path(path).read_bytes())))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def read(path: str | Path) -> EvalReport:
    """Read the report of `ssdtrt evaluate --json` at `path`.

    Returns:
        The report; its baselines are without their classes, which the file does not hold.

    Raises:
        ReportError: Where the file holds no intact evaluation.
        OSError: Where the file cannot be read.
    """
    try:
        data = msgspec.json.decode(decode_text(Path(path).read_bytes()))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON ({first_line(error)}). {_MAKE_IT}") from error
    return parse(data, str(path))


def parse(data: Any, source: str) -> EvalReport:
    """Return the evaluation that JSON data of any schema holds; `source` names it in messages.

    Raises:
        ReportError: Where it is no intact evaluation.
    """
    if not _is_evaluation(data):
        kind = data.get("kind") if isinstance(data, dict) else None
        found = "no evaluation" if kind is None else f"a report of kind {ascii(kind)[:40]}"
        raise ReportError(f"{source} is {found}; expected an evaluation. {_MAKE_IT}")
    schema = data.get("schema", 1)  # Schema 1 did not record it.
    if type(schema) is not int or not 1 <= schema <= EvalReport.schema:
        raise ReportError(
            f"{source} has the schema {ascii(schema)[:40]}; this ssdtrt reads 1 to {EvalReport.schema}. Update ssdtrt."
        )
    try:
        report = msgspec.convert({**data, "against": _baselines(data)}, EvalReport)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ReportError(f"{source} is damaged ({first_line(error)}). {_MAKE_IT}") from error
    figures = [one.figures for one in (report, *report.against)]
    if missing := [name for name in FIGURES if not all(name in found for found in figures)]:
        raise ReportError(f"{source} is damaged (it lacks {', '.join(missing)}). {_MAKE_IT}")
    return report


def _baselines(data: dict[str, Any]) -> Any:
    """The baselines with what they share with the report; what is none at all is left for the decoder to refuse."""
    baselines = data.get("against", ())
    if not isinstance(baselines, list):
        return baselines
    shared = {name: data.get(name) for name in ("images", "objects", "settings")}
    return [{**shared, "classes": (), **one} if isinstance(one, dict) else one for one in baselines]


def _is_evaluation(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    return data.get("kind", "evaluation" if {"figures", "classes", "settings"} <= data.keys() else None) == "evaluation"
