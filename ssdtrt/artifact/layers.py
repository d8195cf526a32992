"""The layers of a TensorRT engine: what each computes, and in which type. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from ssdtrt.system.report import Report


class EngineLayer(Report, frozen=True):
    """A layer of an engine, which TensorRT may have made of several layers of the network.

    Attributes:
        name: The names of the network's layers that it was made of.
        operation: TensorRT's name for the kind of layer, such as `CaskConvolution` or `Reformat`.
        dtype: The type that it computes in, such as `fp16`: that of its weights, or else of its output; None if TensorRT
            does not say.
        multiplications: How many multiplications and additions it does for one image; None if it is no convolution.
        kernel: The name of the kernel that TensorRT chose.
    """

    name: str
    operation: str
    dtype: str | None = None
    multiplications: int | None = None
    kernel: str = ""


def arithmetic_by_dtype(layers: Iterable[EngineLayer]) -> dict[str, float]:
    """Return the share of the multiplications in each type, 0..1, the largest first; empty if none is known."""
    totals: dict[str, int] = {}
    for layer in layers:
        if layer.multiplications:
            name = layer.dtype or "unknown"
            totals[name] = totals.get(name, 0) + layer.multiplications
    total = sum(totals.values())
    return {name: count / total for name, count in sorted(totals.items(), key=lambda item: -item[1])}


def count_by_dtype(layers: Iterable[EngineLayer]) -> dict[str, int]:
    """Return how many layers compute in each type, the most frequent first."""
    counts: dict[str, int] = {}
    for layer in layers:
        name = layer.dtype or "unknown"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
