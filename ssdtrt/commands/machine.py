"""The commands that describe a machine, a saved file and the cache: doctor, inspect, cache."""

from __future__ import annotations

import sys
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ssdtrt.artifact.layers import EngineLayer, arithmetic_by_dtype, count_by_dtype
from ssdtrt.commands.options import check_apart, check_json, end_with, json_option, sha256_option, show, terminal
from ssdtrt.commands.parameters.types import complete_cached
from ssdtrt.commands.terminal import printable
from ssdtrt.commands.text.tables import (
    LAYER_COLUMNS,
    cache_text,
    cleared_text,
    fill,
    shorten,
    table,
)
from ssdtrt.errors import ArtifactError
from ssdtrt.system.report import counted
from ssdtrt.system.versions import may_have_tensorrt, other_backend

if TYPE_CHECKING:
    from ssdtrt.artifact.inspection import Inspection
    from ssdtrt.diagnosis.report import DoctorReport, Finding

_MIN_VALUE = 24  # columns for a value; with fewer it is shown below its name
_MIN_COLUMNS = 60  # for status, check and finding side by side


@click.command()
@click.option("--build", is_flag=True, help="Also build and run a tiny FP16 engine.")
@json_option
def doctor(build, json_file):
    """Show what this machine has and lacks for TensorRT engines.

    Every problem is shown with a fix. The exit code is 1 if no engine can be built here.

    Example: ssdtrt doctor --build
    """
    from ssdtrt.doctor import diagnose

    check_json(json_file)
    report = diagnose(build, progress=terminal.progress)
    show(report, json_file, doctor_text)
    if not report.can_build:
        sys.exit(1)
    if build:
        terminal.hint("export")
    else:
        terminal.hint("doctor", "--build")


@click.command()
@click.argument("file")
@click.option("--layers", is_flag=True, help="Show the layers of a TensorRT engine and the type of each instead.")
@click.option("--check", is_flag=True, help="Read the whole file and check the checksum of every byte.")
@sha256_option
@json_option
def inspect(file, layers, check, sha256, json_file):
    """Show what FILE records, and whether it fits this machine.

    It shows versions, machine, weights, labels, build and parity of any file that ssdtrt wrote, on any machine, and
    runs no code of the file. With --layers it shows which layer of an engine computes in which type.

    Example: ssdtrt inspect ssd300.engine.ts
    """
    check_apart({"--json": json_file}, [file])
    from ssdtrt.artifact.inspection import inspect_file

    check_json(json_file)
    report = inspect_file(file, check=check, sha256=sha256)
    if layers:
        check_layers(report)
    show(report, json_file, layers_text if layers else inspection_text)
    terminal.hint(*_following(file, report))


def _following(file: str, found: Inspection) -> list[str]:
    """Return the command that usually comes next; none for a file that does not run here."""
    if found.metadata["kind"] == "module" and found.metadata["format"] == "torchscript":
        return ["compile", file, *other_backend()]
    needed = {"onnx": "onnxruntime", "plan": "tensorrt"}.get(found.metadata["format"], "torch_tensorrt")
    on_gpu = found.metadata["machine"]["sm"] is not None
    runs = may_have_tensorrt(needed) if on_gpu else needed != "onnxruntime" or find_spec(needed) is not None
    return ["bench", file] if runs and not found.differs else []


@click.group()
def cache():
    """Show and clear the cache of engines and timings.

    It holds each engine that was accepted, and TensorRT's timing caches, in the folder that SSDTRT_CACHE names. Beyond
    SSDTRT_CACHE_LIMIT (such as 500MB; by default 20GB, 0 for no limit) a build removes what was not used for the longest
    time.

    Example: ssdtrt cache list
    """


@cache.command("list")
@json_option
def list_(json_file):
    """List what the cache holds, the last used first.

    Example: ssdtrt cache list --json cache.json
    """
    from ssdtrt.artifact.cache_folder import list_cache

    check_json(json_file)
    show(list_cache(), json_file, cache_text)


@cache.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_cached)
@click.option("--older-than", type=click.IntRange(min=0), metavar="DAYS", help="Only what was not used for DAYS days.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def clear(names, older_than, yes, json_file):
    """Remove what the cache holds, or only NAMEs.

    NAME is the beginning of a key, as ssdtrt cache list shows it, or engine, timings, damaged or unfinished. What other
    processes read or write is left, and so is every file that ssdtrt did not write.

    Example: ssdtrt cache clear --older-than 30
    """
    from ssdtrt.artifact.cache_folder import choose_entries, clear_cache, list_cache, size_text

    check_json(json_file)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on; give --yes.")
    report = list_cache()
    chosen = choose_entries(report, names, older_than)
    if chosen and not yes:
        size = size_text(sum(entry.bytes for entry in chosen))
        try:
            agreed = click.confirm(f"Remove {counted(len(chosen), 'entry')}, {size}, from {report.folder}?", err=True)
        except click.Abort as error:
            raise KeyboardInterrupt from error
        chosen = chosen if agreed else ()
    cleared = clear_cache(report, chosen)
    show(cleared, json_file, cleared_text)
    end_with(cleared.failures)


def doctor_text(report: DoctorReport, width: int) -> str:
    """Return a line for each finding, with its fix below, and the verdict."""
    lines = [line for finding in report.findings for line in _finding_lines(finding, width)]
    count = len(report.problems)
    verdict = "No problem was found. To be sure: ssdtrt doctor --build"
    if count:
        verdict = f"No TensorRT engine can be built here: {counted(count, 'problem')}."
    elif report.built:
        verdict = "A TensorRT engine can be built here."
    return "\n".join([*lines, "", fill(verdict, width)])


def _finding_lines(finding: Finding, width: int) -> list[str]:
    """Return the lines of a finding: status, check and finding in columns, or below each other if it is narrow."""
    found = " ".join(finding.found.split())
    if width < _MIN_COLUMNS:
        indent = "  "
        lines = [f"{finding.status}: {finding.check}", fill(found, width, indent)]
    else:
        indent = " " * 27
        lines = [fill(f"{finding.status:<9}{finding.check:<18}{found}", width, hanging=indent)]
    if finding.fix:
        lines.append(fill(f"fix: {finding.fix}", width, indent, indent + "  "))
    return lines


def inspection_text(found: Inspection, width: int) -> str:
    """Return all that a file records as `name  value` lines, or with each value below its name if it is narrow."""
    size = counted(found.bytes, "byte")
    if found.bytes_per_parameter is not None:
        size += f", {found.bytes_per_parameter:.2f} a parameter"
    metadata = found.as_dict()["metadata"]
    layers = metadata.get("layers")
    rows = [
        ("file", found.file),
        ("size", size),
        ("checked", "every byte's checksum" if found.checked else "metadata only (--check reads it all)"),
        ("fits this machine", _fits(found)),
        *(("note", note) for note in found.notes),
        *_flat({**metadata, **({"layers": f"{len(layers)} (--layers shows them)"} if layers else {})}),
    ]
    column = max(len(name) for name, _ in rows) + 2
    if width - column < _MIN_VALUE:
        return "\n".join("\n".join([printable(name), *_wrapped(value, width, "  ")]) for name, value in rows)
    lines = []
    for name, value in rows:
        first, *more = _wrapped(value, width, " " * column)
        lines += [printable(name).ljust(column) + first[column:], *more]
    return "\n".join(lines)


def check_layers(found: Inspection) -> None:
    """Refuse a file whose layers are not known."""
    if not found.metadata.get("layers"):
        raise ArtifactError(
            f"{found.file} records no layers; expected a TensorRT engine that was built with --front-end tensorrt."
        )


def layers_text(found: Inspection, width: int) -> str:
    """Return a table of the layers of an engine, with the type and the share of the arithmetic of each, and the sums."""
    layers = msgspec.convert(found.metadata["layers"], tuple[EngineLayer, ...])
    total = sum(layer.multiplications or 0 for layer in layers)
    rows = [
        (
            shorten(layer.name, LAYER_COLUMNS),
            layer.operation,
            layer.dtype or "-",
            f"{100 * layer.multiplications / total:.1f} %" if layer.multiplications else "-",
        )
        for layer in layers
    ]
    arithmetic = arithmetic_by_dtype(layers)
    shares = [
        f"{name} {count} of {counted(len(layers), 'layer')}, {100 * arithmetic.get(name, 0.0):.1f} % of the arithmetic"
        for name, count in count_by_dtype(layers).items()
    ]
    lines = [fill(line, width) for line in shares]
    return "\n".join([table(("layer", "operation", "type", "arithmetic"), rows, width), "", *lines])


def _fits(found: Inspection) -> str:
    """Return whether the file runs on this machine, as far as that is known without asking the GPU."""
    if found.differs:
        return "no: " + "; ".join(found.differs)
    sm = found.metadata["machine"]["sm"]  # Only a TensorRT engine is built on a GPU.
    if sm is not None:
        return f"yes, as far as is known without asking the GPU, whose compute capability must be {sm}"
    return "yes: it needs ONNX Runtime" if found.metadata["format"] == "onnx" else "yes: it needs torch alone"


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the metadata as rows, with dotted names for the fields of objects."""
    rows = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            rows += _flat(item, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _in_words(item)))
    return rows


def _in_words(value: Any) -> str:
    """Return a value in one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    if isinstance(value, dict):
        if {"name", "dtype", "shape"} <= value.keys():
            return f"{_in_words(value['name'])} [{_in_words(value['shape'])}] {_in_words(value['dtype'])}"
        return " ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wrapped(value: str, width: int, indent: str) -> list[str]:
    """Return a value as one or more indented lines of at most `width` columns; long words are broken."""
    text = printable(value) or "-"
    return textwrap.wrap(
        text, max(width, len(indent) + 8), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    ) or [indent]
