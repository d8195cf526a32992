"""What a saved file records: typed records in a JSON member of its archive, readable without torch."""

from __future__ import annotations

import contextlib
import datetime
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ssdtrt import config
from ssdtrt.artifact.archive import check_digest, check_intact, read_member
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.errors import ArtifactError
from ssdtrt.model.source import Digest, WeightsSource
from ssdtrt.system.report import Report
from ssdtrt.system.versions import Machine, Versions

FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\\x00-\x1f\x7f]+$")]
Kind = Literal["module", "engine", "detector"]
KINDS: tuple[Kind, ...] = ("module", "engine", "detector")
ENGINES: tuple[Kind, ...] = ("engine", "detector")


class TensorSpec(Report, frozen=True):
    """An input or an output: its name, its shape (`N` for the batch) and its type."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class ModelInfo(Report, frozen=True):
    """The network of a file.

    Attributes:
        labels: The names of the classes, the background first.
        preprocess: How pictures are prepared for it, `eval` or `hub`.
        weights: Where its weights came from; None where that is not known.
        architecture: `ssd300-resnet50`.
        num_classes: How many classes there are, the background included.
        parameters: How many parameters it has.
        default_boxes_sha256: The SHA-256 of the default boxes that its outputs refer to.
    """

    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    preprocess: Literal["eval", "hub"]
    weights: WeightsSource | None
    architecture: str = "ssd300-resnet50"
    num_classes: int | None = None
    parameters: Annotated[int, msgspec.Meta(gt=0)] | None = None
    default_boxes_sha256: Digest | None = None


class ExportInfo(Report, frozen=True):
    """How the module was made: `trace` or `script`."""

    method: str


class ModuleFile(Report, frozen=True):
    """The module that an engine was built from: its file's name and SHA-256."""

    file: FileName
    sha256: Digest


class BuildInfo(Report, frozen=True):
    """How the build went.

    Attributes:
        seconds: How long it took.
        cached: Whether the file was taken from the cache instead.
        front_end: Who wrote the network for TensorRT, `torchscript` or `tensorrt`; None for another back end.
        disable_tf32: Whether TF32 was disabled.
    """

    seconds: float
    cached: bool = False
    front_end: str | None = None
    disable_tf32: bool = True


class ModuleMetadata(Report, frozen=True, kw_only=True, tag_field="kind", tag="module"):
    """The metadata of an exported module.

    Attributes:
        schema: The version of this layout.
        format: How the file is stored, `torchscript`.
        created: When it was written, ISO 8601, UTC.
        versions: What was installed then.
        machine: Where that was.
        model: The network.
        inputs: The tensors that it takes.
        outputs: The tensors that it returns.
        export: How the module was made.
    """

    schema: int  # type: ignore[misc]
    format: str = "torchscript"
    created: str
    versions: Versions
    machine: Machine
    model: ModelInfo
    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    export: ExportInfo

    @property
    def kind(self) -> str:  # type: ignore[override]
        """`module`, `engine` or `detector`."""
        return str(self.__struct_config__.tag)

    @property
    def precision(self) -> str:
        """What the network computes in."""
        return "fp32"

    @property
    def batch_range(self) -> BatchRange | None:
        """The batch sizes that it takes; None where any will do."""
        return None

    @property
    def trained(self) -> bool:
        """False when the weights are known to be seeded random numbers."""
        return self.model.weights is None or self.model.weights.trained

    def as_dict(self) -> dict[str, Any]:
        """Return the metadata as a dict of JSON types, `kind` included."""
        return {"kind": self.kind, **super().as_dict()}

    def to_json(self) -> bytes:
        """Return the JSON that is written into the file."""
        return msgspec.json.format(msgspec.json.encode(self.as_dict()), indent=1)


class EngineMetadata(ModuleMetadata, frozen=True, kw_only=True, tag_field="kind", tag="engine"):
    """The metadata of an engine: the module's, and of the build.

    Attributes:
        module: The module that it was built from.
        request: What was asked of the build.
        build: How the build went.
        parity: How far it is from FP32.
    """

    module: ModuleFile
    request: BuildRequest
    build: BuildInfo
    parity: ParityReport

    def __post_init__(self) -> None:
        if self.request.capabilities.on_gpu:
            needed = {"machine.sm": self.machine.sm, "versions.torch_tensorrt": self.versions.torch_tensorrt}
            for name, value in needed.items():
                if value is None:
                    raise ValueError(f"{name} is null; expected the one that a TensorRT engine was built with")

    @property
    def precision(self) -> str:
        """What the network computes in."""
        return self.request.precision

    @property
    def batch_range(self) -> BatchRange | None:
        """The batch sizes that it takes; None where any will do."""
        return self.request.batch_range

    @property
    def rebuild_command(self) -> str:
        """The command that builds such a file from the same module."""
        return self.request.command(self.module.file)


class DetectorMetadata(EngineMetadata, frozen=True, kw_only=True, tag_field="kind", tag="detector"):
    """The metadata of a detector: that of its engine, with its own inputs and outputs."""


Metadata = ModuleMetadata | EngineMetadata | DetectorMetadata


def read_metadata(path: str | Path, kinds: Sequence[str] = KINDS) -> Metadata:
    """Return the metadata of one of our files, complete and checked; its other members are not read.

    Args:
        path: The file.
        kinds: The kinds that the caller can use.

    Raises:
        ArtifactError: Says what was found, where it is not such a file.
    """
    path = Path(path)
    data = _parse(path, read_member(path, f"/extra/{config.METADATA_NAME}", config.MAX_METADATA))
    kind, schema = data["kind"], data["schema"]
    if schema > config.SCHEMA:
        raise ArtifactError(
            f"{path} was written by a newer ssdtrt (schema {schema}, this one reads up to {config.SCHEMA}). "
            "Update ssdtrt."
        )
    if kind not in KINDS:
        raise ArtifactError(f"{path} is of the unknown kind {kind[:40]!r}; expected {' or '.join(kinds)}.")
    if kind not in kinds:
        raise ArtifactError(_wrong_kind(path, kind, kinds))
    if schema < config.SCHEMA:
        data = _upgrade(path, data)
    try:
        return msgspec.convert(data, type=Metadata, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ArtifactError(_damaged(path, str(error))) from error


def check_file(path: str | Path, kinds: Sequence[str] = KINDS, *, sha256: str | None = None) -> Metadata:
    """Return the metadata of a file that may be loaded: its archive intact, its digest right. Runs nothing of it.

    Args:
        path: The file.
        kinds: The kinds that the caller can use.
        sha256: The digest that the file must have; without one, that in `<path>.sha256` where there is one.

    Raises:
        ArtifactError: Says what is wrong with it.
    """
    check_intact(path)
    check_digest(path, sha256)
    return read_metadata(path, kinds)


def add_metadata(path: str | Path, metadata: Metadata) -> None:
    """Add the metadata member to a TorchScript archive that `torch.jit.save` wrote, leaving its other bytes alone."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        folder = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(f"{folder}/extra/{config.METADATA_NAME}", metadata.to_json())


def now() -> str:
    """Return the time as metadata has it: ISO 8601, UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """The JSON object, with a schema and a kind."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(_damaged(path, str(error))) from error
    if not isinstance(data, dict):
        raise ArtifactError(_damaged(path, f"it is {_shown(data)}; expected an object"))
    schema, kind = data.get("schema"), data.get("kind")
    if type(schema) is not int or schema < 1:
        raise ArtifactError(_damaged(path, f"schema is {_shown(schema)}; expected a number from 1"))
    if not isinstance(kind, str):
        raise ArtifactError(_damaged(path, f"kind is {_shown(kind)}; expected text"))
    return data


def _upgrade(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """A module of the first schema as one of today's; an engine of it is refused with the command that rebuilds it."""
    build, module = (part if isinstance(part, dict) else {} for part in (data.get("build"), data.get("module")))
    if data["kind"] == "module":
        return {**data, "schema": config.SCHEMA, "export": {"method": build.get("method")}}
    kept = ("backend", "precision", "batch", "streams", "workspace_mib")
    options = {name: build[name] for name in kept if build.get(name) is not None}
    digests = {"weights": "0" * 64, "graph": "0" * 64, "preprocess": "eval"}  # No part of the command.
    command = "ssdtrt compile"
    with contextlib.suppress(msgspec.ValidationError):
        request = msgspec.convert({**options, **digests, "detector": data["kind"] == "detector"}, type=BuildRequest)
        command = request.command(str(module.get("file", config.MODULE_FILE)))
    raise ArtifactError(
        f"{path} was written by an older ssdtrt (schema {data['schema']}, this one loads engines of schema "
        f"{config.SCHEMA}). Build it again: {command}"
    )


def _damaged(path: Path, reason: str) -> str:
    return f"{path} carries damaged metadata ({reason}). Make it again."


def _shown(value: Any) -> str:
    """A value for a message: one short line of printable characters."""
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _wrong_kind(path: Path, kind: str, kinds: Sequence[str]) -> str:
    article = "an" if kind == "engine" else "a"
    text = f"{path} is {article} {kind}; expected a file of kind {' or '.join(kinds)}."
    if kind in ENGINES and tuple(kinds) == ("module",):
        text += " An engine is not compiled again: give the module that ssdtrt export wrote."
    return text
