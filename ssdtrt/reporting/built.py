"""What was built, and on which machines everything was done."""

from __future__ import annotations

from xml.etree import ElementTree

from ssdtrt.artifact.metadata import EngineMetadata
from ssdtrt.reporting.elements import Content, bullets, element, facts, section
from ssdtrt.reporting.sources import Built, Reports
from ssdtrt.system.report import counted
from ssdtrt.system.versions import MeasuredOn

_VERSIONS = {
    "torch": "torch",
    "torch_tensorrt": "Torch-TensorRT",
    "tensorrt": "TensorRT",
    "cuda": "CUDA",
    "driver": "driver",
    "torchvision": "torchvision",
    "python": "Python",
    "ssdtrt": "ssdtrt",
}


def built_section(reports: Reports, missing: list[str]) -> ElementTree.Element | None:
    """Return what was built, or else which files were measured; None without either."""
    if reports.built:
        cards = [_built_card(one) for one in reports.built]
        return section("What was built", element("div", *cards, class_="columns"))
    missing.append(
        "What was built: none of the files has the record of an engine. ssdtrt inspect --json writes it, and ssdtrt run."
    )
    measured: dict[str, None] = {}
    for name, bench in reports.benches:
        rows = [row for row in bench.with_file_names.rows if row.is_file]
        measured |= dict.fromkeys(f"{row.file} {row.precision.upper()} ({name})" for row in rows)
    measured |= dict.fromkeys(f"{one.name} {one.precision.upper()} ({name})" for name, one in reports.evaluations)
    shown = bullets(measured, "notes")
    return None if shown is None else section("What was measured", shown)


def _built_card(built: Built) -> ElementTree.Element:
    """The facts of one file."""
    metadata = built.metadata
    model, weights = metadata.model, metadata.model.weights
    rows: list[tuple[str, Content]] = [("kind", f"{metadata.kind}, {metadata.format}")]
    if isinstance(metadata, EngineMetadata):
        request, build = metadata.request, metadata.build
        rows += [
            ("precision", request.computes_in.title),
            ("back end", request.backend + (f", front end {request.front_end}" if request.front_end else "")),
            ("batch", request.batch or "any"),
            ("built in", f"{build.seconds:,.0f} s" + (", taken from the cache" if build.cached else "")),
        ]
        if request.streams is not None:
            rows.append(("auxiliary streams", str(request.streams)))
    rows.append(("network", model.architecture + (f", {model.parameters:,} parameters" if model.parameters else "")))
    rows.append(("classes", str(len(model.labels) - 1)))
    rows.append(("pictures prepared as", model.preprocess))
    if weights is not None:
        state = "" if weights.trained else ", untrained: seeded random numbers"
        rows += [("weights", weights.name + state), ("their SHA-256", element("code", weights.sha256))]
    rows += [("written", metadata.created), ("recorded in", built.source)]
    return element("article", element("h3", built.name), facts(rows))


def where_section(reports: Reports, missing: list[str]) -> ElementTree.Element | None:
    """Return the machines and versions; None where no file records one."""
    machines = reports.machines()
    if not machines:
        missing.append("Where: none of the files records a machine.")
        return None
    cards = [_machine_card(machine, uses) for machine, uses in machines.items()]
    return section("Where", element("div", *cards, class_="columns"))


def _machine_card(machine: MeasuredOn, uses: list[str]) -> ElementTree.Element:
    cores = f", {counted(machine.cores, 'core')}" if machine.cores else ""
    rows: list[tuple[str, Content]] = []
    if machine.gpu:
        rows.append(("GPU", machine.gpu + (f", compute capability {machine.sm}" if machine.sm else "")))
    if machine.cpu:
        rows.append(("processor", machine.cpu + cores))
    if machine.os:
        rows.append(("system", " ".join(filter(None, [machine.os, machine.architecture]))))
    versions = [(words, getattr(machine.versions, name)) for name, words in _VERSIONS.items()]
    rows += [(words, version) for words, version in versions if version]
    rows.append(("for", "; ".join(uses)))
    return element("article", element("h3", machine.gpu or machine.cpu or "CPU"), facts(rows))
