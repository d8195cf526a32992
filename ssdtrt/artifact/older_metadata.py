"""Convert the metadata that earlier versions wrote. Imports no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from ssdtrt import config
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.errors import ArtifactError


def upgraded(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a module of schema 1 as this version writes it.

    Raises:
        ArtifactError: For an engine of schema 1; the message has the command that rebuilds it.
    """
    if data["kind"] == "module":
        return of_first_schema(data)
    module = data["module"] if isinstance(data.get("module"), dict) else {}
    command = "ssdtrt compile"
    with contextlib.suppress(msgspec.ValidationError):
        request = msgspec.convert(_request(data), type=BuildRequest)
        command = request.command(str(module.get("file", config.MODULE_FILE)))
    raise ArtifactError(
        f"{path} was written by an older ssdtrt (schema {data['schema']}, this one loads engines of schema "
        f"{config.SCHEMA}). Build it again: {command}"
    )


def of_first_schema(data: dict[str, Any]) -> dict[str, Any]:
    """Return metadata of schema 1 in today's layout, to be shown. What it did not record of the request is zeros.

    Args:
        data: Of a module or an engine. Anything else of it is left for the decoder to refuse.
    """
    build = _build(data)
    changed = {"schema": config.SCHEMA, "export": {"method": build.get("method")}}
    return {**data, **changed} if data.get("kind") == "module" else {**data, **changed, "request": _request(data)}


def _build(data: dict[str, Any]) -> dict[str, Any]:
    return data["build"] if isinstance(data.get("build"), dict) else {}


def _request(data: dict[str, Any]) -> dict[str, Any]:
    """The options of an engine's build request. Digests and preprocessing are no options."""
    names = ("backend", "precision", "batch", "front_end", "streams", "workspace_mib")
    build = _build(data)
    options = {name: build[name] for name in names if build.get(name) is not None}
    return {
        **options, "weights": "0" * 64, "graph": "0" * 64, "preprocess": "eval", "detector": data["kind"] == "detector"
    }  # fmt: skip
