"""The inputs and outputs of a saved file, as its metadata records them. Imports no torch."""

from __future__ import annotations

from ssdtrt import config
from ssdtrt.artifact.metadata import ModuleMetadata, TensorSpec

INPUT_NAME, OUTPUT_NAME = "images", "loc_conf"  # of a plan: both outputs are one tensor there

Tensors = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""(inputs, outputs)"""


def module_tensors(num_classes: int) -> Tensors:
    """Return the inputs and outputs of a module, and of an engine."""
    outputs = (
        TensorSpec("loc", ("N", 4, config.NUM_BOXES), "float32"),
        TensorSpec("conf", ("N", num_classes, config.NUM_BOXES), "float32"),
    )
    return (_images("float32"),), outputs


def detector_tensors() -> Tensors:
    """Return the inputs and outputs of a detector."""
    rows = ("N", config.MAX_DETECTIONS)
    outputs = (
        TensorSpec("boxes", (*rows, 4), "float32"),
        TensorSpec("labels", rows, "int64"),
        TensorSpec("scores", rows, "float32"),
        TensorSpec("counts", ("N",), "int64"),
    )
    return (_images("uint8"),), outputs


def plan_tensors(metadata: ModuleMetadata) -> Tensors:
    """Return the input and the output that a plan has: the outputs that its metadata lists, one behind the other.

    Args:
        metadata: The metadata of the plan.
    """
    rows = metadata.outputs[0].shape[2]
    channels = sum(int(output.shape[1]) for output in metadata.outputs)
    image = metadata.inputs[0]
    joined = TensorSpec(OUTPUT_NAME, ("N", channels, rows), metadata.outputs[0].dtype)
    return (TensorSpec(INPUT_NAME, image.shape, image.dtype),), (joined,)


def _images(dtype: str) -> TensorSpec:
    return TensorSpec("images", ("N", 3, config.IMAGE_SIZE, config.IMAGE_SIZE), dtype)
