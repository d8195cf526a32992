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
    """Read the report of `ssdtrt evaluate --json` at `path`, without its baselines.

    Raises:
        ReportError: Where the file holds no intact evaluation.
        OSError: Where the file cannot be read.
    """
    try:
        data = msgspec.json.decode(decode_text(Path(path).read_bytes()))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON ({first_line(error)}). {_MAKE_IT}") from error
    if not _is_evaluation(data):
        kind = data.get("kind") if isinstance(data, dict) else None
        found = "no evaluation" if kind is None else f"a report of kind {ascii(kind)[:40]}"
        raise ReportError(f"{path} is {found}; expected an evaluation. {_MAKE_IT}")
    schema = data.get("schema", 1)  # Schema 1 did not record it.
    if type(schema) is not int or not 1 <= schema <= EvalReport.schema:
        raise ReportError(
            f"{path} has the schema {ascii(schema)[:40]}; this ssdtrt reads 1 to {EvalReport.schema}. Update ssdtrt."
        )
    try:
        report = msgspec.convert({**data, "against": ()}, EvalReport)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ReportError(f"{path} is damaged ({first_line(error)}). {_MAKE_IT}") from error
    if missing := [name for name in FIGURES if name not in report.figures]:
        raise ReportError(f"{path} is damaged (it lacks {', '.join(missing)}). {_MAKE_IT}")
    return report


def _is_evaluation(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    return data.get("kind", "evaluation" if {"figures", "classes", "settings"} <= data.keys() else None) == "evaluation"
