"""The `config.pbtxt` of a file for Triton Inference Server, every field from the file's metadata. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ssdtrt import __version__, config
from ssdtrt.artifact.metadata import EngineMetadata, TensorSpec
from ssdtrt.artifact.request import BatchRange
from ssdtrt.artifact.tensors import plan_tensors
from ssdtrt.errors import ArtifactError
from ssdtrt.system.digests import sha256_bytes

PREFIX = "ssdtrt."  # of the parameters that `triton-check` compares
TYPES = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64"}  # torch's names and the protocol's

_HEADER = "# Written by ssdtrt triton from the file's metadata; the SHA-256 of the lines below is "
_UNSERVED = "# No Triton server has run such a file for the authors of ssdtrt: ssdtrt triton-check compares yours.\n"
_WARMUP_CALLS = {"pytorch": 3, "tensorrt": 1}  # TorchScript optimizes a module until its third call


@dataclass(frozen=True)
class TritonOptions:
    """What is not in a file's metadata.

    Attributes:
        instances: How many of the model run at once, on each GPU or on the CPU.
        gpus: The GPUs; empty for all.
        queue_delay: Microseconds that a request may wait for others.
        max_batch: The largest batch of a file that takes any; None for config.TRITON_BATCH.
    """

    instances: int = 1
    gpus: tuple[int, ...] = ()
    queue_delay: int = config.TRITON_QUEUE_DELAY
    max_batch: int | None = None


@dataclass(frozen=True)
class Served:
    """A file as Triton serves it.

    Attributes:
        backend: `pytorch` or `tensorrt`.
        file_name: The name that the back end expects.
        batch: The sizes that requests are gathered to; None where Triton must not gather any, because the file is a
            plan of one size, whose shapes have no room for another.
        inputs: The tensors that a request has, by Triton's names and without the batch, unless `batch` is None.
        outputs: Those that an answer has.
        names: What the metadata calls the outputs.
    """

    backend: str
    file_name: str
    batch: BatchRange | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    names: tuple[str, ...]


def served(metadata: EngineMetadata, max_batch: int | None = None) -> Served:
    """Return how Triton serves a file.

    Args:
        metadata: Of an engine or a detector.
        max_batch: As for TritonOptions.
    """
    plan = metadata.format == "plan"
    inputs, outputs = plan_tensors(metadata) if plan else (metadata.inputs, metadata.outputs)
    names = tuple(output.name for output in outputs)
    batch = metadata.batch_range or BatchRange(1, 1, max_batch or config.TRITON_BATCH)
    if not plan:
        inputs, outputs = _numbered("INPUT", inputs), _numbered("OUTPUT", outputs)
        return Served("pytorch", "model.pt", batch, _unbatched(inputs), _unbatched(outputs), names)
    if batch.static:
        one_size = (_sized(inputs, batch.max), _sized(outputs, batch.max))
        return Served("tensorrt", "model.plan", None, *one_size, names)
    return Served("tensorrt", "model.plan", batch, _unbatched(inputs), _unbatched(outputs), names)


def write_config(name: str, metadata: EngineMetadata, sha256: str, options: TritonOptions) -> str:
    """Return the text of `config.pbtxt`.

    Args:
        name: The model's name.
        metadata: Of an engine or a detector.
        sha256: The SHA-256 of the file.
        options: The rest.
    """
    model = served(metadata, options.max_batch)
    sizes = metadata.batch_range.sizes if metadata.batch_range else (1, model.batch.max if model.batch else 1)
    body = (
        f"name: {_text(name)}\n"
        f"{interface(model)}"
        f"max_batch_size: {model.batch.max if model.batch else 0}\n"
        f"{_dynamic_batching(model, metadata.batch_range, options.queue_delay)}"
        f"{_instances(metadata, options)}"
        "version_policy { latest { num_versions: 1 } }\n"
        f"{_warmups(model, sizes if model.batch else (1,))}"
        f"{_parameters(metadata, model, sha256)}"
    )
    return f"{_HEADER}{sha256_bytes(body.encode())}\n{_UNSERVED}{body}"


def interface(model: Served) -> str:
    """Return the part of the text that clients depend on: the back end, inputs and outputs."""
    tensors = [f"input {_tensor(one)}" for one in model.inputs] + [f"output {_tensor(one)}" for one in model.outputs]
    return f"backend: {_text(model.backend)}\ndefault_model_filename: {_text(model.file_name)}\n" + "".join(tensors)


def is_as_written(text: str) -> bool:
    """Return whether `write_config` made this text, and nobody changed it since."""
    header, _, rest = text.partition("\n")
    body = rest.removeprefix(_UNSERVED)
    return header == _HEADER + sha256_bytes(body.encode()) and len(body) < len(rest)


def _numbered(name: str, tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The tensors by the names that Triton's PyTorch backend knows places by."""
    return tuple(TensorSpec(f"{name}__{i}", one.shape, one.dtype) for i, one in enumerate(tensors))


def _unbatched(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(one.name, one.shape[1:], one.dtype) for one in tensors)


def _sized(tensors: tuple[TensorSpec, ...], size: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(one.name, (size, *one.shape[1:]), one.dtype) for one in tensors)


def _tensor(tensor: TensorSpec) -> str:
    """A message of an input or an output. What has one number a picture, has no dimension but the batch inside."""
    if tensor.dtype not in TYPES:
        raise ArtifactError(f"The tensor {tensor.name} is of {tensor.dtype}; Triton gets {', '.join(TYPES)}.")
    reshape = "" if tensor.shape else " reshape { shape: [] }"
    return f"{{ name: {_text(tensor.name)} data_type: TYPE_{TYPES[tensor.dtype]} {_dims(tensor)}{reshape} }}\n"


def _dims(tensor: TensorSpec) -> str:
    return f"dims: [{', '.join(map(str, tensor.shape or (1,)))}]"


def _dynamic_batching(model: Served, batch: BatchRange | None, delay: int) -> str:
    """Requests are gathered to the size that the engine is optimized for, then to its largest."""
    if model.batch is None or model.batch.max == 1:
        return ""
    preferred = sorted({batch.opt, batch.max} - {1}) if batch else []
    sizes = f"preferred_batch_size: [{', '.join(map(str, preferred))}] " if preferred else ""
    return f"dynamic_batching {{ {sizes}max_queue_delay_microseconds: {delay} }}\n"


def _instances(metadata: EngineMetadata, options: TritonOptions) -> str:
    if not metadata.request.capabilities.on_gpu:
        return f"instance_group {{ count: {options.instances} kind: KIND_CPU }}\n"
    gpus = f" gpus: [{', '.join(map(str, options.gpus))}]" if options.gpus else ""
    return f"instance_group {{ count: {options.instances} kind: KIND_GPU{gpus} }}\n"


def _warmups(model: Served, sizes: tuple[int, ...]) -> str:
    """Zeros in each size that the engine was built for, before the model is ready."""
    lines = []
    for size in sorted(set(sizes)):
        inputs = "".join(
            f"inputs {{ key: {_text(one.name)} "
            f"value {{ data_type: TYPE_{TYPES[one.dtype]} {_dims(one)} zero_data: true }} }} "
            for one in model.inputs
        )
        count = _WARMUP_CALLS[model.backend]
        lines.append(f'model_warmup {{ name: "batch {size}" batch_size: {size} {inputs}count: {count} }}\n')
    return "".join(lines)


def _parameters(metadata: EngineMetadata, model: Served, sha256: str) -> str:
    """What clients need of the metadata, and what `triton-check` compares."""
    mean, std = config.NORMALIZATION[metadata.model.preprocess]
    weights = metadata.model.weights
    found = {
        "sha256": sha256,
        "kind": metadata.kind,
        "precision": metadata.precision,
        "batch": str(metadata.batch_range or "any"),
        "preprocess": metadata.model.preprocess,
        "mean": json.dumps(mean) if metadata.kind == "engine" else "",
        "std": json.dumps(std) if metadata.kind == "engine" else "",
        "outputs": json.dumps(model.names),
        "labels": json.dumps(metadata.model.labels),
        "weights": weights.sha256 if weights else "",
        "created": metadata.created,
        "torch": metadata.versions.torch,
        "tensorrt": metadata.versions.tensorrt if metadata.request.capabilities.on_gpu else "",
        "compute_capability": metadata.machine.sm,
        "version": __version__,
    }
    return "".join(
        f"parameters {{ key: {_text(PREFIX + key)} value {{ string_value: {_text(value)} }} }}\n"
        for key, value in found.items()
        if value
    )


def _text(value: str) -> str:
    """A text as protobuf's text format has it, in ASCII."""
    plain = {ord(char) for char in map(chr, range(32, 127)) if char not in '"\\'}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in value.encode()) + '"'
