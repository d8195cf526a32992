"""The metadata of a saved file: typed records in a JSON member of its archive. Imports no torch."""

from __future__ import annotations

import datetime
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ssdtrt import config
from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.artifact.older_metadata import upgraded
from ssdtrt.artifact.parity_report import ParityReport
from ssdtrt.artifact.quantization import Int8Verdict
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.errors import ArtifactError
from ssdtrt.formats.archive import check_digest
from ssdtrt.formats.container import check_intact, format_of, read_record
from ssdtrt.formats.plan_file import PlanInfo
from ssdtrt.model.source import WeightsSource
from ssdtrt.system.digests import Digest
from ssdtrt.system.report import Report
from ssdtrt.system.versions import Machine, Versions

_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\\x00-\x1f\x7f]+$")]
_KINDS = ("module", "engine", "detector")


class TensorSpec(Report, frozen=True):
    """An input or an output: its name, its shape (`N` for the batch size) and its dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class ModelInfo(Report, frozen=True):
    """The network of a file.

    Attributes:
        labels: The names of the classes, the background first.
        preprocess: How pictures are prepared for it, `eval` or `hub`.
        weights: The source of its weights; None if it is not known.
        architecture: `ssd300-resnet50`.
        num_classes: The number of classes, including the background.
        parameters: The number of parameters.
        default_boxes_sha256: The SHA-256 of the default boxes that `loc` refers to.
    """

    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    preprocess: Literal["eval", "hub"]
    weights: WeightsSource | None
    architecture: str = "ssd300-resnet50"
    num_classes: int | None = None
    parameters: Annotated[int, msgspec.Meta(gt=0)] | None = None
    default_boxes_sha256: Digest | None = None


class ExportInfo(Report, frozen=True):
    """How the module was exported: the method is `trace` or `script`, or `layers` for ONNX, which is written by layer."""

    method: str


class ModuleFile(Report, frozen=True):
    """The module that an engine was built from: its file name and SHA-256."""

    file: _FileName
    sha256: Digest


class BuildInfo(Report, frozen=True):
    """The build of an engine.

    Attributes:
        seconds: How long it took.
        cached: Whether this file was copied from the cache of engines.
        front_end: How the network was given to TensorRT: `torchscript` or `tensorrt` (see `BuildRequest.front_end`);
            None for another back end.
        disable_tf32: Whether TF32 was disabled.
        merged_projections: Whether the projections of residual blocks are parts of the blocks' last convolutions; False
            where TensorRT did not build that, or the engine was refused. None for another back end, and in older files.
    """

    seconds: float
    cached: bool = False
    front_end: str | None = None
    disable_tf32: bool = True
    merged_projections: bool | None = None


class ModuleMetadata(Report, frozen=True, kw_only=True, tag_field="kind", tag="module"):
    """The metadata of an exported module.

    Attributes:
        schema: The version of this layout.
        format: The format of the file: `torchscript`, `onnx` or `plan`.
        created: The time of writing, ISO 8601, UTC.
        versions: The installed versions.
        machine: The machine.
        model: The network.
        inputs: The tensors that the network takes.
        outputs: The tensors that it returns.
        export: How the module was exported.
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
        """The precision that the network computes in."""
        return "fp32"

    @property
    def batch_range(self) -> BatchRange | None:
        """The batch sizes that the file takes; None for any."""
        return None

    @property
    def trained(self) -> bool:
        """False if the weights are known to be random."""
        return self.model.weights is None or self.model.weights.trained

    def as_dict(self) -> dict[str, Any]:
        """Return the metadata as a dict of JSON types, `kind` included."""
        return {"kind": self.kind, **super().as_dict()}

    def to_json(self) -> bytes:
        """Return the JSON text of the metadata member; `?` for what is no text in the name of a file."""
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False).encode(errors="replace")


class EngineMetadata(ModuleMetadata, frozen=True, kw_only=True, tag_field="kind", tag="engine"):
    """The metadata of an engine: the fields of its module, and those of the build.

    Attributes:
        module: The module that it was built from.
        request: The build request.
        build: The build.
        parity: The comparison with FP32.
        plan: The plan, if the file is one.
        layers: The layers that TensorRT made of the network, if it was.
        int8: What an INT8 engine was judged by.
    """

    module: ModuleFile
    request: BuildRequest
    build: BuildInfo
    parity: ParityReport
    plan: PlanInfo | None = None
    layers: tuple[EngineLayer, ...] = ()
    int8: Int8Verdict | None = None

    def __post_init__(self) -> None:
        if self.format == "plan" and self.plan is None:
            raise ValueError("plan is null; expected the size and the SHA-256 of the plan")
        if self.request.capabilities.on_gpu:
            library = "tensorrt" if self.format == "plan" else "torch_tensorrt"
            needed = {"machine.sm": self.machine.sm, f"versions.{library}": getattr(self.versions, library)}
            for name, value in needed.items():
                if value is None:
                    raise ValueError(f"{name} is null; expected the one that a TensorRT engine was built with")

    @property
    def precision(self) -> str:
        """The precision that the network computes in."""
        return self.request.precision

    @property
    def batch_range(self) -> BatchRange | None:
        """The batch sizes that the file takes; None for any."""
        return self.request.batch_range

    @property
    def rebuild_command(self) -> str:
        """The command that builds the file again from the same module."""
        return self.request.command(self.module.file)


class DetectorMetadata(EngineMetadata, frozen=True, kw_only=True, tag_field="kind", tag="detector"):
    """The metadata of a detector: the fields of its engine, with the inputs and outputs of the detector."""


class OnnxDetectorMetadata(ModuleMetadata, frozen=True, kw_only=True, tag_field="kind", tag="detector"):
    """The metadata of a detector that is an ONNX file: it was exported, not built from a module."""


Metadata = ModuleMetadata | EngineMetadata | DetectorMetadata
_OnnxMetadata = ModuleMetadata | OnnxDetectorMetadata


def read_metadata(path: str | Path, kinds: Sequence[str] = _KINDS) -> Metadata:
    """Read and validate the metadata of a file, without reading its other members.

    Args:
        path: The file.
        kinds: The kinds of file that the caller accepts.

    Raises:
        ArtifactError: If the file is not one of ssdtrt's, of another kind or schema, or its metadata is damaged.
    """
    path = Path(path)
    data = _parse(path, read_record(path))
    kind, schema, file_format = data["kind"], data["schema"], data.get("format", "torchscript")
    if schema > config.SCHEMA:
        raise ArtifactError(
            f"{path} was written by a newer ssdtrt (schema {schema}, this one reads up to {config.SCHEMA}). "
            "Update ssdtrt."
        )
    if kind not in _KINDS:
        raise ArtifactError(f"{path} is of the unknown kind {kind[:40]!r}; expected {' or '.join(kinds)}.")
    if file_format != format_of(path):
        raise ArtifactError(_damaged(path, f"format is {_shown(file_format)}; expected {format_of(path)!r}"))
    if kind not in kinds:
        raise ArtifactError(_wrong_kind(path, kind, kinds))
    if schema < config.SCHEMA:
        data = upgraded(path, data)
    try:
        return msgspec.convert(data, type=_OnnxMetadata if file_format == "onnx" else Metadata, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ArtifactError(_damaged(path, str(error))) from error


def check_file(path: str | Path, kinds: Sequence[str] = _KINDS, *, sha256: str | None = None) -> Metadata:
    """Check that a file is intact, without running any of its code, and return its metadata.

    Args:
        path: The file.
        kinds: The kinds of file that the caller accepts.
        sha256: The SHA-256 that the file must have; by default the one in `<path>.sha256`, if that file exists.

    Raises:
        ArtifactError: If the archive is damaged, the digest is another, or `read_metadata` refuses the file.
    """
    check_intact(path)
    check_digest(path, sha256)
    return read_metadata(path, kinds)


def add_metadata(path: str | Path, metadata: Metadata) -> None:
    """Append the metadata member to an archive that `torch.jit.save` wrote, without changing its other members."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        folder = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(f"{folder}/extra/{config.METADATA_NAME}", metadata.to_json())


def now() -> str:
    """Return the current time in the form of the metadata: ISO 8601, UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """Return the JSON object after checking its `schema` and `kind`."""
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


def _damaged(path: Path, reason: str) -> str:
    return f"{path} carries damaged metadata ({reason}). Make it again."


def _shown(value: Any) -> str:
    """Return a value in at most 40 printable characters, for a message."""
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _wrong_kind(path: Path, kind: str, kinds: Sequence[str]) -> str:
    article = "an" if kind == "engine" else "a"
    text = f"{path} is {article} {kind}; expected a file of kind {' or '.join(kinds)}."
    if kind != "module" and tuple(kinds) == ("module",):
        text += " An engine is not compiled again: give the module that ssdtrt export wrote."
    return text
