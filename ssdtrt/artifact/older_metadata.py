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
    build, module = (part if isinstance(part, dict) else {} for part in (data.get("build"), data.get("module")))
    if data["kind"] == "module":
        return {**data, "schema": config.SCHEMA, "export": {"method": build.get("method")}}
    names = ("backend", "precision", "batch", "front_end", "streams", "workspace_mib")
    options = {name: build[name] for name in names if build.get(name) is not None}
    digests = {"weights": "0" * 64, "graph": "0" * 64, "preprocess": "eval"}  # Not part of the command.
    command = "ssdtrt compile"
    with contextlib.suppress(msgspec.ValidationError):
        request = msgspec.convert({**options, **digests, "detector": data["kind"] == "detector"}, type=BuildRequest)
        command = request.command(str(module.get("file", config.MODULE_FILE)))
    raise ArtifactError(
        f"{path} was written by an older ssdtrt (schema {data['schema']}, this one loads engines of schema "
        f"{config.SCHEMA}). Build it again: {command}"
    )
