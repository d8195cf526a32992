"""The fields of a file's metadata that the package reads later, and what each must be. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssdtrt import config


@dataclass(frozen=True)
class Rule:
    """What a field must be: a test, and its words for a message."""

    test: Callable[[Any], bool]
    words: str


def of(*types: type, words: str) -> Rule:
    """A value of exactly one of these types (so that true is no number)."""
    return Rule(lambda value: type(value) in types, words)


def one_of(values) -> Rule:
    """One of these values."""
    return Rule(lambda value: isinstance(value, str) and value in values, " or ".join(values))


def is_batch(value: Any) -> bool:
    """Whether it is null, or a batch range as `engine.BatchRange` writes it."""
    if value is None:
        return True
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,6}(:[0-9]{1,6}:[0-9]{1,6})?", value):
        return False
    sizes = [int(part) for part in value.split(":")]
    return sizes[0] >= 1 and sizes == sorted(sizes)


def is_tensor(value: Any) -> bool:
    """Whether it describes an input or an output: a name, a shape and a type."""
    if not isinstance(value, dict) or not isinstance(value.get("shape"), list):
        return False
    return isinstance(value.get("name"), str) and isinstance(value.get("dtype"), str)


def is_output_parity(value: Any) -> bool:
    """Whether it names an output and says how far it is from FP32."""
    return isinstance(value, dict) and isinstance(value.get("name"), str) and is_number(value.get("relative_l2"))


def is_number(value: Any) -> bool:
    """Whether it is a number, and not true or false."""
    return type(value) in (int, float)


def list_of(test: Callable[[Any], bool], words: str) -> Rule:
    """A list, not empty, whose items all pass."""
    return Rule(lambda value: isinstance(value, list) and bool(value) and all(map(test, value)), words)


TEXT = of(str, words="text")
TEXT_OR_NULL = of(str, type(None), words="text or null")
OBJECT = of(dict, words="an object")
OBJECT_OR_NULL = of(dict, type(None), words="an object or null")
BOOL = of(bool, words="true or false")
NUMBER = Rule(is_number, "a number")
COUNT = Rule(lambda value: type(value) is int and value >= 0, "a count")
DIGEST = Rule(lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None, "a SHA-256")
TENSORS = list_of(is_tensor, "a list of names, shapes and types")
FILE_NAME = Rule(
    lambda value: isinstance(value, str) and value.isprintable() and not re.search(r"[/\\]", value) and value != "",
    "a file's name",
)

ALWAYS = {
    "schema": Rule(lambda value: type(value) is int and value >= 1, "a number from 1"),
    "kind": TEXT,
}
# A field below a null one, where null is allowed, is not looked for.
MODULE = {
    "created": TEXT,
    "versions": OBJECT,
    "machine": OBJECT,
    "model": OBJECT,
    "model.labels": list_of(lambda value: isinstance(value, str), "a list of names"),
    "model.weights": OBJECT_OR_NULL,
    "model.weights.sha256": DIGEST,
    "model.weights.trained": BOOL,
    "model.preprocess": one_of(config.PREPROCESSES),
    "inputs": TENSORS,
    "outputs": TENSORS,
    "build": OBJECT,
    "build.method": TEXT,
    "build.precision": TEXT,
}
ENGINE = {
    **MODULE,
    "versions.torch_tensorrt": TEXT_OR_NULL,
    "versions.tensorrt": TEXT_OR_NULL,
    "machine.os": TEXT,
    "machine.architecture": TEXT,
    "machine.sm": TEXT_OR_NULL,
    "module": OBJECT,
    "module.file": FILE_NAME,
    "module.sha256": DIGEST,
    "build.backend": TEXT,
    "build.batch": Rule(is_batch, "a batch range or null"),
    "build.seconds": NUMBER,
    "parity": OBJECT,
    "parity.bound": NUMBER,
    "parity.outputs": list_of(is_output_parity, "a list of names and distances"),
    "parity.detections": OBJECT,
    "parity.detections.reference": COUNT,
    "parity.detections.engine": COUNT,
    "parity.detections.share": Rule(lambda value: value is None or is_number(value), "a number or null"),
}
TENSORRT = {
    "build.batch": Rule(lambda value: value is not None and is_batch(value), "a batch range"),
    "machine.sm": TEXT,
    "versions.torch_tensorrt": TEXT,
}
# What a TensorRT engine was built with and must find again, by the key in `versions` or `machine`.
MUST_AGREE = {
    "os": "operating system",
    "architecture": "architecture",
    "sm": "compute capability",
    "tensorrt": "TensorRT",
    "torch_tensorrt": "Torch-TensorRT",
}
OF_KIND = {"module": MODULE, "engine": ENGINE, "detector": ENGINE}


def complaint(metadata: dict, rules: dict[str, Rule]) -> str | None:
    """The first field that breaks its rule, as `FIELD is VALUE; expected WORDS`; None where none does."""
    for name, rule in rules.items():
        value, there = look_up(metadata, name)
        if not there:
            return f"{name} is missing"
        if value is not SKIPPED and not rule.test(value):
            return f"{name} is {shown(value)}; expected {rule.words}"
    if rules is ENGINE and metadata["build"]["backend"] == "tensorrt":
        return complaint(metadata, TENSORRT)
    return None


SKIPPED = object()


def look_up(metadata: dict, name: str) -> tuple[Any, bool]:
    """The value of a dotted name, SKIPPED where what is above it is null, and whether it is there."""
    value: Any = metadata
    for part in name.split("."):
        if value is None:
            return SKIPPED, True
        if part not in value:
            return None, False
        value = value[part]
    return value, True


def shown(value: Any) -> str:
    """A value for a message: one short line of printable characters."""
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
