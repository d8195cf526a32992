"""The build request: the cache key, the metadata and the rebuild command are derived from it. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from ssdtrt import config
from ssdtrt.artifact.precision import BACKENDS, PRECISIONS, Backend, Precision, find_backend
from ssdtrt.artifact.quantization import Quantization
from ssdtrt.errors import CompileError
from ssdtrt.system.digests import Digest
from ssdtrt.system.report import Report

_BatchText = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,6}(:[0-9]{1,6}:[0-9]{1,6})?$")]


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes that an engine takes. For a static engine the three are the same.

    Attributes:
        min: The smallest, at least 1.
        opt: The one that the engine is optimized for.
        max: The largest.

    Raises:
        CompileError: Unless 1 <= min <= opt <= max.

    Example:
        >>> from ssdtrt import BatchRange
        >>> BatchRange.parse("1:8:32").sizes
        (1, 8, 32)
        >>> BatchRange.parse(8).static
        True
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            found = self.min if self.min == self.opt == self.max else f"{self.min}:{self.opt}:{self.max}"
            raise CompileError(f"A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found {found}.")

    def __str__(self) -> str:
        return str(self.opt) if self.static else f"{self.min}:{self.opt}:{self.max}"

    @property
    def static(self) -> bool:
        """Whether the engine runs a single batch size (smaller batches are padded to it)."""
        return self.min == self.max

    @property
    def sizes(self) -> tuple[int, ...]:
        """The distinct sizes in ascending order."""
        return tuple(sorted({self.min, self.opt, self.max}))

    @property
    def options(self) -> list[str]:
        """The option of `ssdtrt compile` for these batch sizes, and its value."""
        return ["--batch-size" if self.static else "--batch-range", str(self)]

    @classmethod
    def parse(cls, text: str | int) -> BatchRange:
        """Parse a batch size or MIN:OPT:MAX, such as `8` or `1:8:32`.

        Raises:
            CompileError: If the text is neither, or not in ascending order.
        """
        parts = str(text).split(":")
        if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
            raise CompileError(f"A batch is a number or MIN:OPT:MAX, such as 8 or 1:8:32; found {text!r}.")
        numbers = [int(part) for part in parts]
        return cls(*(numbers * 3 if len(numbers) == 1 else numbers))


class BuildRequest(Report, frozen=True, kw_only=True):
    """Everything that determines the content of a built file, except the machine and the installed versions.

    The cache key, the file's metadata and the rebuild command are derived from this record, so that a new field is in
    all three. Each field is an option of `ssdtrt compile` with the same name, except those in `_OPTIONS`.

    Attributes:
        weights: The SHA-256 of the weights.
        graph: The SHA-256 of the module's code.
        preprocess: How pictures are prepared for the network, as recorded at export.
        backend: A name of `BACKENDS`.
        precision: A name of `PRECISIONS`.
        batch: The batch sizes, as the text of a `BatchRange`; None for any.
        front_end: How the network is given to TensorRT, one of `Backend.front_ends`; None for another back end.
        streams: How many auxiliary streams TensorRT may use; None for another back end.
        workspace_mib: The memory that TensorRT may use while it chooses kernels, in MiB.
        format: The format of the file: `torchscript`, or `plan`, which is TensorRT's serialized engine by itself.
        detector: Whether the file includes normalization, decoding and NMS.
        quantization: How the network is quantized, for `int8`.
    """

    weights: Digest
    graph: Digest
    preprocess: Literal["eval", "hub"]
    backend: str
    precision: str
    batch: _BatchText | None = None
    front_end: str | None = None
    streams: int | None = None
    workspace_mib: int = config.WORKSPACE_MIB
    format: Literal["torchscript", "plan"] = "torchscript"
    detector: bool = False
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        for value, known in ((self.backend, BACKENDS), (self.precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f"{value!r} is unknown; expected {' or '.join(known)}")
        if self.front_end is not None and self.front_end not in self.capabilities.front_ends:
            able = " or ".join(self.capabilities.front_ends) or "none"
            raise ValueError(f"{self.front_end!r} is no front end of {self.backend}; expected {able}")
        if self.capabilities.fixed_batch and self.batch is None:
            raise ValueError(f"batch is null; expected the batch sizes of a {self.backend} engine")
        if self.format == "plan" and (self.front_end != "tensorrt" or self.detector):
            raise ValueError("a plan is an engine of the front end tensorrt, not a detector")
        if (self.precision == "int8") != (self.quantization is not None):
            raise ValueError(f"{self.precision} with quantization {self.quantization}; expected it with int8 alone")
        if self.quantization is not None and self.front_end != "tensorrt":
            raise ValueError("INT8 is built through the front end tensorrt")
        if self.batch is not None:
            try:
                BatchRange.parse(self.batch)
            except CompileError as error:
                raise ValueError(str(error)) from error

    @property
    def capabilities(self) -> Backend:
        """The record of the back end."""
        return find_backend(self.backend)

    @property
    def computes_in(self) -> Precision:
        """The record of the precision."""
        return PRECISIONS[self.precision]

    @property
    def batch_range(self) -> BatchRange | None:
        """The batch sizes; None for any."""
        return None if self.batch is None else BatchRange.parse(self.batch)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The kind of file, `engine` or `detector`."""
        return "detector" if self.detector else "engine"

    def command(self, module: str, out: str | None = None) -> str:
        """Return the `ssdtrt compile` command that builds this request.

        Args:
            module: The path of the module.
            out: The file to write; None to leave it out.
        """
        words = ["ssdtrt", "compile", module]
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name in _OPTIONS:
                words += _OPTIONS[field.name](value)
            elif value != field.default:
                words.append(f"--{field.name.replace('_', '-')}")
                words += [] if value is True else [str(value)]
        return shlex.join(words if out is None else [*words, "-o", out])


def _no_option(_: str) -> list[str]:
    """Return no words, for what the command reads from the module."""
    return []


_OPTIONS: dict[str, Callable[[Any], list[str]]] = {
    "weights": _no_option,
    "graph": _no_option,
    "preprocess": _no_option,
    "backend": lambda name: [] if name == config.BACKEND else ["--backend", name],
    "precision": lambda name: [f"--{name}"],
    "quantization": lambda found: [] if found is None else found.options,
    "batch": lambda text: [] if text is None else BatchRange.parse(text).options,
}
