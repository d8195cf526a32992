"""Read the JSON files that the commands write, each by its kind, and sort what they hold. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from ssdtrt import config
from ssdtrt.artifact.inspection import Inspection
from ssdtrt.artifact.metadata import EngineMetadata, Metadata, OnnxDetectorMetadata
from ssdtrt.artifact.older_metadata import of_first_schema
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.benchmarking import report_file as bench_file
from ssdtrt.benchmarking.compare import CompareReport
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.detection.results import UNTRAINED, PictureList
from ssdtrt.errors import ReportError, first_line
from ssdtrt.evaluation import report_file as evaluation_file
from ssdtrt.evaluation.compare import EvalComparison
from ssdtrt.evaluation.report import EvalReport
from ssdtrt.reporting.records import ProfileReport, RunReport
from ssdtrt.system.files import decode_text
from ssdtrt.system.report import Report
from ssdtrt.system.versions import Machine, MeasuredOn, Versions

R = TypeVar("R", bound=Report)
_MAX_DIGITS = 20  # of a whole number, with its sign


@dataclass(frozen=True)
class Source:
    """A file and the report in it."""

    name: str
    report: Report


def read_source(path: str | Path) -> Source:
    """Read a JSON file of any kind that a page can show.

    Raises:
        ReportError: If it holds none, or a damaged one.
        OSError: If it cannot be read.
    """
    name = str(path)
    try:
        # Python's own decoder takes the names of files that are no UTF-8, which `run` writes as lone surrogates.
        text = decode_text(Path(path).read_bytes())
        data = json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{name} is not JSON ({first_line(error)}). {_expected()}") from error
    kind = _kind(data)
    if kind not in _PARSERS:
        found = "no report of ssdtrt" if kind is None else f"a report of kind {ascii(kind)[:40]}"
        raise ReportError(f"{name} is {found}. {_expected()}")
    try:
        return Source(Path(name).name, _PARSERS[kind](data, name))
    except (msgspec.ValidationError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ReportError(f"{name} is damaged ({first_line(error)}). Make it again.") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number of JSON")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _kind(data: Any) -> str | None:
    """The kind of report; that of the first schemas, which did not record it, by their fields."""
    if isinstance(data, list):
        return "detections" if all(isinstance(one, dict) and "detections" in one for one in data) else None
    if not isinstance(data, dict):
        return None
    if "kind" in data:
        return str(data["kind"])
    return next((kind for kind, fields in _FIELDS.items() if fields <= data.keys()), None)


def _expected() -> str:
    kinds = ", ".join(kind for kind in _PARSERS if kind != "detections")
    return f"Expected a JSON file of ssdtrt ({kinds}), or a {config.DETECTIONS_FILE}."


def _record(cls: type[R], *, oldest: int = 1) -> Callable[[Any, str], R]:
    """A parser of a kind whose JSON is the record's fields."""

    def parse(data: Any, source: str) -> R:
        _check_schema(data, source, oldest, cls.schema)
        return msgspec.convert(data, cls)

    return parse


def _check_schema(data: dict[str, Any], source: str, oldest: int, newest: int) -> None:
    schema = data.get("schema", 1)  # Schema 1 did not record it.
    if type(schema) is not int or not oldest <= schema <= newest:
        todo = "Update ssdtrt." if type(schema) is int and schema > newest else "Make it again."
        expected = str(newest) if oldest == newest else f"{oldest} to {newest}"
        raise ReportError(f"{source} has the schema {ascii(schema)[:40]}; expected {expected}. {todo}")


def _parse_run(data: Any, source: str) -> RunReport:
    _check_schema(data, source, 1, RunReport.schema)
    changed = {"bench": bench_file.parse(data["bench"], source).document()}
    if data.get("schema", 1) == 1:
        changed |= {name: of_first_schema(data[name]) for name in ("module", "engine")}
    return msgspec.convert({**data, **changed}, RunReport, dec_hook=_decode_path)


def _decode_path(kind: type, value: Any) -> Any:
    return kind(value)  # A Path, which msgspec does not know.


def _parse_inspection(data: Any, source: str) -> Inspection:
    found = _record(Inspection, oldest=Inspection.schema)(data, source)
    _recorded(found)  # Raises where the metadata is damaged.
    return found


def _recorded(found: Inspection) -> Metadata | OnnxDetectorMetadata:
    """The metadata of an inspected file, as a record."""
    onnx = found.metadata.get("format") == "onnx" and found.metadata.get("kind") == "detector"
    record: Any = OnnxDetectorMetadata if onnx else Metadata
    return msgspec.convert(found.metadata, record)


def _parse_detections(data: Any, source: str) -> PictureList:
    if isinstance(data, list):  # Schema 1.
        return msgspec.convert({"pictures": data}, PictureList)
    return _record(PictureList, oldest=PictureList.schema)(data, source)


_PARSERS: dict[str, Callable[[Any, str], Report]] = {
    "run": _parse_run,
    "bench": bench_file.parse,
    "evaluation": evaluation_file.parse,
    "parity": _record(ParityReport),
    "profile": _record(ProfileReport),
    "inspection": _parse_inspection,
    "compare": _record(CompareReport),
    "compare-evaluation": _record(EvalComparison),
    "detections": _parse_detections,
}
_FIELDS = {  # of what was written before reports recorded their kind
    "run": {"folder", "engine", "bench", "detections"},
    "bench": {"machine", "settings", "rows"},
    "evaluation": {"figures", "classes", "settings"},
    "parity": {"precision", "outputs", "bound", "detections"},
}


@dataclass(frozen=True)
class Agreement:
    """A comparison with FP32: what was compared, and the file that has it."""

    what: str
    source: str
    parity: ParityReport


@dataclass(frozen=True)
class Built:
    """A file that was built or exported, and what it records."""

    name: str
    source: str
    metadata: Metadata | OnnxDetectorMetadata


class Reports:
    """What all sources hold, by subject."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = tuple(sources)
        runs = self.of(RunReport)
        self.benches = [(name, run.bench) for name, run in runs] + self.of(BenchReport)
        self.evaluations = self.of(EvalReport)
        self.profiles = self.of(ProfileReport)
        self.comparisons = self.of(CompareReport)
        self.evaluation_comparisons = self.of(EvalComparison)
        self.built = list(self._built_by(runs))
        self.built += [Built(Path(one.file).name, name, _recorded(one)) for name, one in self.of(Inspection)]
        self.agreements = list(self._agreements())
        self.pictures = [(run.detections, run.trained) for _, run in runs]
        self.pictures += [(found.pictures, found.note != UNTRAINED) for _, found in self.of(PictureList)]

    def of(self, cls: type[R]) -> list[tuple[str, R]]:
        """Return the reports of a class, with the names of their files."""
        return [(one.name, one.report) for one in self.sources if isinstance(one.report, cls)]

    def machines(self) -> dict[MeasuredOn, list[str]]:
        """Return the machines, and what was done on each."""
        found: list[tuple[MeasuredOn, str]] = []
        for one in self.built:
            machine = _measured_on(one.metadata.machine, one.metadata.versions)
            found.append((machine, f"{one.name} built" if _is_engine(one.metadata) else f"{one.name} exported"))
        found += [(bench.machine, f"speed ({name})") for name, bench in self.benches]
        found += [(report.machine, f"accuracy ({name})") for name, report in self.evaluations if report.machine]
        found += [(_measured_on(one.machine, one.versions), f"layers ({name})") for name, one in self.profiles]
        found += [(report.machine, f"comparison ({name})") for name, report in self.comparisons]
        uses: dict[MeasuredOn, list[str]] = {}
        for machine, use in found:
            uses.setdefault(machine, []).append(use)
        return uses

    def _built_by(self, runs: Sequence[tuple[str, RunReport]]) -> Iterator[Built]:
        for name, run in runs:
            yield Built(config.MODULE_FILE, name, run.module)
            yield Built(config.ENGINE_FILE, name, run.engine)

    def _agreements(self) -> Iterator[Agreement]:
        for one in self.built:
            if isinstance(one.metadata, EngineMetadata):
                yield Agreement(f"{one.name}, when it was built", one.source, one.metadata.parity)
        for name, report in self.of(ParityReport):
            yield Agreement(f"{report.precision.upper()} engine", name, report)
        for name, bench in self.benches:
            for row in bench.with_file_names.rows:
                if row.agreement is not None:
                    yield Agreement(row.label, name, row.agreement)


def _is_engine(metadata: Metadata | OnnxDetectorMetadata) -> bool:
    return isinstance(metadata, EngineMetadata)


def _measured_on(machine: Machine, versions: Versions) -> MeasuredOn:
    return MeasuredOn(versions=versions, **{name: asdict(machine)[name] for name in Machine.__struct_fields__})
